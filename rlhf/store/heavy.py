"""One heavy job at a time in a workspace: whoever trains holds `runs/heavy.lock`.

Two trainings side by side on one machine are both slower than one after the other, or run out of memory. The lock is the
kernel's and goes with its process, so kill -9 leaves nothing behind. RLHF_HEAVY_JOBS says how many may run at once;
RLHF_HEAVY_WAIT=1 waits in line where the default is to refuse (a worker sets it for its jobs).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path

from rlhf.errors import BadUsage, Conflict
from rlhf.store.holding import Held, Hold, Holder, holding
from rlhf.store.workspace import Workspace

_POLL_S = 0.5
# What this thread holds already: a loop that trains is one heavy job, not two that wait for each other.
_mine: ContextVar[dict[Path, Hold]] = ContextVar("heavy")


@contextmanager
def heavy(
    workspace: Workspace, what: str, *, wait: bool | None = None, say: Callable[[str], None] | None = None
) -> Iterator[Hold]:
    """Be the workspace's one heavy job while the block runs; `hold.say(run_id)` names its run once there is one.

    what: for whoever is refused, such as `reward hh`. wait: in line instead of the refusal; None = as RLHF_HEAVY_WAIT
    says. Of several processes that train together only the first takes it. Raises Conflict naming who holds it,
    BadUsage for a RLHF_HEAVY_JOBS that is no number.
    """
    folder = workspace.root / "runs"
    mine = _mine.get({})
    if folder in mine:
        yield mine[folder]
        return
    waits = os.environ.get("RLHF_HEAVY_WAIT") == "1" if wait is None else wait
    with ExitStack() as stack:
        hold = _first_free(folder, what, stack, waits, say)
        token = _mine.set({**mine, folder: hold})
        try:
            yield hold
        finally:
            _mine.reset(token)


def _first_free(folder: Path, what: str, stack: ExitStack, waits: bool, say: Callable[[str], None] | None) -> Hold:
    folder.mkdir(exist_ok=True)
    is_told = False
    while True:
        holders = []
        for path in _slots(folder):
            try:
                return stack.enter_context(holding(path, what))
            except Held as held:
                holders.append(held.holder)
        if not waits:
            raise _refusal(holders)
        if say is not None and not is_told:
            say(f"waiting for {', '.join(_in_words(h) for h in holders)}")
            is_told = True
        time.sleep(_POLL_S)


def _slots(folder: Path) -> list[Path]:
    said = os.environ.get("RLHF_HEAVY_JOBS", "1")
    if not said.isascii() or not said.isdigit() or not int(said):
        raise BadUsage(f"RLHF_HEAVY_JOBS is '{said}', wanted a number from 1", fix="set it to 1, or unset it")
    return [folder / ("heavy.lock" if n == 1 else f"heavy-{n}.lock") for n in range(1, int(said) + 1)]


def _refusal(holders: list[Holder]) -> Conflict:
    run = next((holder.run for holder in holders if holder.run), None)
    return Conflict(
        f"this workspace is busy with {', '.join(_in_words(holder) for holder in holders)}",
        fix=f"wait, cancel it with: rlhf run cancel {run or 'R'}, or set RLHF_HEAVY_JOBS={len(holders) + 1}",
    )


def _in_words(holder: Holder) -> str:
    who = [] if holder.run is None else [f"run {holder.run}"]
    who += [] if holder.process is None else [f"process {holder.process.pid}"]
    who += [f"since {holder.since[:19]}"] if holder.since else []
    return f"{holder.what} ({', '.join(who)})" if who else holder.what
