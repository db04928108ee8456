"""Lock files that say who holds them. The kernel lets go when the holder ends, killed or not.

The lock is `flock`'s; the JSON in the file is for people and for `rlhf run cancel`. The holder removes the file at its end,
so a taker looks whether what it locked is still the file of that name. Whoever only asks (`holder_of`) may hold the lock
for a moment, so a taker tries more than once.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rlhf.ids import now_text
from rlhf.store.processes import ProcessId, this_process

_TRIES, _PAUSE_S = 5, 0.02


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock file. process None = somebody who has not said who. run: the run that it is held for."""

    process: ProcessId | None
    what: str
    since: str
    run: str | None = None


class Held(Exception):
    """The file is held by somebody else; caught by whoever knows what the lock means and can say so."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(holder.what)
        self.holder = holder


class Hold:
    """A lock file that this process holds."""

    def __init__(self, file: IO[str], what: str) -> None:
        self._file, self._what, self._since = file, what, now_text()

    def say(self, run: str | None = None) -> None:
        """Write who holds it, and for which run."""
        me = this_process()
        said = {"host": me.host, "pid": me.pid, "started": me.started, "what": self._what, "since": self._since}
        self._file.seek(0)
        self._file.truncate()
        json.dump({**said, "run": run}, self._file)
        self._file.flush()


@contextmanager
def holding(path: Path, what: str, *, run: str | None = None) -> Iterator[Hold]:
    """Hold the lock file while the block runs; raises Held at once where somebody else does."""
    for n in range(_TRIES):
        if n:
            time.sleep(_PAUSE_S)
        with open(path, "a+", encoding="utf-8") as file:  # never "w": that would empty it under its holder
            if not _taken(file, fcntl.LOCK_EX) or not _is_still(path, file):
                continue
            hold = Hold(file, what)
            hold.say(run)
            try:
                yield hold
            finally:
                path.unlink(missing_ok=True)  # before the lock goes: this process may live on, and holds it no more
            return
    raise Held(_said(path) or Holder(None, "another process", ""))


def holder_of(path: Path) -> Holder | None:
    """Who holds the lock file now; None where nobody does or there is no such file."""
    said = _said(path)
    if said is not None and said.process is not None and said.process.is_here and said.process.is_alive:
        return said
    try:
        with open(path, encoding="utf-8") as file:
            if _taken(file, fcntl.LOCK_SH):
                return None
    except FileNotFoundError:
        return None
    return _said(path) or Holder(None, "another process", "")


def _taken(file: IO[str], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(path: Path, file: IO[str]) -> bool:
    """The file that is locked may have been removed by its holder before: another one would be locked by the next."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _said(path: Path) -> Holder | None:
    """What the file says, held or not; None where it says nothing (readable)."""
    try:
        found = json.loads(path.read_text("utf-8"))
        process = ProcessId(found["host"], found["pid"], found["started"])
        return Holder(process, found["what"], found["since"], found["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
