"""What has been judged and what is left, counted from the judgements in force.

A judgement is in force while no other supersedes it. An undo is a judgement of choice 'skip' with the reason 'undo': it
answers nothing, so the pair is as if this labeler had never judged it. A pair is covered when `overlap` people have
answered it on the page, and where the rules ask for more opinions, when these agree or are as many as may be asked; a skip
answers nothing either. Gold pairs are in no queue. Checks count as done, so that the count doesn't tell them from other pairs.

Queries that every draw and every answer ask are built once, with bound parameters: building one takes longer than running it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    FromClause,
    Integer,
    Select,
    String,
    Subquery,
    and_,
    bindparam,
    func,
    not_,
    or_,
    select,
)

from rlhf.feedback.holds import is_open
from rlhf.feedback.reading import UNDO
from rlhf.ids import now
from rlhf.labeling.rules import LabelRules, rules_in
from rlhf.people import accounts
from rlhf.records import PAGE_SOURCE
from rlhf.store import Workspace
from rlhf.store.database import Database
from rlhf.store.tables import checks, gold, item_events, judgements, pairs

SOURCE = PAGE_SOURCE
_EXACT_UP_TO = 1_000  # rows looked at; above it a count may be old, since counting takes longer than drawing:
_COSTLY = 50  # so many times as old as it takes to count, which stays under 2 % of the time,
_MANY, _STALE_S = 10_000, 10.0  # and above so many rows some seconds
_HAIR = 1e-9  # 3 of 5 is 0.6, whatever floats say
_kept: WeakKeyDictionary[Database, dict[str, _Counted]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class _Counted:
    """number: what was found in so many rows, and good_until a monotonic time in seconds."""

    number: int
    n_rows: int
    good_until: float


_NEVER = _Counted(0, 0, float("-inf"))


@dataclass(frozen=True, slots=True)
class Progress:
    """Of one labeler. n_done: answers in force, skips apart; today: since midnight UTC; n_left: pairs open to them; n_checked:
    checks among what they did."""

    n_done_today: int
    n_done: int
    n_skipped: int
    n_left: int
    n_checked: int = 0

    def as_json(self) -> dict[str, int]:
        """As a blind labeler may know it: what is left falls with a check as with any other pair, or it would give them away."""
        left = max(min(self.n_left, 1), self.n_left - self.n_checked)
        return {
            "n_done_today": self.n_done_today,
            "n_done": self.n_done,
            "n_skipped": self.n_skipped,
            "n_left": left,
        }


@dataclass(frozen=True, slots=True)
class LabelerCount:
    """One labeler's answers in force, by choice of the person (tie and both_bad are answers, a skip is none)."""

    labeler: str
    n_done: int
    n_done_today: int
    n_ties: int
    n_both_bad: int
    n_skipped: int
    median_seconds: float | None
    last_at: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def in_force(judged: FromClause) -> ColumnElement[bool]:
    """Nothing supersedes it."""
    newer = judgements.alias()
    return not_(select(newer.c.id).where(newer.c.supersedes == judged.c.id).exists())


def is_undo(judged: FromClause) -> ColumnElement[bool]:
    return and_(judged.c.choice == "skip", func.coalesce(judged.c.reason, "") == UNDO, judged.c.supersedes.is_not(None))


def n_answers(pair_id: ColumnElement[str]) -> Any:
    """Scalar subquery: how many people's answers on the page are in force for a pair."""
    judged = judgements.alias()
    return (
        select(func.count())
        .select_from(judged)
        .where(judged.c.pair_id == pair_id, _is_answer(judged))
        .scalar_subquery()
    )


def disagree(pair_id: ColumnElement[str]) -> ColumnElement[bool]:
    """The commonest answer has less than `agreement` of a pair's answers."""
    judged = judgements.alias()
    commonest = (
        select(func.count())
        .select_from(judged)
        .where(judged.c.pair_id == pair_id, _is_answer(judged))
        .group_by(judged.c.choice)
        .order_by(func.count().desc())
        .limit(1)
        .scalar_subquery()
    )
    return _is_short(commonest, n_answers(pair_id))


def wanting(pair_id: ColumnElement[str], escalates: bool) -> ColumnElement[bool]:
    """The pair wants an answer: fewer than `overlap`, or one more opinion, up to `limit`."""
    few = n_answers(pair_id) < bindparam("overlap", type_=Integer)
    return (
        or_(few, and_(n_answers(pair_id) < bindparam("limit", type_=Integer), disagree(pair_id))) if escalates else few
    )


def asked_for(overlap: int, rules: LabelRules) -> dict[str, float]:
    """What the bound parameters of `wanting` and `tallies` are."""
    asked: dict[str, float] = {"overlap": overlap}
    return asked | {"limit": overlap + rules.more, "agreement": rules.agreement} if rules.escalates else asked


