"""The append-only audit log: each entry holds the hash of the one before, so a changed or missing entry shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select, text

from rlhf.errors import Damaged
from rlhf.ids import canonical_json, digest_of, now_text
from rlhf.store.tables import audit

_GENESIS = "0" * 64
_PG_LOCK = 7_310_001  # one number for "the end of the audit log", taken for the rest of the transaction


def append(
    connection: Connection, actor: str, action: str, subject: str, details: Mapping[str, Any] | None = None
) -> None:
    """Add one entry inside the caller's transaction, so that the deed and its entry are there together or not at all."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _PG_LOCK})
    last = connection.execute(select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)).first()
    entry = {
        "seq": (last.seq if last else 0) + 1,
        "at": now_text(),
        "actor": actor,
        "action": action,
        "subject": subject,
        "details": canonical_json(details or {}).decode(),
        "previous": last.hash if last else _GENESIS,
    }
    connection.execute(audit.insert().values(**entry, hash=digest_of(entry)))


def entries(connection: Connection, *, subject: str | None = None, action: str | None = None) -> list[dict[str, Any]]:
    """Entries in order, `details` decoded."""
    query = select(audit).order_by(audit.c.seq)
    if subject is not None:
        query = query.where(audit.c.subject == subject)
    if action is not None:
        query = query.where(audit.c.action == action)
    return [{**row._mapping, "details": json.loads(row.details)} for row in connection.execute(query)]


def length(connection: Connection) -> int:
    """How many entries there are: the same number again means that nothing was written meanwhile."""
    last = connection.execute(select(audit.c.seq).order_by(audit.c.seq.desc()).limit(1)).scalar()
    return int(last or 0)


def verify(connection: Connection) -> int:
    """Walk the chain; returns its length. Raises Damaged naming the first entry that doesn't fit."""
    previous, expected = _GENESIS, 1
    for row in connection.execute(select(audit).order_by(audit.c.seq)):
        entry = {k: v for k, v in row._mapping.items() if k != "hash"}
        if row.seq != expected or row.previous != previous or row.hash != digest_of(entry):
            raise Damaged(f"audit entry {row.seq} doesn't continue the chain", fix="restore the database from a backup")
        previous, expected = row.hash, expected + 1
    return expected - 1
