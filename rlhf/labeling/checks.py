"""Checks: pairs with a known answer, and a labeler's own earlier pairs with the sides swapped, among the others.

On the page nothing tells them apart. Their answers are about the labeler and stand in `checks`: no judgement, no vote, in no
export and no snapshot. Who is under a bar beyond bad luck is paused in the transaction that keeps the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, not_, select

from rlhf.feedback.anonymise import mask
from rlhf.feedback.holds import is_held
from rlhf.feedback.reading import UNDO
from rlhf.ids import chance, new_id, now_text
from rlhf.labeling import pauses
from rlhf.labeling.counts import SOURCE, gold_pairs, has_text, in_force, last_check
from rlhf.labeling.leases import LeaseKind
from rlhf.labeling.rules import LabelRules, rules_in
from rlhf.measures import intervals
from rlhf.measures.intervals import Interval
from rlhf.records import Choice
from rlhf.store import Write
from rlhf.store.tables import checks, gold, judgements, leases

_SURE = 0.99  # of the interval whose upper end must reach the bar; it is looked at after every check
_AT_MOST = 500  # earlier pairs of a labeler from which a repeat is drawn


@dataclass(frozen=True, slots=True)
class Checked:
    """Of one labeler and one kind. rate: right / n; interval: Wilson's, 95 %."""

    n: int
    n_right: int

    @property
    def interval(self) -> Interval:
        return intervals.wilson(self.n_right, self.n)


def draw(write: Write, labeler: str) -> tuple[LeaseKind, str, str | None, float | None] | None:
    """A check for this labeler, if one is due; its place is drawn with the workspace's key, so that nobody can tell it before."""
    rules = rules_in(write.connection)
    if not rules.gold_rate and not rules.repeat_rate:
        return None
    n_drawn = write.connection.execute(select(func.count()).where(leases.c.labeler == labeler)).scalar_one()
    dice = chance(0, "checks", write.key, labeler, str(n_drawn))
    place = dice.random()
    if place < rules.gold_rate:
        seen = select(leases.c.pair_id).where(leases.c.labeler == labeler)
        unseen = (
            gold_pairs()
            .where(has_text(gold.c.pair_id), gold.c.pair_id.not_in(seen), not_(is_held(gold.c.pair_id)))
            .order_by(gold.c.pair_id)
        )
        known = list(write.connection.scalars(unseen))
        return ("gold", dice.choice(known), None, None) if known else None
    if place < rules.gold_rate + rules.repeat_rate:
        earlier = _repeatable(write.connection, labeler, rules.repeat_gap)
        if earlier:
            pair_id, shown = dice.choice(earlier)
            return "repeat", pair_id, shown[::-1], None
    return None


def keep(
    write: Write,
    lease: Any,
    choice: Choice,
    *,
    seconds: float | None = None,
    note: str | None = None,
    reason: str | None = None,
) -> str:
    """Keep the answer to a check and mark its lease, inside the caller's transaction; returns an id like a judgement's.

    The labeler is paused here if that is what it comes to.
    """
    wanted = _known(write.connection, lease)
    was_right = None if choice == "skip" or wanted is None else int(_alike(choice, wanted))
    made = _append(write, lease, choice, was_right, seconds=seconds, note=note, reason=reason)
    write.connection.execute(leases.update().values(judgement_id=made).where(leases.c.id == lease.id))
    if was_right == 0:
        _pause_if_under(write, lease.labeler, lease.kind, rules_in(write.connection))
    return made


def last_answered(connection: Connection, labeler: str) -> Any | None:
    """The labeler's newest check that isn't undone, with what its lease showed."""
    return connection.execute(
        select(checks)
        .where(checks.c.labeler == labeler, last_check(checks), func.coalesce(checks.c.reason, "") != UNDO)
        .order_by(checks.c.at.desc())
        .limit(1)
    ).first()


def take_back(write: Write, check: Any) -> None:
    """The check is as if it had not been answered; a row says so."""
    lease = write.connection.execute(select(leases).where(leases.c.id == check.lease_id)).one()
    _append(write, lease, "skip", None, reason=UNDO)


def choice_of(connection: Connection, check_id: str) -> str | None:
    """What was answered to a check, by its id."""
    return connection.execute(select(checks.c.choice).where(checks.c.id == check_id)).scalar()


def counts(connection: Connection, labeler: str | None = None, *, since: str = "") -> dict[tuple[str, str], Checked]:
    """(labeler, kind) → how many were right, of those in force that are no skips; since: ISO time."""
    query = (
        select(checks.c.labeler, checks.c.kind, func.count(), func.sum(checks.c.was_right))
        .where(checks.c.was_right.is_not(None), checks.c.at >= since, last_check(checks))
        .group_by(checks.c.labeler, checks.c.kind)
    )
    if labeler is not None:
        query = query.where(checks.c.labeler == labeler)
    return {(row[0], row[1]): Checked(row[2], row[3]) for row in connection.execute(query)}


