"""Keys: the pair that a source's own `pair_id` names, for votes that come in a file of their own.

Kept in a private SQLite file that the system deletes, so that two million pairs don't have to fit in memory.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple


class Known(NamedTuple):
    """pair_id: ours; '' where that row was rejected, and then `problem` says where and why."""

    pair_id: str
    first_is_a: bool
    line: int
    problem: str


class KeyIndex:
    """What each key of this import stands for."""

    def __init__(self) -> None:
        self._rows = sqlite3.connect("")  # '' = a temporary file
        self._rows.execute(
            "CREATE TABLE keys "
            "(key TEXT PRIMARY KEY, pair_id TEXT, first_is_a INT, line INT, problem TEXT) WITHOUT ROWID"
        )

    def get(self, key: str) -> Known | None:
        row = self._rows.execute("SELECT pair_id, first_is_a, line, problem FROM keys WHERE key = ?", (key,)).fetchone()
        return Known(row[0], bool(row[1]), row[2], row[3]) if row else None

    def put(self, key: str, known: Known) -> None:
        """The first row of a key stays."""
        self._rows.execute("INSERT OR IGNORE INTO keys VALUES (?, ?, ?, ?, ?)", (key, *known))

    def close(self) -> None:
        self._rows.close()
