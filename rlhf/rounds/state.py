"""A round's state: a run of kind `loop`, and `state.json` in its folder, written whole after each step.

A killed round is found again by its run: the last one of its name that is neither done nor given up. What a step gave stands in
`state.json`; the step that was under way is done again, and finds what it had published already.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.errors import Conflict, Damaged, Interrupted
from rlhf.ids import canonical_json
from rlhf.rounds.settings import LoopSettings
from rlhf.store import Workspace, runs
from rlhf.store.holding import Held, holding
from rlhf.store.runs import RunRow

KIND = "loop"
FILE = "state.json"
BECAUSE = "because"  # beside the steps' results
LOCK = "loop.lock"
AGAIN = "rlhf loop run"


@dataclass
class Round:
    """One round under way or done. results: what each step gave, in the order of the steps; doing: the step under way; again:
    the command that goes on with it.
    """

    id: str
    folder: Path
    settings: LoopSettings
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    doing: str | None = None
    again: str = AGAIN

    def begin(self, step: str) -> None:
        self.doing = step
        self._write()

    def end(self, step: str, result: Mapping[str, Any]) -> None:
        self.results[step] = dict(result)
        self.doing = None
        self._write()

    def _write(self) -> None:
        """Whole or not at all, and on the disk before the next step begins."""
        staged = self.folder / f"{FILE}.new"
        with open(staged, "wb") as file:
            kept = {"round": self.id, "doing": self.doing, "again": self.again, "results": self.results}
            file.write(canonical_json(kept))
            file.flush()
            os.fsync(file.fileno())
        staged.replace(self.folder / FILE)


def start(workspace: Workspace, settings: LoopSettings, because: Mapping[str, Any], again: str) -> Round:
    """Begin a round. because: how many judgements are new, and since which cut."""
    run_id = runs.start(workspace, KIND, settings.name, None, settings.content())
    made = Round(run_id, workspace.root / "runs" / run_id, settings, {BECAUSE: dict(because)}, again=again)
    made._write()
    return made


def unfinished(workspace: Workspace, settings: LoopSettings, *, anew: bool) -> Round | None:
    """The round that was interrupted, killed or failed; None where there is none. anew: give it up.

    Raises Conflict where it was begun with other settings: a round keeps to the ones that it began with.
    """
    row = next((r for r in reversed(_rows(workspace, settings.name)) if r.state != "cancelled"), None)
    if row is None or row.state == "done":
        return None
    if anew:
        runs.finish(workspace, row.id, "cancelled", error=f"given up by {workspace.actor}")
        return None
    changed = sorted(key for key, value in settings.content().items() if row.settings.get(key) != value)
    if changed:
        raise Conflict(
            f"round {row.id} of {settings.name} is unfinished and was begun with another {', '.join(changed)}",
            fix="put the settings back and run again to finish it, or give it up with --anew",
        )
    return _round(workspace, row, settings)


def finished(workspace: Workspace, settings: LoopSettings) -> list[Round]:
    """The rounds of this name that are done, oldest first, under the settings of today."""
    return [_round(workspace, row, settings) for row in _rows(workspace, settings.name) if row.state == "done"]


def again(workspace: Workspace, row: RunRow) -> str:
    """The command that goes on with a round, as it was last given."""
    try:
        return str(json.loads((workspace.root / row.folder / FILE).read_bytes()).get("again", AGAIN))
    except (OSError, ValueError):
        return AGAIN


@contextmanager
def alone(workspace: Workspace, name: str) -> Iterator[None]:
    """One round at a time in a workspace. Raises Conflict naming who is at it."""
    (workspace.root / "runs").mkdir(exist_ok=True)
    try:
        with holding(workspace.root / "runs" / LOCK, f"loop {name}"):
            yield
    except Held as held:
        holder = held.holder
        who = f" (process {holder.process.pid} since {holder.since[:19]})" if holder.process else ""
        raise Conflict(
            f"another round is under way in this workspace: {holder.what}{who}",
            fix="wait for it; one round runs at a time",
        ) from None


@contextmanager
def under_way(workspace: Workspace, one: Round) -> Iterator[None]:
    """Hold the round's run while the block runs; how the block ends is how the run ends. A killed one stays `running`."""
    with holding(one.folder / runs.LOCK_FILE, f"loop {one.settings.name}") as hold:
        hold.say(one.id)
        if runs.show(workspace, one.id).state != "running":
            runs.finish(workspace, one.id, "running")
        try:
            yield
        except (Interrupted, KeyboardInterrupt) as stop:
            runs.finish(workspace, one.id, "interrupted", error=str(stop) or "interrupted")
            raise
        except Exception as error:
            runs.finish(workspace, one.id, "failed", error=str(error))
            raise


def _rows(workspace: Workspace, name: str) -> list[RunRow]:
    return [row for row in runs.list_runs(workspace) if row.kind == KIND and row.name == name]


def _round(workspace: Workspace, row: RunRow, settings: LoopSettings) -> Round:
    folder = workspace.root / row.folder
    try:
        kept = json.loads((folder / FILE).read_bytes())
        return Round(row.id, folder, settings, kept["results"], kept["doing"])
    except FileNotFoundError:
        if row.state == "done":
            raise Damaged(f"{folder / FILE} of a finished round is missing", fix="restore it from a backup") from None
        return Round(row.id, folder, settings)  # killed between the run's row and its first line
    except (ValueError, KeyError, TypeError):
        raise Damaged(f"{folder / FILE} can't be read", fix="restore it from a backup, or begin with --anew") from None
