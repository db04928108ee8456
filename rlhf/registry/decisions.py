"""Decisions: what was promoted, taken back, retired or asked of an alias, why, by whom and on what; and the regular review of it.

A decision is due for another look `review_days` (of its gate's class) after it was made, or after the last review that was held
while it was in force; later it is overdue. Who holds a review looks at everything in force.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select

from rlhf.errors import BadInput, BadUsage, Conflict
from rlhf.ids import now, now_text
from rlhf.records import AliasMove
from rlhf.registry import aliases, decision_log
from rlhf.registry.alias_names import require_why
from rlhf.registry.decision_log import Decision, Kind
from rlhf.registry.locks import hold
from rlhf.registry.versions import ref_of
from rlhf.store import Workspace
from rlhf.store.tables import alias_moves, decisions, versions

_MOVES = ("promotion", "rollback")
MAX_NOTES = 4000


@dataclass(frozen=True, slots=True)
class Standing:
    """A decision and how it stands today. from_version, to_version: by name. in_force: the alias is where it put it. taken_back_by:
    the rollback that undid it. review_at: when the next look is due, None = never."""

    decision: Decision
    from_version: str | None
    to_version: str | None
    in_force: bool
    taken_back_by: int | None
    review_at: str | None

    @property
    def is_overdue(self) -> bool:
        return self.review_at is not None and self.review_at < now_text()

    @property
    def title(self) -> str:
        """What was decided, in a line."""
        one = self.decision
        if one.kind == "promotion":
            return f"{one.alias} moves from {self.from_version or 'nothing'} to {self.to_version}"
        if one.kind == "rollback":
            return f"{one.alias} goes back from {self.from_version} to {self.to_version}"
        if one.kind == "retirement":
            return f"{self.from_version} is retired"
        if one.kind == "review":
            return f"review held, up to decision {one.content['up_to']}"
        before, after = one.content["gate"]["before"], one.content["gate"]["after"]
        if after is None:
            return f"{one.alias} has no gate any more"
        named = f" of class {after['class']}" if after["class"] else ""
        return f"{one.alias} has {'another' if before else 'a'} gate{named}"

    def as_json(self, *, whole: bool = False) -> dict[str, Any]:
        """whole: with figures, reports, sign-offs and data."""
        one = self.decision
        gate = one.content.get("gate")
        told = {
            "decision": one.number,
            "kind": one.kind,
            "title": self.title,
            "alias": one.alias,
            "from": self.from_version,
            "to": self.to_version,
            "from_digest": one.from_digest,
            "to_digest": one.to_digest,
            "alias_seq": one.alias_seq,
            "who": one.who,
            "why": one.why,
            "at": one.at,
            "in_force": self.in_force,
            "takes_back": one.takes_back,
            "taken_back_by": self.taken_back_by,
            "class": gate.get("class") if gate and one.kind == "promotion" else None,
            "review_at": self.review_at,
            "overdue": self.is_overdue,
            "digest": one.digest,
        }
        return {**told, "content": dict(one.content)} if whole else told


def list_decisions(
    workspace: Workspace,
    *,
    since: str | None = None,
    alias: str | None = None,
    kind: Kind | None = None,
    overdue: bool = False,
) -> tuple[Standing, ...]:
    """First to last. since: a day or a time in ISO 8601 (without a zone: UTC), or `review`: after the last review that was held.
    overdue: only what is due for another look. Raises BadUsage for a time that is none."""
    query = select(decisions).order_by(decisions.c.number)
    if alias is not None:
        query = query.where(decisions.c.alias == alias)
    if kind is not None:
        query = query.where(decisions.c.kind == kind)
    with workspace.read() as connection:
        if since is not None:
            query = query.where(_after(connection, since))
        found = [decision_log.decision(row) for row in connection.execute(query)]
        standing = _standing(connection, found)
    return tuple(one for one in standing if one.is_overdue or not overdue)


def show(workspace: Workspace, number: int) -> Standing:
    """One decision, held against its digest. Raises NotFound, Damaged."""
    with workspace.read() as connection:
        return _standing(connection, [decision_log.get(connection, number)])[0]


def revoke(workspace: Workspace, number: int, *, why: str) -> AliasMove:
    """Take a promotion back: its alias's rollback, whose own decision names this one. No gate is asked.

    Raises NotFound; BadInput for a decision that is no promotion, with what undoes it; Conflict where it was taken back already,
    the alias has moved on since, or there is nothing before it.
    """
    require_why(why, "the decision is taken back")
    one = show(workspace, number)
    made = one.decision
    if made.kind != "promotion" or made.alias is None:
        undone_by = {
            "rollback": f"promote the version again, through its gate: rlhf alias set {made.alias} {one.from_version} --why TEXT",
            "gate": f"set the gate that you want: rlhf alias gate {made.alias} --rules FILE --why TEXT",
        }
        fix = undone_by.get(made.kind, "see what can be: rlhf decisions list")
        raise BadInput(f"decision {number} is a {made.kind}, and only a promotion is taken back by a rollback", fix=fix)
    if one.taken_back_by is not None and not one.in_force:
        raise Conflict(f"decision {number} was taken back by decision {one.taken_back_by}", fix="nothing is to be done")
    with workspace.read() as connection:
        last = aliases.last_move(connection, made.alias)
    if last is None or not one.in_force:
        fix = f"take back what came after it first: rlhf decisions list --alias {made.alias}"
        raise Conflict(f"{made.alias} has moved on since decision {number}", fix=fix)
    return aliases.roll_back(workspace, made.alias, why=why, expect=last.seq)


def hold_review(workspace: Workspace, notes: str, *, seen: int | None = None) -> Standing:
    """Record that a review was held: who, when, and notes. seen: the number of the last decision that was looked at; None = as of
    this call.

    Raises BadInput without notes or with more than MAX_NOTES characters, Conflict where something was decided meanwhile.
    """
    if not notes.strip() or len(notes) > MAX_NOTES:
        raise BadInput(
            "nothing is said of the review" if not notes.strip() else f"notes of {len(notes)} characters",
            fix=f"say what was looked at and what follows, in up to {MAX_NOTES} characters",
        )
    with workspace.write() as write:
        hold(write, "decisions")
        last = decision_log.last_number(write.connection)
        if seen is not None and seen != last:
            raise Conflict(
                f"decision {last} was made meanwhile (you have seen up to {seen})",
                fix="look at it, and hold the review then",
            )
        every = [decision_log.decision(row) for row in write.connection.execute(select(decisions))]
        standing = _standing(write.connection, every)
        content = {
            "up_to": last,
            "in_force": [one.decision.number for one in standing if one.in_force],
            "overdue": [one.decision.number for one in standing if one.is_overdue],
        }
        number = decision_log.record(write, "review", why=notes, content=content)
        return _standing(write.connection, [decision_log.get(write.connection, number)])[0]


def last_review(connection: Connection) -> Decision | None:
    """None where none was held yet."""
    query = select(decisions).where(decisions.c.kind == "review").order_by(decisions.c.number.desc()).limit(1)
    row = connection.execute(query).first()
    return None if row is None else decision_log.decision(row)


def _standing(connection: Connection, found: list[Decision]) -> list[Standing]:
    digests = {digest for one in found for digest in (one.from_digest, one.to_digest) if digest}
    names = {
        row.digest: str(ref_of(row))
        for row in connection.execute(select(versions).where(versions.c.digest.in_(digests)))
    }
    back = select(decisions.c.takes_back, decisions.c.number).where(decisions.c.takes_back.is_not(None))
    undone = {row.takes_back: row.number for row in connection.execute(back)}
    lasts = _lasts(connection)
    review = last_review(connection)
    reviewed_at = review.at if review else ""
    standing = []
    for one in found:
        seq, stands_at = lasts.get(one.alias or "", (0, 0))
        in_force = one.kind in _MOVES and one.alias_seq in (seq, stands_at)
        due = _due(one, reviewed_at) if one.alias_seq == seq else None
        named = (names.get(one.from_digest or ""), names.get(one.to_digest or ""))
        standing.append(Standing(one, *named, in_force, undone.get(one.number), due))
    return standing


def _lasts(connection: Connection) -> Mapping[str, tuple[int, int]]:
    """Alias -> its last entry, and the one where it stands: a rollback stands where the entry stands that it returned to."""
    last = (
        select(alias_moves.c.alias, func.max(alias_moves.c.seq).label("seq")).group_by(alias_moves.c.alias).subquery()
    )
    joined = alias_moves.join(last, (last.c.alias == alias_moves.c.alias) & (last.c.seq == alias_moves.c.seq))
    query = select(alias_moves.c.alias, alias_moves.c.seq, alias_moves.c.returns_to).select_from(joined)
    return {row.alias: (row.seq, row.returns_to or row.seq) for row in connection.execute(query)}


def _due(one: Decision, reviewed_at: str) -> str | None:
    if one.review_days is None:
        return None
    begun = datetime.fromisoformat(max(one.at, reviewed_at))
    return (begun + timedelta(days=one.review_days)).isoformat(timespec="microseconds")


def _after(connection: Connection, since: str) -> Any:
    if since == "review":
        review = last_review(connection)
        return decisions.c.number > (review.number if review else 0)
    try:
        at = datetime.fromisoformat(since)
    except ValueError:
        raise BadUsage(
            f"--since {since!r:.60} is no day", fix="write 2026-01-31, 2026-01-31T12:00, or review"
        ) from None
    zone = now().tzinfo
    at = at.replace(tzinfo=zone) if at.tzinfo is None else at.astimezone(zone)
    return decisions.c.at >= at.isoformat(timespec="microseconds")
