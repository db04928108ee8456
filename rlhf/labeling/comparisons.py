"""Pairs that a comparison of two versions asks people about: they come first, and nothing trains on their answers.

Such a pair has a source that begins with `COMPARISON`, and came in as one import, whose row is the job: once that is
done, its pairs are known for good and kept in memory, so that a draw costs one look at the small table of imports.
"""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, select

from rlhf.records import Judgement
from rlhf.store.database import Database
from rlhf.store.tables import imports, pair_sources

COMPARISON = "compare:"
CONSENT = ("evaluate",)
_USUAL = Judgement("", "skip", COMPARISON).consent
_AT_ONCE = 500  # ids in one query
_kept: WeakKeyDictionary[Database, dict[str, tuple[str, ...]]] = WeakKeyDictionary()  # source: its pairs


def consent_for(connection: Connection, pair_id: str) -> tuple[str, ...]:
    """What an answer on the page may be used for: a judgement's usual scopes, or `evaluate` alone for a pair of a
    comparison. A policy that is trained on what decided about it would grade itself."""
    asked = select(pair_sources.c.source).where(
        pair_sources.c.pair_id == pair_id, pair_sources.c.source.startswith(COMPARISON, autoescape=True)
    )
    return CONSENT if connection.execute(asked.limit(1)).first() else _USUAL


def asked_first(connection: Connection, database: Database) -> Iterator[tuple[str, ...]]:
    """The pairs of each comparison's job, the oldest job first, in lots of at most 500."""
    jobs = (
        select(imports.c.source)
        .where(imports.c.source.startswith(COMPARISON, autoescape=True), imports.c.state == "done")
        .order_by(imports.c.created_at, imports.c.id)
    )
    for source in dict.fromkeys(connection.scalars(jobs)):
        ids = pairs_of(connection, database, source)
        for start in range(0, len(ids), _AT_ONCE):
            yield ids[start : start + _AT_ONCE]


def pairs_of(connection: Connection, database: Database, source: str) -> tuple[str, ...]:
    """The pairs of one job whose import is done, in order of their ids."""
    kept = _kept.setdefault(database, {})
    if source not in kept:
        wanted = select(pair_sources.c.pair_id).where(pair_sources.c.source == source)
        kept[source] = tuple(connection.scalars(wanted.order_by(pair_sources.c.pair_id)))
    return kept[source]
