"""A rollout as its log has it: a row that never changes, and entries of which the last says how it stands.

An entry is a compare-and-set on the one before, as an alias's. A rollout is in force only while its alias's last entry is the
one that it began at: whatever else moves the alias ends it, and nothing need be written for that, so a rollback stays one
append. What ended it is read from the alias's log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection, Row, Subquery, func, select
from sqlalchemy.exc import IntegrityError

from rlhf.errors import BadUsage, Conflict, NotFound
from rlhf.ids import canonical_json, now_text
from rlhf.registry.alias_names import name_of
from rlhf.serving.assignment import Allocation, Plan
from rlhf.serving.settings import RolloutSettings
from rlhf.store import Write
from rlhf.store.tables import alias_moves, rollout_events, rollouts

Status = Literal["pending", "running", "paused", "completed", "rolled_back", "superseded"]
LIVE: tuple[Status, ...] = ("pending", "running", "paused")
_MIN_ID = 5


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout and how it stands. arms: name -> version digest, the control's too. seq counts its entries.

    stage: of a canary's ramp, from 0. stage_at: since when. fired: signals that paused it. signals: those that
    somebody resumed past. why, who and at are of
    the last entry; an end that the alias brought (status completed, rolled_back, superseded) has the alias's entry's.
    """

    id: str
    alias: str
    settings: RolloutSettings
    arms: Mapping[str, str]
    alias_seq: int
    started_by: str
    started_at: str
    seq: int
    status: Status
    allocation: Allocation
    stage: int
    stage_at: str
    fired: tuple[str, ...]
    signals: tuple[str, ...]
    who: str
    why: str
    at: str

    @property
    def is_live(self) -> bool:
        return self.status in LIVE

    @property
    def serves(self) -> bool:
        """Its arms get requests. Paused, its shares stand."""
        return self.status in ("running", "paused")

    @property
    def plan(self) -> Plan:
        s = self.settings
        return Plan(s.salt or self.id, self.allocation, s.rule, s.toggles)


@dataclass(frozen=True, slots=True)
class RolloutEvent:
    """What a write announces: the rollout as it is from here on."""

    kind: str
    rollout: Rollout


def append(
    write: Write,
    rollout: Rollout,
    kind: str,
    status: Status,
    why: str,
    *,
    figures: Mapping[str, Any] | None = None,
    **changed: Any,
) -> Rollout:
    """The next entry, its audit entry and its news. changed: fields of the rollout. Raises Conflict where there is one already."""
    after = replace(
        rollout, seq=rollout.seq + 1, status=status, who=write.actor, why=why.strip(), at=now_text(), **changed
    )
    state = {
        "buckets": after.allocation.as_json(),
        "stage": after.stage,
        "stage_at": after.stage_at,
        "fired": list(after.fired),
        "signals": list(after.signals),
    }
    row = {
        "rollout_id": after.id,
        "seq": after.seq,
        "kind": kind,
        "status": status,
        "state": canonical_json(state).decode(),
    }
    try:
        write.connection.execute(rollout_events.insert().values(**row, who=after.who, why=after.why, at=after.at))
    except IntegrityError:
        raise lost(after.alias) from None
    said = {"rollout": after.id, "seq": after.seq, "status": status, "why": after.why, "stage": after.stage}
    write.audit(
        f"rollout.{kind}",
        after.alias,
        {**said, "weights": after.allocation.weights, **({"figures": figures} if figures else {})},
    )
    write.announce(f"rollout:{after.id}", RolloutEvent(kind, after))
    return after


def lost(alias: str) -> Conflict:
    return Conflict(
        f"the rollout of {alias} was changed meanwhile", fix=f"look at it and say it again: rlhf rollout status {alias}"
    )


def live(connection: Connection) -> dict[str, Rollout]:
    """The rollouts in force, by alias."""
    last = _last_of_each()
    query = (
        select(rollouts, rollout_events)
        .select_from(rollouts)
        .join(rollout_events, rollout_events.c.rollout_id == rollouts.c.id)
        .join(last, (last.c.rollout_id == rollouts.c.id) & (last.c.seq == rollout_events.c.seq))
        .where(rollout_events.c.status.in_(LIVE))
    )
    found = {}
    for row in connection.execute(query):
        rollout = _ended_by_alias(connection, _rollout(row))
        if rollout.is_live:
            found[rollout.alias] = rollout
    return found


@dataclass(frozen=True, slots=True)
class Entry:
    """The last of a rollout's entries."""

    seq: int
    kind: str
    at: str


def last_entries(connection: Connection) -> dict[str, Entry]:
    """Of every rollout there was."""
    last = _last_of_each()
    joined = rollout_events.join(
        last, (last.c.rollout_id == rollout_events.c.rollout_id) & (last.c.seq == rollout_events.c.seq)
    )
    query = select(rollout_events.c.rollout_id, rollout_events.c.seq, rollout_events.c.kind, rollout_events.c.at)
    return {r.rollout_id: Entry(r.seq, r.kind, r.at) for r in connection.execute(query.select_from(joined))}


