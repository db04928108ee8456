"""Erasing, from the first mark to the last file. Each step can be done again: a run that was killed goes on with the same command.

1. what is touched is found, and a training that is under way on it refuses the erasure;
2. the tables bury it: nothing new uses it, nothing brings it back;
3. snapshots' and suites' shards, kept states, checkpoints, pages, logs and exports in the workspace lose the words;
4. the tables lose them, their free pages too, and the audit log gets one entry under the tombstone's key.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from rlhf import people
from rlhf.erasure.files import scrub
from rlhf.erasure.touched import Touched, touched
from rlhf.erasure.words import Words
from rlhf.errors import Conflict, NotFound, RlhfError
from rlhf.feedback import erasing
from rlhf.feedback.erasing import Target, What
from rlhf.records import PAGE_SOURCE
from rlhf.snapshots.erasing import erase_in
from rlhf.store import Workspace, runs
from rlhf.store.cache import STATES, Cache
from rlhf.store.runs import RunRow
from rlhf.store.tables import audit
from rlhf.suites import erasing as in_suites

Say = Callable[[str], None]
_EXPORTS = ("feedback.export", "snapshot.export", "workspace.backup")


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was done. rows: in how many rows of which snapshot; files: that held the words; copies: exports and backups that had
    left the workspace and may hold them; is_out_of_free_pages: False where a reader kept the database's log."""

    what: What
    tombstone: str
    counts: dict[str, int]
    rows: dict[str, int]
    files: tuple[str, ...]
    touched: Touched
    copies: tuple[str, ...]
    is_out_of_free_pages: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "tombstone": self.tombstone,
            **self.counts,
            "rows": self.rows,
            "files": list(self.files),
            **self.touched.as_json(),
            "copies": list(self.copies),
            "free_pages_erased": self.is_out_of_free_pages,
        }


def erase(
    workspace: Workspace,
    what: What,
    value: str,
    *,
    source: str | None = None,
    why: str = "",
    say: Say | None = None,
) -> Erasure:
    """Erase a labeler (of `source`), a subject or a pair from the workspace, for good.

    Raises NotFound for what isn't known, BadInput for what isn't unique, Conflict while a training runs on it. What was erased
    already is erased again without harm.
    """
    workspace.artifacts.settle_rewrites(workspace.database)
    try:
        with workspace.read() as connection:
            target = erasing.find(connection, workspace.key, what, value, source)
    except NotFound:
        found = in_suites.find(workspace, what, value, source)
        if found is None:
            raise
        target = found
    return erase_target(workspace, target, why=why, say=say)


def erase_target(workspace: Workspace, target: Target, *, why: str = "", say: Say | None = None) -> Erasure:
    """`erase` of what was found already; `Artifacts.settle_rewrites` comes first."""
    tell = say or (lambda _: None)
    labeler = (target.source, target.value) if target.what == "labeler" else None
    target = in_suites.extended(workspace, target)
    measured_on = in_suites.touched(workspace, target, labeler)
    known, entries, learning = touched(workspace, target.pair_ids, labeler)
    _require_idle(workspace, learning)
    with workspace.write() as write:
        erasing.bury(write, target)
    _shut_out(workspace, target)
    rows = {}
    for entry in entries:
        tell(f"{entry.ref}: the rows that hold them lose their words")
        if n := erase_in(workspace, entry, target.pair_ids, labeler):
            rows[entry.ref] = n
    n_states = Cache(workspace.root / STATES, 0).forget(target.pair_ids)
    n_checkpoints = sum(_drop_checkpoints(workspace, run) for run in learning)
    words = Words(target.texts, names=(target.value,) if target.what in ("labeler", "subject") else ())
    files = scrub(workspace, words) if words else []
    for suite in measured_on:  # after the files: of who stands in a suite alone, it alone knows the words
        tell(f"suite {suite.ref}: the rows that hold them lose their words")
        if n := in_suites.erase(workspace, suite, target, labeler):
            rows[f"suite {suite.ref}"] = n
    with workspace.write() as write:
        counts = {**erasing.null(write, target), "kept_states": n_states, "checkpoints": n_checkpoints}
        copies = _copies(write.connection)
        key = erasing.tombstone_of(workspace.key, target)
        said = {
            "what": target.what,
            "why": why,
            **counts,
            "snapshots": list(known.snapshots),
            "suites": [suite.ref for suite in measured_on],
            "versions": list(known.versions),
        }
        write.audit("feedback.erase", key[:12] or target.what, said)
    gone = workspace.database.forget_erased()
    return Erasure(target.what, key, counts, rows, tuple(files), known, copies, gone)


def _require_idle(workspace: Workspace, learning: list[RunRow]) -> None:
    busy = [run for run in learning if runs.state_now(workspace, run) == "running"]
    if busy:
        raise Conflict(
            f"{busy[0].kind} run {busy[0].id} is training on what is to be erased",
            fix=f"cancel it first: rlhf run cancel {busy[0].id}",
        )


def _shut_out(workspace: Workspace, target: Target) -> None:
    """An erased labeler of the page comes in no more."""
    if target.what != "labeler" or target.source != PAGE_SOURCE:
        return
    for shut in (people.revoke, people.disable):
        try:
            shut(workspace, target.value)
        except RlhfError:
            continue  # nothing of theirs is live, or they never had an account


def _drop_checkpoints(workspace: Workspace, run: RunRow) -> bool:
    """A training that had not ended can't go on with what is gone; of one that has, the version is what counts."""
    folder = workspace.root / run.folder / "checkpoints"
    held = folder.is_dir() and any(folder.iterdir())
    shutil.rmtree(folder, ignore_errors=True)
    return held


def _copies(connection: Connection) -> tuple[str, ...]:
    """Exports and backups that the audit log knows of, by file name and day: nobody here can reach them."""
    rows = connection.execute(select(audit).where(audit.c.action.in_(_EXPORTS)).order_by(audit.c.seq))
    return tuple(f"{json.loads(row.details).get('file') or row.subject} ({row.at[:10]})" for row in rows)
