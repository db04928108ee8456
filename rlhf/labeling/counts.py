"""What has been judged and what is left, counted from the judgements in force.

A judgement is in force while no other supersedes it. An undo is a judgement of choice 'skip' with the reason 'undo': it
answers nothing, so the pair is as if this labeler had never judged it. A pair is covered when `overlap` people have
answered it on the page; a skip answers nothing either.

Queries that every draw and every answer ask are built once, with bound parameters: building one takes longer than running it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnElement, Connection, FromClause, Integer, Select, and_, bindparam, func, not_, select

from rlhf.feedback.reading import UNDO
from rlhf.ids import now
from rlhf.records import PAGE_SOURCE
from rlhf.store import Workspace
from rlhf.store.database import Database
from rlhf.store.tables import judgements, pairs

SOURCE = PAGE_SOURCE
_EXACT_UP_TO = 10_000  # pairs; above it a count may be some seconds old, since counting takes longer than drawing
_STALE_S = 10.0
_COSTLY = 50  # and at least so many times as old as it takes to count: counting stays under 2 % of the time
_kept: WeakKeyDictionary[Database, dict[str, tuple[float, int]]] = WeakKeyDictionary()  # what: (good until, number)


@dataclass(frozen=True, slots=True)
class Progress:
    """Of one labeler. n_done: answers in force, skips apart; today: since midnight UTC; n_left: pairs open to them."""

    n_done_today: int
    n_done: int
    n_skipped: int
    n_left: int

    def as_json(self) -> dict[str, int]:
        return asdict(self)


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
        .where(
            judged.c.pair_id == pair_id,
            judged.c.source == SOURCE,
            judged.c.kind == "human",
            judged.c.choice != "skip",
            in_force(judged),
        )
        .scalar_subquery()
    )


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


def live_pairs(connection: Connection, database: Database) -> int:
    """How many pairs of the workspace have their text."""
    return _recent(
        database,
        "pairs",
        lambda: connection.execute(
            select(func.count()).select_from(pairs).where(pairs.c.erased_at.is_(None))
        ).scalar_one(),
    )


def progress(workspace: Workspace, labeler: str, *, overlap: int = 1) -> Progress:
    """How far a labeler is. overlap: people wanted a pair."""
    with workspace.read() as connection:
        return progress_in(connection, workspace.database, labeler, overlap)


def progress_in(connection: Connection, database: Database, labeler: str, overlap: int) -> Progress:
    """`progress` inside the caller's transaction."""
    row = connection.execute(_of_labeler(), {"labeler": labeler, "midnight": _midnight(), "overlap": overlap}).one()
    n_done, n_today, n_skipped, n_mine_open = row
    n_open = live_pairs(connection, database) - _covered(connection, database, overlap)
    return Progress(n_today, n_done, n_skipped, max(0, n_open - n_mine_open))


@cache
def _of_labeler() -> Select[int, int, int, int]:
    mine = judgements.alias()
    answered = mine.c.choice != "skip"
    today = mine.c.created_at >= bindparam("midnight")
    return select(
        func.count().filter(answered),
        func.count().filter(and_(answered, today)),
        func.count().filter(not_(answered)),
        func.count().filter(n_answers(mine.c.pair_id) < bindparam("overlap", type_=Integer)),
    ).where(
        mine.c.source == SOURCE,
        mine.c.labeler == bindparam("labeler"),
        has_text(mine.c.pair_id),
        not_(is_undo(mine)),
        in_force(mine),
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


def _covered(connection: Connection, database: Database, overlap: int) -> int:
    """Pairs with their text that `overlap` or more people have answered."""
    return _recent(
        database,
        f"covered by {overlap}",
        lambda: connection.execute(_enough_answers(), {"overlap": overlap}).scalar_one(),
    )


@cache
def _enough_answers() -> Select[int]:
    judged = judgements.alias()
    enough = (
        select(judged.c.pair_id)
        .where(
            judged.c.source == SOURCE,
            judged.c.kind == "human",
            judged.c.choice != "skip",
            has_text(judged.c.pair_id),
            in_force(judged),
        )
        .group_by(judged.c.pair_id)
        .having(func.count() >= bindparam("overlap", type_=Integer))
        .subquery()
    )
    return select(func.count()).select_from(enough)


def _recent(database: Database, what: str, count: Callable[[], int]) -> int:
    """A big count, some seconds old; a small one, exact."""
    kept = _kept.setdefault(database, {})
    good_until, number = kept.get(what, (float("-inf"), 0))
    began = time.monotonic()
    if began > good_until:
        number = count()
        took_s = time.monotonic() - began
        fresh_s = max(_STALE_S, _COSTLY * took_s) if number > _EXACT_UP_TO else float("-inf")
        kept[what] = (began + fresh_s, number)
    return number


def _midnight() -> str:
    return now().replace(hour=0, minute=0, second=0, microsecond=0).isoformat(timespec="microseconds")
