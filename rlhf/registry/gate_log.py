"""The log of gates: one entry each time that an alias's gate is set or taken off, beside the alias's own log.

Each entry is a decision too, in the same transaction: whoever reads what was promoted sees what the gate asked by then, and that
somebody asked less of it before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from rlhf.ids import canonical_json, digest_of, now_text
from rlhf.registry import decision_log
from rlhf.registry.gate_rules import GateRules
from rlhf.store import Write
from rlhf.store.tables import alias_gates


@dataclass(frozen=True, slots=True)
class Gate:
    """The gate in force on an alias. digest: of its rules; seq counts the alias's gates."""

    alias: str
    seq: int
    digest: str
    rules: GateRules
    who: str
    why: str
    at: str

    def as_json(self) -> dict[str, Any]:
        return {
            "alias": self.alias,
            "seq": self.seq,
            "digest": self.digest,
            "rules": self.rules.model_dump(mode="json"),
            "who": self.who,
            "why": self.why,
            "at": self.at,
        }


def in_force(connection: Connection, alias: str) -> Gate | None:
    """The gate in force on the alias; None where it has none."""
    row = _last(connection, alias)
    return None if row is None or row.rules is None else _gate(row)


def append(write: Write, alias: str, rules: GateRules | None, why: str) -> Gate | None:
    """The next entry, its decision and its audit entry. rules: None = from here on no gate. The caller holds the alias."""
    last = _last(write.connection, alias)
    before = None if last is None or last.rules is None else _gate(last)
    content: Mapping[str, Any] | None = None if rules is None else rules.model_dump(mode="json")
    row = {
        "alias": alias,
        "seq": (last.seq if last is not None else 0) + 1,
        "digest": None if content is None else digest_of(content),
        "rules": None if content is None else canonical_json(content).decode(),
        "who": write.actor,
        "why": why.strip(),
        "at": now_text(),
    }
    write.connection.execute(alias_gates.insert().values(**row))
    after = in_force(write.connection, alias)
    decision_log.record(
        write, "gate", alias=alias, why=why, content={"gate": _changed(before, after), "seq": row["seq"]}
    )
    action = "alias.ungate" if content is None else "alias.gate"
    write.audit(action, alias, {key: row[key] for key in ("seq", "digest", "why")})
    return after


def _changed(before: Gate | None, after: Gate | None) -> dict[str, Any]:
    """Both gates, and what is asked no more and what is new, in words."""
    old, new = ((gate.rules.words if gate else ()) for gate in (before, after))
    return {
        "before": _named(before),
        "after": _named(after),
        "no_more": [words for words in old if words not in new],
        "new": [words for words in new if words not in old],
    }


def _named(gate: Gate | None) -> dict[str, Any] | None:
    return None if gate is None else {"class": gate.rules.risk_class, "digest": gate.digest, "seq": gate.seq}


def _last(connection: Connection, alias: str) -> Row[Any] | None:
    query = select(alias_gates).where(alias_gates.c.alias == alias).order_by(alias_gates.c.seq.desc()).limit(1)
    return connection.execute(query).first()


def _gate(row: Row[Any]) -> Gate:
    rules = GateRules(**json.loads(row.rules))
    return Gate(row.alias, row.seq, row.digest, rules, row.who, row.why, row.at)