def is_under(n_right: int, n: int, bar: float) -> bool:
    """The share is below the bar with all the luck that one may have: Wilson's upper end, 99 %.

    It is asked after every wrong answer, and so errs more often than once: of people exactly at a bar of 0.7 about 4 in 100 are
    paused within 100 checks, of people at 0.8 almost nobody.
    """
    return intervals.wilson(n_right, n, _SURE).high < bar


def _pause_if_under(write: Write, labeler: str, kind: str, rules: LabelRules) -> None:
    """What was checked before a reviewer resumed the labeler doesn't count again."""
    last = pauses.last_of(write.connection, labeler)
    if last is not None and last.action != "resume":
        return
    found = counts(write.connection, labeler, since=last.at if last else "").get((labeler, kind), Checked(0, 0))
    bar = rules.gold_bar if kind == "gold" else rules.repeat_bar
    if found.n < rules.min_checks or not is_under(found.n_right, found.n, bar):
        return
    highest = intervals.wilson(found.n_right, found.n, _SURE).high
    what = (
        f"of {found.n} pairs whose answer is known, {found.n_right} were answered that way"
        if kind == "gold"
        else f"of {found.n} earlier pairs that came back with the sides swapped, {found.n_right} were answered as before"
    )
    pauses.append(
        write,
        labeler,
        "pause",
        f"{what} ({found.n_right / found.n:.0%}; with all the luck allowed for at most {highest:.0%}), and {bar:.0%} are wanted",
    )


def _repeatable(connection: Connection, labeler: str, gap: int) -> list[tuple[str, str]]:
    """(pair id, how it was shown) of the labeler's own answers, the last `gap` apart, that haven't been repeated."""
    mine = judgements.alias()
    came_back = select(leases.c.pair_id).where(leases.c.labeler == labeler, leases.c.kind == "repeat")
    rows = connection.execute(
        select(mine.c.pair_id, mine.c.shown)
        .where(
            mine.c.source == SOURCE,
            mine.c.labeler == labeler,
            mine.c.choice != "skip",
            mine.c.shown.is_not(None),
            has_text(mine.c.pair_id),
            mine.c.pair_id.not_in(came_back),
            in_force(mine),
        )
        .order_by(mine.c.created_at.desc(), mine.c.id.desc())
        .offset(gap)
        .limit(_AT_MOST)
    )
    return [(row.pair_id, row.shown) for row in rows]


def _known(connection: Connection, lease: Any) -> str | None:
    """The answer that counts as right: the gold, or the labeler's own that is in force."""
    if lease.kind == "gold":
        later = select(gold.c.choice).where(gold.c.pair_id == lease.pair_id).order_by(gold.c.seq.desc()).limit(1)
        return connection.execute(later).scalar()
    mine = judgements.alias()
    return connection.execute(
        select(mine.c.choice).where(
            mine.c.pair_id == lease.pair_id,
            mine.c.source == SOURCE,
            mine.c.labeler == lease.labeler,
            mine.c.choice != "skip",
            in_force(mine),
        )
    ).scalar()


def _alike(one: str, other: str) -> bool:
    """Both bad is a tie, as it is to a training."""
    return ("tie" if one == "both_bad" else one) == ("tie" if other == "both_bad" else other)


def _append(
    write: Write,
    lease: Any,
    choice: str,
    was_right: int | None,
    *,
    seconds: float | None = None,
    note: str | None = None,
    reason: str | None = None,
) -> str:
    same = (checks.c.labeler == lease.labeler, checks.c.pair_id == lease.pair_id, checks.c.kind == lease.kind)
    last = write.connection.execute(select(func.max(checks.c.seq)).where(*same)).scalar()
    row = {
        "labeler": lease.labeler,
        "pair_id": lease.pair_id,
        "kind": lease.kind,
        "seq": (last or 0) + 1,
        "id": new_id(),
        "lease_id": lease.id,
        "shown": lease.shown,
        "choice": choice,
        "was_right": was_right,
        "seconds": seconds,
        "note": mask(note)[0] if note else None,
        "reason": mask(reason)[0] if reason else None,
        "at": now_text(),
    }
    write.connection.execute(checks.insert().values(**row))
    write.audit("label.check", str(row["id"]), {"pair": lease.pair_id, "kind": lease.kind, "choice": choice})
    return str(row["id"])
