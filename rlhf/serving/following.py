"""The follower: sees what other processes moved, and writes down how long changes took to be in force here.

SQLite: `PRAGMA data_version` every 50 ms costs a read of shared memory; where it changed, the audit log's length says whether a
deed was done or only rows were recorded. PostgreSQL: LISTEN, on a connection of its own, and the same length four times a second
for what a lost connection missed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from rlhf.errors import RlhfError
from rlhf.store import Workspace
from rlhf.store.database import CHANNEL
from rlhf.store.tables import effects

_EVERY_S = 0.05
_UNTOLD_S = 0.25  # PostgreSQL: how often the log is looked at where nothing was notified
_AGAIN_S = 0.2  # after a lost connection
_LENGTH = "SELECT max(seq) FROM audit"


@dataclass(frozen=True, slots=True)
class Effect:
    """How long a change took to be in force here. how: told (this process; from the commit's return), notified or polled (from the
    entry's own time, before its commit: clocks of two machines differ)."""

    subject: str  # an alias, or a rollout's id
    seq: int
    action: str
    seconds: float
    how: str
    at: str


class Follower:
    """A thread. refresh: the router's, told by what it came. unwritten: effects that the router noted, written by and by."""

    def __init__(
        self, workspace: Workspace, refresh: Callable[[str], None], unwritten: deque[Effect], router: str
    ) -> None:
        self._workspace, self._refresh, self._unwritten, self._router = workspace, refresh, unwritten, router
        self._end = threading.Event()
        self.trouble: str | None = None  # why the store can't be followed just now
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; effects that wait are written."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        database = self._workspace.database
        follow = self._poll if database.is_sqlite else self._listen
        refusals = (SQLAlchemyError, RlhfError, OSError, database.engine.dialect.loaded_dbapi.Error)
        while not self._end.is_set():
            try:
                connection = database.engine.raw_connection()
                try:
                    follow(connection.driver_connection)
                finally:
                    connection.invalidate()  # it isn't as the pool's others are
                    connection.close()
            except refusals as error:
                self.trouble = str(error).partition("\n")[0] or type(error).__name__
                self._end.wait(_AGAIN_S)
        with suppress(*refusals):
            self._settle()

    def _poll(self, sqlite: Any) -> None:
        """Until the end, or an error."""
        seen = length = None
        while True:
            version = sqlite.execute("PRAGMA data_version").fetchone()[0]
            if version != seen:
                seen, found = version, sqlite.execute(_LENGTH).fetchone()[0]
                if found != length:
                    length = found
                    self._refresh("polled")
            self._settle()
            if self._end.wait(_EVERY_S):
                return

    def _listen(self, postgres: Any) -> None:
        """The same by LISTEN. What was moved before it listened, or is lost, the log's length tells."""
        postgres.autocommit = True
        postgres.execute(f"LISTEN {CHANNEL}")
        length, told = None, "polled"
        while not self._end.is_set():
            found = postgres.execute(_LENGTH).fetchone()[0]
            if found != length:
                length = found
                self._refresh(told)
            self._settle()
            told = "notified" if list(postgres.notifies(timeout=_UNTOLD_S, stop_after=1)) else "polled"

    def _settle(self) -> None:
        """Write the effects that wait; the store can be followed."""
        self.trouble = None
        waiting = [self._unwritten.popleft() for _ in range(len(self._unwritten))]
        if not waiting:
            return
        try:
            with self._workspace.write() as write:
                write.insert_new(effects, [{**asdict(one), "router": self._router} for one in waiting])
        except BaseException:
            self._unwritten.extendleft(reversed(waiting))
            raise
