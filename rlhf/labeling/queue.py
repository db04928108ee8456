"""Which pair next: the one with the fewest answers, drawn by chance among equals, leased to one labeler.

The overlap is strict: answers in force and live leases together are never more than the people wanted, so that k people
judge a pair and no k + 1st, however many ask at once. A lease that ran out is held back for a minute more: an answer that
was let in at its last moment is counted before the pair goes to somebody else.

Pairs are many and stand in the order of their ids, which are SHA-256 digests: a stretch of that order from a point
drawn by chance is a random sample. So a draw looks at one stretch of 200 pairs through the indexes and never at the
whole table, unless nearly everything is answered; then the stretches grow until one holds an open pair. Up to 200
pairs the stretch is the table, and the draw is exact. Pairs that a comparison of two versions waits for come before
all others. Where a reward has written what a vote on each pair is worth, the draw within the stretch follows that
(`labeling/choosing.py`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

from sqlalchemy import (
    Connection,
    Integer,
    Select,
    String,
    and_,
    bindparam,
    func,
    not_,
    or_,
    select,
    text,
)

from rlhf.errors import BadInput
from rlhf.feedback.holds import is_held
from rlhf.ids import chance
from rlhf.labeling import checks, pauses, reviews
from rlhf.labeling.choosing import probabilities
from rlhf.labeling.comparisons import asked_first
from rlhf.labeling.counts import (
    asked_for,
    disagree,
    gold_pairs,
    is_reviewer,
    judged_by,
    live_pairs,
    n_answers,
    progress_in,
)
from rlhf.labeling.leases import LeaseKind, Task, grant, held_until, live_lease, n_held, renew, task_of
from rlhf.labeling.rules import rules_in
from rlhf.store import Workspace
from rlhf.store.database import Database
from rlhf.store.tables import leases, pairs

Inside = Literal["lot", "from", "between"]
_STRETCH = 200
_GROWTH = 4
_PG_LOCK = 7_310_002  # two labelers must not draw the same pair at the same moment; SQLite's writer lock does it there


def next_task(workspace: Workspace, labeler: str, *, overlap: int = 1, may_review: bool = False) -> Task | None:
    """The pair that this labeler judges now; the same one until it is answered or half an hour has passed.

    overlap: people wanted a pair; may_review: pairs on which people disagree come to this labeler first, if the rules want that.
    None where nothing is open to this labeler: every pair is covered, was judged or skipped by them, or is on another
    labeler's screen. `acquisition_p` of the lease is the probability of the draw; None for a check, which no one trains on.
    Raises Paused where the labeler is paused.
    """
    if overlap < 1:
        raise BadInput(f"an overlap of {overlap} wants no labeler", fix="give an overlap of 1 or more")
    with workspace.write() as write:
        if not workspace.database.is_sqlite:
            write.connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _PG_LOCK})
        pauses.require_at_work(write.connection, labeler)
        lease = live_lease(write.connection, labeler)
        progress = progress_in(write.connection, workspace.database, labeler, overlap)
        if lease is not None:
            return task_of(write.connection, renew(write, lease), progress)
        if not progress.n_left:  # nobody is sent away for an old count
            progress = progress_in(write.connection, workspace.database, labeler, overlap, anew=True)
        drawn: tuple[LeaseKind, str, str | None, float | None] | None = None
        if may_review:
            drawn = reviews.draw(write.connection, labeler, overlap)
        if drawn is None and progress.n_left:
            drawn = checks.draw(write, labeler) or _draw_any(write.connection, workspace.database, labeler, overlap)
        if drawn is None:
            return None
        kind, pair_id, shown, acquisition_p = drawn
        lease = grant(write, labeler, pair_id, shown=shown, acquisition_p=acquisition_p, kind=kind)
        return task_of(write.connection, lease, progress)


def _draw_any(
    connection: Connection, database: Database, labeler: str, overlap: int
) -> tuple[LeaseKind, str, str | None, float | None] | None:
    drawn = _draw(connection, database, labeler, overlap, live_pairs(connection, database))
    return None if drawn is None else ("label", drawn[0], None, drawn[1])


def _draw(
    connection: Connection, database: Database, labeler: str, overlap: int, total: int
) -> tuple[str, float] | None:
    """A pair and the probability with which it was drawn.

    The probability is (pairs of the stretch / all pairs) × (1 / candidates of equal rank in it): the chance that the
    stretch holds the pair, times the chance within it. Exact for one stretch = all; else off by the unevenness of the
    digests, about 7 % (1/√200). A pair of a comparison: 1 / candidates of equal rank in its lot. With worths,
    the second factor is the pair's p of `choosing`.
    """
    n_drawn = connection.execute(select(func.count()).where(leases.c.labeler == labeler)).scalar_one()
    dice = chance(0, "labeling", labeler, str(n_drawn))
    for lot in asked_first(connection, database):
        open_pairs = _open_pairs(connection, labeler, overlap, "lot", lot=list(lot))
        if open_pairs:
            return _among_equals(open_pairs, dice, share=1.0)
    start = "" if total <= _STRETCH else f"{dice.getrandbits(64):016x}"
    for low, high, n_pairs in _stretches(connection, start):
        within = {"low": low} if high is None else {"low": low, "high": high}
        open_pairs = _open_pairs(connection, labeler, overlap, "from" if high is None else "between", **within)
        if open_pairs:
            return _chosen(connection, open_pairs, dice, share=min(1.0, n_pairs / total))
    return None


def _chosen(
    connection: Connection, open_pairs: list[tuple[str, int]], dice: random.Random, share: float
) -> tuple[str, float]:
    """By worth among all open pairs where a reward has written worths, else by chance among those with the fewest answers."""
    ids = [pair_id for pair_id, _ in open_pairs]
    chances = probabilities(connection, ids)
    if chances is None:
        return _among_equals(open_pairs, dice, share)
    (i,) = dice.choices(range(len(ids)), chances)
    return ids[i], share * chances[i]


def _among_equals(open_pairs: list[tuple[str, int]], dice: random.Random, share: float) -> tuple[str, float]:
    fewest = min(n for _, n in open_pairs)
    equals = [pair_id for pair_id, n in open_pairs if n == fewest]
    return dice.choice(equals), share / len(equals)


def _stretches(connection: Connection, start: str) -> Iterator[tuple[str, str | None, int]]:
    """(first id, id after the last or None, number of pairs), from `start` to the end, then from the beginning on."""
    size = _STRETCH
    for low, stop in ((start, None), ("", start)) if start else (("", None),):
        while True:
            inside = [pairs.c.erased_at.is_(None), pairs.c.id >= low]
            if stop is not None:
                inside.append(pairs.c.id < stop)
            ordered = select(pairs.c.id).where(*inside).order_by(pairs.c.id)
            following = connection.execute(ordered.offset(size).limit(1)).scalar()
            if following is None:
                yield low, stop, connection.execute(select(func.count()).select_from(ordered.subquery())).scalar_one()
                break
            yield low, following, size
            low, size = following, size * _GROWTH


def _open_pairs(
    connection: Connection, labeler: str, overlap: int, inside: Inside, **where: Any
) -> list[tuple[str, int]]:
    """Pairs of a stretch or a lot that this labeler may have now, in order of id, with the number of their answers and of those
    that are being given."""
    rules = rules_in(connection)
    asked = {"labeler": labeler, "held_until": held_until(), **asked_for(overlap, rules), **where}
    asked["reviews"] = int(is_reviewer(connection, labeler))
    return [(row[0], row[1]) for row in connection.execute(_open_query(inside, rules.more > 0), asked).all()]


@cache
def _open_query(inside: Inside, asks_more: bool) -> Select[str, int]:
    """Built once: building it takes longer than running it. asks_more: one more opinion, nobody else giving one, while people
    disagree; then the counts are made once a pair, before anything compares them."""
    ranges = {
        "lot": (pairs.c.id.in_(bindparam("lot", expanding=True)),),
        "from": (pairs.c.id >= bindparam("low"),),
        "between": (pairs.c.id >= bindparam("low"), pairs.c.id < bindparam("high")),
    }
    of_labeler = (
        pairs.c.erased_at.is_(None),
        *ranges[inside],
        pairs.c.id.not_in(gold_pairs()),
        not_(judged_by(pairs.c.id, bindparam("labeler", type_=String))),
        or_(bindparam("reviews", type_=Integer) == 1, not_(is_held(pairs.c.id))),
    )
    overlap = bindparam("overlap", type_=Integer)
    n_taken = n_answers(pairs.c.id) + n_held(pairs.c.id)
    if not asks_more:
        return select(pairs.c.id, n_taken).where(*of_labeler, n_taken < overlap).order_by(pairs.c.id).limit(_STRETCH)
    counted = select(pairs.c.id, n_answers(pairs.c.id).label("n"), n_held(pairs.c.id).label("n_held")).where(
        *of_labeler
    )
    one = counted.cte("counted").prefix_with("MATERIALIZED")
    one_more = and_(
        one.c.n >= overlap, one.c.n_held == 0, one.c.n < bindparam("limit", type_=Integer), disagree(one.c.id)
    )
    wanted = or_(one.c.n + one.c.n_held < overlap, one_more)
    return select(one.c.id, one.c.n + one.c.n_held).where(wanted).order_by(one.c.id).limit(_STRETCH)
