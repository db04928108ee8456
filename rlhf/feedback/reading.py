"""Reading: judgements in force and pairs with them, streamed in the order of their ids; what snapshots and pages
stand on.

A judgement is in force while no other supersedes it; one that was undone (reason `undo`) says nothing and is left out. Erased
pairs are left out. Whoever took their consent back consents to nothing, in every judgement of theirs. Within a pair judgements
are ordered by their digests, so that nothing depends on when or where they came in.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, or_, select

from rlhf.feedback.consent import from_column
from rlhf.people import took_back, withdrawn
from rlhf.records import Judgement, Message, Pair
from rlhf.store.tables import judgements, pair_sources, pairs

UNDO = "undo"
NOBODY = "erased"  # who acts in the rows of an erased person
_CHUNK = 500
_later = judgements.alias("later")


def current_judgements(
    connection: Connection, *, pair_ids: Sequence[str] | None = None, sources: Sequence[str] | None = None
) -> Iterator[tuple[str, Judgement]]:
    """(id, judgement) of those in force, by pair id; restricted to pairs or sources where given. Streams; nothing is
    kept.
    """
    gone = withdrawn(connection)
    query = select(judgements).where(in_force()).order_by(judgements.c.pair_id, judgements.c.digest, judgements.c.id)
    if sources:
        query = query.where(judgements.c.source.in_(sources))
    if pair_ids is None:
        for row in connection.execute(query.execution_options(yield_per=1000)):
            yield row.id, judgement_from(row, gone)
        return
    for start in range(0, len(pair_ids), _CHUNK):
        for row in connection.execute(query.where(judgements.c.pair_id.in_(pair_ids[start : start + _CHUNK]))):
            yield row.id, judgement_from(row, gone)


def read_pairs(
    connection: Connection, *, sources: Sequence[str] = (), batch: int = 500
) -> Iterator[tuple[Pair, tuple[Judgement, ...], tuple[str, ...]]]:
    """(pair, its judgements in force, its sources) in the order of pair ids; sources: only these and what they say.

    Pairs that nobody judged come with no judgements. Constant memory: `batch` pairs at a time.
    """
    after = ""
    while True:
        query = (
            select(pairs)
            .where(pairs.c.id > after, pairs.c.prompt.is_not(None), pairs.c.erased_at.is_(None))
            .order_by(pairs.c.id)
            .limit(batch)
        )
        if sources:
            query = query.where(
                exists().where(and_(pair_sources.c.pair_id == pairs.c.id, pair_sources.c.source.in_(sources)))
            )
        rows = connection.execute(query).all()
        if not rows:
            return
        ids = [row.id for row in rows]
        said: dict[str, list[Judgement]] = {}
        for _, judgement in current_judgements(connection, pair_ids=ids, sources=sources or None):
            said.setdefault(judgement.pair_id, []).append(judgement)
        named = sources_of(connection, ids, sources)
        for row in rows:
            yield pair_from(row), tuple(said.get(row.id, ())), tuple(named.get(row.id, ()))
        after = ids[-1]


def in_force() -> Any:
    """The condition on `judgements`: not superseded, no undo, and its labeler not erased."""
    return and_(
        ~exists().where(_later.c.supersedes == judgements.c.id),
        or_(judgements.c.reason.is_(None), judgements.c.reason != UNDO),
        judgements.c.actor != NOBODY,
    )


def judgement_from(row: Row[Any], gone: Collection[str] = ()) -> Judgement:
    """A row of `judgements` as the record. gone: accounts that took their consent back."""
    judgement = Judgement(
        pair_id=row.pair_id,
        choice=row.choice,
        source=row.source,
        labeler=row.labeler,
        kind=row.kind,
        strength=row.strength,
        seconds=row.seconds,
        shown=row.shown,
        note=row.note,
        reason=row.reason,
        guideline=row.guideline,
        consent=from_column(row.consent),
        acquisition_p=row.acquisition_p,
        cohort=row.cohort,
        submitted_at=row.submitted_at,
        supersedes=row.supersedes,
    )
    return replace(judgement, consent=()) if took_back(judgement, gone) else judgement


def pair_from(row: Row[Any]) -> Pair:
    """A row of `pairs` that isn't erased as the record."""
    return Pair(
        row.id,
        tuple(Message(turn["role"], turn["content"]) for turn in json.loads(row.prompt)),
        row.reply_a,
        row.reply_b,
    )


def sources_of(connection: Connection, ids: Sequence[str], sources: Sequence[str] = ()) -> dict[str, list[str]]:
    """Of each pair its sources, sorted; sources: only these."""
    query = select(pair_sources.c.pair_id, pair_sources.c.source).order_by(pair_sources.c.source)
    if sources:
        query = query.where(pair_sources.c.source.in_(sources))
    named: dict[str, list[str]] = {}
    for start in range(0, len(ids), _CHUNK):
        for row in connection.execute(query.where(pair_sources.c.pair_id.in_(ids[start : start + _CHUNK]))):
            named.setdefault(row.pair_id, []).append(row.source)
    return named
