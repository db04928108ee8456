"""One writer at a time for one thing: what SQLite's single writer gives for free, PostgreSQL is asked for.

The lock ends with the transaction. Without it two publishers could both read "next is 7"; the unique keys would still
refuse the second, but with a database error in place of the number 8.
"""

from __future__ import annotations

from sqlalchemy import text

from rlhf.store import Write


def hold(write: Write, what: str) -> None:
    """Wait for and hold the lock named `what` (for instance `versions:hh`) until the transaction ends."""
    if write.connection.dialect.name == "postgresql":
        write.connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:what, 0))"), {"what": what})
