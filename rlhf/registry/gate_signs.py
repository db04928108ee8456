"""Which sign-offs count for a gate: one for each role, by different people, none of whom trained the version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from rlhf.ids import digest_of
from rlhf.records import VersionRef
from rlhf.registry.gate_rules import GateRules
from rlhf.store.tables import signoffs, versions

_HEX_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Signed:
    """One wanted role. who, at and digest are None where nobody counts for it, and reason says why."""

    role: str
    who: str | None = None
    at: str | None = None
    digest: str | None = None
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"role": self.role, "who": self.who, "at": self.at, "digest": self.digest}


def signed(connection: Connection, rules: GateRules, ref: VersionRef, report: str, mover: str) -> tuple[Signed, ...]:
    """Each role that the rules want, in their order. report: digest of the one that decides: a sign-off names both."""
    query = select(signoffs).where(signoffs.c.version_digest == ref.digest, signoffs.c.report_digest == report)
    rows = connection.execute(query.order_by(signoffs.c.id)).all()
    trainer = trainer_of(connection, ref)
    fitting = {
        role: [r for r in rows if r.role == role and r.who != trainer and not (rules.four_eyes and r.who == mover)]
        for role in rules.signoffs
    }
    chosen = _by_different_people(rules.signoffs, fitting)
    on = f"{ref} with report {report[:_HEX_SHOWN]}"
    found = []
    for role in rules.signoffs:
        if (row := chosen.get(role)) is not None:
            found.append(Signed(role, row.who, row.at, digest_of_signoff(row)))
        elif fitting[role]:
            who = ", ".join(dict.fromkeys(row.who for row in fitting[role]))
            found.append(
                Signed(role, reason=f"{who} signed {on} as {role} and in another role; wanted different people")
            )
        else:
            other = f" other than {mover}, who moves it," if rules.four_eyes else ""
            found.append(Signed(role, reason=f"no {role}{other} has signed {on}"))
    return tuple(found)


def trainer_of(connection: Connection, ref: VersionRef) -> str | None:
    """Who trained the version; None for one that came in by an import."""
    query = select(versions.c.actor, versions.c.run_id).where(versions.c.digest == ref.digest)
    row = connection.execute(query).one()
    return None if row.run_id is None else str(row.actor)


def digest_of_signoff(row: Row[Any]) -> str:
    """Over what was signed, by whom, as what and when."""
    return digest_of(
        {"version": row.version_digest, "report": row.report_digest, "role": row.role, "who": row.who, "at": row.at}
    )


def _by_different_people(roles: Sequence[str], fitting: Mapping[str, Sequence[Row[Any]]]) -> dict[str, Row[Any]]:
    """A sign-off for as many roles as can have one while nobody stands for two (augmenting paths: who could stand for either of two
    roles makes room for who can stand for one)."""
    role_of: dict[str, str] = {}
    chosen: dict[str, Row[Any]] = {}

    def place(role: str, tried: set[str]) -> bool:
        for row in fitting[role]:
            if row.who in tried:
                continue
            tried.add(row.who)
            if row.who not in role_of or place(role_of[row.who], tried):
                role_of[row.who], chosen[role] = role, row
                return True
        return False

    for role in roles:
        place(role, set())
    return chosen
