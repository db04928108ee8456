"""The log of decisions: one row each, appended in the transaction of what was decided, so that both are there or neither.

Locks are taken in one order everywhere: the alias, the decisions, the audit log. So a decision is recorded before its deed's own
audit entry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, func, select

from rlhf.errors import Damaged, NotFound
from rlhf.ids import canonical_json, digest_of, now_text
from rlhf.registry.locks import hold
from rlhf.store import Write
from rlhf.store.tables import decisions

Kind = Literal["promotion", "rollback", "gate", "retirement", "review"]
KINDS: tuple[Kind, ...] = ("promotion", "rollback", "gate", "retirement", "review")


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision. alias_seq: the entry of the alias's log that it made. takes_back: the decision that a rollback undid.
    content: everything else of it, by kind: see `decision_content.py`."""

    number: int
    kind: Kind
    alias: str | None
    alias_seq: int | None
    from_digest: str | None
    to_digest: str | None
    takes_back: int | None
    review_days: int | None
    content: Mapping[str, Any]
    digest: str
    who: str
    why: str
    at: str


def record(
    write: Write,
    kind: Kind,
    *,
    why: str,
    alias: str | None = None,
    alias_seq: int | None = None,
    from_digest: str | None = None,
    to_digest: str | None = None,
    takes_back: int | None = None,
    review_days: int | None = None,
    content: Mapping[str, Any],
) -> int:
    """Append it, with an audit entry that holds its digest; returns its number."""
    hold(write, "decisions")
    row: dict[str, Any] = {
        "number": last_number(write.connection) + 1,
        "kind": kind,
        "alias": alias,
        "alias_seq": alias_seq,
        "from_digest": from_digest,
        "to_digest": to_digest,
        "takes_back": takes_back,
        "review_days": review_days,
        "content": canonical_json(dict(content)).decode(),
        "who": write.actor,
        "why": why.strip(),
        "at": now_text(),
    }
    row["digest"] = digest_of(row)
    write.connection.execute(decisions.insert().values(**row))
    number = int(row["number"])
    write.audit("decision.record", str(number), {"digest": row["digest"], "kind": kind, "alias": alias})
    return number


def last_number(connection: Connection) -> int:
    """0 where nothing was decided yet."""
    return int(connection.scalar(select(func.max(decisions.c.number))) or 0)


def get(connection: Connection, number: int) -> Decision:
    """Raises NotFound; Damaged where the row isn't what was recorded."""
    row = connection.execute(select(decisions).where(decisions.c.number == number)).first()
    if row is None:
        last = last_number(connection)
        raise NotFound(
            f"there is no decision {number}",
            fix=f"the last is {last}; see: rlhf decisions list" if last else "nothing was decided yet",
        )
    if digest_of({key: value for key, value in row._mapping.items() if key != "digest"}) != row.digest:
        raise Damaged(f"decision {number} isn't what was recorded", fix="restore the database from a backup")
    return decision(row)


def of_move(connection: Connection, alias: str, seq: int) -> int | None:
    """The number of the decision that made this entry of the alias's log; None for a move from before decisions were kept."""
    query = select(decisions.c.number).where(decisions.c.alias == alias, decisions.c.alias_seq == seq)
    return connection.execute(query).scalar()


def decision(row: Row[Any]) -> Decision:
    return Decision(**{**row._mapping, "content": json.loads(row.content)})