def find(connection: Connection, which: str) -> Rollout:
    """By `name@alias` (the newest of that alias) or its id, or 5 or more of its first characters. Raises NotFound."""
    if "@" in which:
        name_of(which)
        query = select(rollouts.c.id).where(rollouts.c.alias == which).order_by(rollouts.c.id.desc()).limit(1)
        seen = f"{which} never had a rollout"
    else:
        if len(which) < _MIN_ID:
            raise BadUsage(
                f"{which!r} is too short to name a rollout", fix=f"give {_MIN_ID} characters of its id or more"
            )
        query = select(rollouts.c.id).where(rollouts.c.id.startswith(which.lower(), autoescape=True)).limit(2)
        seen = f"no single rollout begins with {which:.40}"
    ids = connection.execute(query).scalars().all()
    if len(ids) != 1:
        raise NotFound(seen, fix="see what there is: rlhf rollout status")
    return get(connection, ids[0])


def get(connection: Connection, rollout_id: str) -> Rollout:
    """The rollout with this id, as it stands."""
    both = rollouts.join(rollout_events, rollout_events.c.rollout_id == rollouts.c.id)
    query = select(rollouts, rollout_events).select_from(both).where(rollouts.c.id == rollout_id)
    return _ended_by_alias(
        connection, _rollout(connection.execute(query.order_by(rollout_events.c.seq.desc()).limit(1)).one())
    )


def weights_by_entry(connection: Connection, rollout_id: str) -> dict[int, dict[str, int]]:
    """Entry -> basis points by arm, as they were from that entry on."""
    query = select(rollout_events.c.seq, rollout_events.c.state).where(rollout_events.c.rollout_id == rollout_id)
    return {row.seq: Allocation.of(json.loads(row.state)["buckets"]).weights for row in connection.execute(query)}


def entries(connection: Connection, rollout_id: str) -> list[dict[str, Any]]:
    """Its log, first to last, without the buckets. Where its alias's move ended it, that is the last entry: seq None, kind
    `alias set` or `alias rollback`, alias_seq the alias's own entry."""
    query = select(rollout_events).where(rollout_events.c.rollout_id == rollout_id).order_by(rollout_events.c.seq)
    told = [
        {"seq": r.seq, "kind": r.kind, "status": r.status, "who": r.who, "why": r.why, "at": r.at}
        for r in connection.execute(query)
    ]
    now = get(connection, rollout_id)
    move = _ending(connection, now) if told[-1]["status"] in LIVE else None
    if move is not None:
        ended = {"status": now.status, "who": move.who, "why": move.why, "at": move.at, "alias_seq": move.seq}
        told.append({"seq": None, "kind": f"alias {move.action}", **ended})
    return told


def of_same_draw(connection: Connection, rollout: Rollout) -> list[str]:
    """The other rollouts of its alias that had its salt, by id: they drew the same users into the same buckets."""
    others = (rollouts.c.alias == rollout.alias) & (rollouts.c.id != rollout.id)
    specs = connection.execute(select(rollouts.c.id, rollouts.c.spec).where(others))
    return [row.id for row in specs if (json.loads(row.spec)["settings"].get("salt") or row.id) == rollout.plan.salt]


def ended_by(connection: Connection, alias: str, seq: int) -> Rollout | None:
    """The rollout that was in force until this entry of its alias, as it is since; None where there was none."""
    newest = select(rollouts.c.id).where(rollouts.c.alias == alias).order_by(rollouts.c.id.desc()).limit(1)
    rollout_id = connection.execute(newest).scalar()
    if rollout_id is None:
        return None
    last = entries(connection, rollout_id)[-1]
    return get(connection, rollout_id) if last.get("alias_seq") == seq else None


def _last_of_each() -> Subquery:
    newest = select(rollout_events.c.rollout_id, func.max(rollout_events.c.seq).label("seq"))
    return newest.group_by(rollout_events.c.rollout_id).subquery()


def _rollout(row: Row[Any]) -> Rollout:
    """From a join of the row (first) and its last entry."""
    column = row._mapping  # both tables have who and why
    spec, state = json.loads(row.spec), json.loads(row.state)
    return Rollout(
        id=row.id,
        alias=row.alias,
        settings=RolloutSettings(**spec["settings"]),
        arms=spec["arms"],
        alias_seq=row.alias_seq,
        started_by=column[rollouts.c.who],
        started_at=row.created_at,
        seq=row.seq,
        status=row.status,
        allocation=Allocation.of(state["buckets"]),
        stage=state["stage"],
        stage_at=state["stage_at"],
        fired=tuple(state["fired"]),
        signals=tuple(state["signals"]),
        who=column[rollout_events.c.who],
        why=column[rollout_events.c.why],
        at=row.at,
    )


def _ended_by_alias(connection: Connection, rollout: Rollout) -> Rollout:
    """The rollout as the alias's own log leaves it: whatever moved the alias after the start ended it."""
    if not rollout.is_live:
        return rollout
    move = _ending(connection, rollout)
    if move is None:
        return rollout
    status: Status = "rolled_back" if move.action == "rollback" else "superseded"
    if json.loads(move.evidence).get("rollout") == rollout.id:
        status = "completed"
    return replace(rollout, status=status, who=move.who, why=move.why, at=move.at)


def _ending(connection: Connection, rollout: Rollout) -> Row[Any] | None:
    """The alias's first entry after the one that the rollout began at."""
    later = select(alias_moves).where(alias_moves.c.alias == rollout.alias, alias_moves.c.seq > rollout.alias_seq)
    return connection.execute(later.order_by(alias_moves.c.seq).limit(1)).first()