def tallies() -> Subquery:
    """Of each queued pair with an answer: pair_id, n (answers), n_top (of the commonest)."""
    judged = judgements.alias()
    by_choice = (
        select(judged.c.pair_id, func.count().label("n"))
        .where(_is_answer(judged), is_queued(judged.c.pair_id))
        .group_by(judged.c.pair_id, judged.c.choice)
        .subquery()
    )
    return (
        select(
            by_choice.c.pair_id,
            func.sum(by_choice.c.n).label("n"),
            func.max(by_choice.c.n).label("n_top"),
        )
        .group_by(by_choice.c.pair_id)
        .subquery()
    )


def is_split(tally: Subquery) -> ColumnElement[bool]:
    """`disagree` of a tally."""
    return _is_short(tally.c.n_top, tally.c.n)


def _is_short(n_top: Any, n: Any) -> ColumnElement[bool]:
    return n_top + _HAIR < bindparam("agreement", type_=Float) * n


def _is_answer(judged: FromClause) -> ColumnElement[bool]:
    """A person's answer on the page that is in force."""
    return and_(judged.c.source == SOURCE, judged.c.kind == "human", judged.c.choice != "skip", in_force(judged))


def judged_by(pair_id: ColumnElement[str], labeler: ColumnElement[str]) -> ColumnElement[bool]:
    """This labeler has answered or skipped the pair, and not undone it."""
    judged = judgements.alias()
    return (
        select(judged.c.id)
        .where(
            judged.c.pair_id == pair_id,
            judged.c.source == SOURCE,
            judged.c.labeler == labeler,
            not_(is_undo(judged)),
            in_force(judged),
        )
        .exists()
    )


def has_text(pair_id: ColumnElement[str]) -> ColumnElement[bool]:
    """The pair isn't erased. Erased pairs are few and found by index; a look at every pair's row reads its texts."""
    return pair_id.not_in(select(pairs.c.id).where(pairs.c.erased_at.is_not(None)))


def gold_pairs() -> Select[str]:
    """Ids of the gold pairs in force."""
    later = gold.alias()
    is_last = not_(select(later.c.seq).where(later.c.pair_id == gold.c.pair_id, later.c.seq > gold.c.seq).exists())
    return select(gold.c.pair_id).where(gold.c.choice.is_not(None), is_last)


def is_queued(pair_id: ColumnElement[str]) -> ColumnElement[bool]:
    """The pair has its text and is no gold pair."""
    return and_(has_text(pair_id), pair_id.not_in(gold_pairs()))


def live_pairs(connection: Connection, database: Database) -> int:
    """How many pairs of the workspace have their text."""

    def count() -> tuple[int, int]:
        n = connection.scalar(select(func.count()).select_from(pairs).where(pairs.c.erased_at.is_(None))) or 0
        return n, n if n > _MANY else 0  # an index tells it: nothing to save up to there

    return _recent(database, "pairs", count)


def progress(workspace: Workspace, labeler: str, *, overlap: int = 1) -> Progress:
    """How far a labeler is. overlap: people wanted a pair."""
    with workspace.read() as connection:
        return progress_in(connection, workspace.database, labeler, overlap)


def progress_in(
    connection: Connection, database: Database, labeler: str, overlap: int, *, anew: bool = False
) -> Progress:
    """`progress` inside the caller's transaction. anew: what is covered is counted now, unless that takes long."""
    rules = rules_in(connection)
    asked = {"labeler": labeler, "midnight": _midnight(), **asked_for(overlap, rules)}
    row = connection.execute(_of_labeler(rules.escalates), asked).one()
    n_done, n_today, n_skipped, n_mine_open, n_gold, n_checked, n_checked_today, n_passed = row
    n_open = live_pairs(connection, database) - n_gold - _covered(connection, database, overlap, rules, anew)
    n_left = n_open - n_mine_open - _held_back(connection, labeler, overlap, rules)
    n_all = n_checked + n_passed
    return Progress(n_today + n_checked_today, n_done + n_checked, n_skipped + n_passed, max(0, n_left), n_all)


def is_reviewer(connection: Connection, labeler: str) -> bool:
    """One of the experts who are given pairs that a safety item holds."""
    account = accounts.of(connection, labeler)
    return account is not None and "review" in account.permissions


def _held_back(connection: Connection, labeler: str, overlap: int, rules: LabelRules) -> int:
    """Pairs that would be open to this labeler, did no safety item hold them."""
    if is_reviewer(connection, labeler):
        return 0
    asked = {"labeler": labeler, **asked_for(overlap, rules)}
    return connection.execute(_held_and_wanting(rules.escalates), asked).scalar_one()


@cache
def _held_and_wanting(escalates: bool) -> Select[int]:
    hold = item_events.alias()
    return select(func.count(hold.c.pair_id.distinct())).where(
        hold.c.pair_id.is_not(None),
        is_open(hold),
        is_queued(hold.c.pair_id),
        wanting(hold.c.pair_id, escalates),
        not_(judged_by(hold.c.pair_id, bindparam("labeler", type_=String))),
    )


@cache
def _of_labeler(escalates: bool) -> Select[int, int, int, int, int, int, int, int]:
    mine = judgements.alias()
    answered = mine.c.choice != "skip"
    today = mine.c.created_at >= bindparam("midnight")
    theirs = and_(checks.c.labeler == bindparam("labeler"), last_check(checks))
    checked = and_(theirs, checks.c.choice != "skip")
    passed = and_(theirs, checks.c.choice == "skip", func.coalesce(checks.c.reason, "") != UNDO)
    return select(
        func.count().filter(answered),
        func.count().filter(and_(answered, today)),
        func.count().filter(not_(answered)),
        func.count().filter(and_(wanting(mine.c.pair_id, escalates), mine.c.pair_id.not_in(gold_pairs()))),
        select(func.count()).select_from(gold_pairs().where(has_text(gold.c.pair_id)).subquery()).scalar_subquery(),
        select(func.count()).where(checked).scalar_subquery(),
        select(func.count()).where(checked, checks.c.at >= bindparam("midnight")).scalar_subquery(),
        select(func.count()).where(passed).scalar_subquery(),
    ).where(
        mine.c.source == SOURCE,
        mine.c.labeler == bindparam("labeler"),
        has_text(mine.c.pair_id),
        not_(is_undo(mine)),
        in_force(mine),
    )


def last_check(check: FromClause) -> ColumnElement[bool]:
    """The labeler's last word on this check; an undo is one too."""
    later = checks.alias()
    return not_(
        select(later.c.seq)
        .where(
            later.c.labeler == check.c.labeler,
            later.c.pair_id == check.c.pair_id,
            later.c.kind == check.c.kind,
            later.c.seq > check.c.seq,
        )
        .exists()
    )


def by_labeler(workspace: Workspace) -> list[LabelerCount]:
    """Every labeler's counts, the busiest first."""
    judged = judgements.alias()
    with workspace.read() as connection:
        rows = connection.execute(
            select(judged.c.labeler, judged.c.choice, judged.c.seconds, judged.c.created_at).where(
                judged.c.source == SOURCE, judged.c.labeler.is_not(None), not_(is_undo(judged)), in_force(judged)
            )
        ).all()
    midnight = _midnight()
    grouped: dict[str, list[Any]] = {}
    for row in rows:
        grouped.setdefault(row.labeler, []).append(row)
    counted = [_count(labeler, own, midnight) for labeler, own in grouped.items()]
    return sorted(counted, key=lambda c: (-c.n_done, c.labeler))


def _count(labeler: str, rows: list[Any], midnight: str) -> LabelerCount:
    import statistics

    answered = [row for row in rows if row.choice != "skip"]
    seconds = [row.seconds for row in answered if row.seconds is not None]
    return LabelerCount(
        labeler,
        len(answered),
        sum(row.created_at >= midnight for row in answered),
        sum(row.choice == "tie" for row in answered),
        sum(row.choice == "both_bad" for row in answered),
        len(rows) - len(answered),
        round(statistics.median(seconds), 1) if seconds else None,
        max(row.created_at for row in rows),
    )


def _covered(connection: Connection, database: Database, overlap: int, rules: LabelRules, anew: bool) -> int:
    """Queued pairs that want no answer any more."""
    asked = asked_for(overlap, rules)

    def count() -> tuple[int, int]:
        n_covered, n_given = connection.execute(_enough_answers(rules.escalates), asked).one()
        return n_covered, n_given

    return _recent(database, f"covered {sorted(asked.items())}", count, anew)


@cache
def _enough_answers(escalates: bool) -> Select[int, int]:
    """(pairs that are covered, answers that were looked at for it)"""
    tally = tallies() if escalates else _tallies_of_pairs()
    enough = tally.c.n >= bindparam("overlap", type_=Integer)
    if escalates:
        enough = and_(enough, not_(and_(tally.c.n < bindparam("limit", type_=Integer), is_split(tally))))
    return select(func.count().filter(enough), func.coalesce(func.sum(tally.c.n), 0)).select_from(tally)


def _tallies_of_pairs() -> Subquery:
    """`tallies` without n_top, which takes a sort less."""
    judged = judgements.alias()
    return (
        select(judged.c.pair_id, func.count().label("n"))
        .where(_is_answer(judged), is_queued(judged.c.pair_id))
        .group_by(judged.c.pair_id)
        .subquery()
    )


def _recent(database: Database, what: str, count: Callable[[], tuple[int, int]], anew: bool = False) -> int:
    """A count that `count` gives with the rows that it looked at: exact of few, else as old as the limits above allow."""
    kept = _kept.setdefault(database, {})
    last = kept.get(what, _NEVER)
    began = time.monotonic()
    if began <= last.good_until and not (anew and last.n_rows <= _MANY):
        return last.number
    number, n_rows = count()
    fresh_s = _COSTLY * (time.monotonic() - began) if n_rows > _EXACT_UP_TO else float("-inf")
    kept[what] = _Counted(number, n_rows, began + (max(_STALE_S, fresh_s) if n_rows > _MANY else fresh_s))
    return number


def _midnight() -> str:
    return now().replace(hour=0, minute=0, second=0, microsecond=0).isoformat(timespec="microseconds")
