"""What was served, summed by five minutes, alias, version and cohort, in the transactions that write it.

So a dashboard over a million replies reads a few thousand rows, is never behind, and is right after a crash. A request counts
where it came in, whenever a thumb or a reward for it comes; shadows, which nobody saw, don't count. What was told of a request is
its last thumb that wasn't refused, and its reward (`points.py`).
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, select

from rlhf.serving import points
from rlhf.store.database import Database
from rlhf.store.tables import LATENCY_BINS, exposures, outcomes, served_sums

MINUTES = 5
EDGES_S = tuple(0.01 * 1.35**k for k in range(LATENCY_BINS - 1))  # bin k: from edge k-1, to below edge k
BINS = tuple(f"bin_{k:02}" for k in range(LATENCY_BINS))
KEYS = ("bucket", "alias", "digest", "cohort")
NUMBERS = tuple(column.name for column in served_sums.c if column.name not in KEYS)
_AT_ONCE = 500  # requests a query


def bucket_of(at: str) -> str:
    """`2026-11-29T14:35` of an ISO time."""
    return at[:15] + ("5" if at[15] >= "5" else "0")


def add(database: Database, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Count replies that are written in this transaction. rows: as the table of exposures takes them."""
    sums: dict[tuple[str, ...], dict[str, float]] = {}
    for row in rows:
        if row["rule"] != "shadow":
            _add_one(sums.setdefault(_key(row), dict.fromkeys(NUMBERS, 0)), row)
    _write(database, connection, sums)


@contextmanager
def retold(database: Database, connection: Connection, request_ids: Iterable[str]) -> Iterator[None]:
    """What the block changes in what was told of these requests is changed in the sums too."""
    ids = sorted(set(request_ids))
    before = _told(connection, ids)
    yield
    sums: dict[tuple[str, ...], dict[str, float]] = {}
    after = _told(connection, ids)
    for request_id, (key, now_told) in after.items():
        then_told = before[request_id][1] if request_id in before else dict.fromkeys(now_told, 0.0)
        changed = sums.setdefault(key, dict.fromkeys(NUMBERS, 0))
        for name, value in now_told.items():
            changed[name] += value - then_told[name]
    _write(database, connection, {key: numbers for key, numbers in sums.items() if any(numbers.values())})


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (bucket_of(row["at"]), row["alias"] or "", row["digest"] or "", row["cohort"] or "")


def _add_one(sums: dict[str, float], row: Mapping[str, Any]) -> None:
    sums["n"] += 1
    sums["tokens_out"] += row["tokens_out"] or 0
    if row["status"] in ("error", "shed"):
        sums["errors" if row["status"] == "error" else "shed"] += 1
    if row["status"] == "ok":
        sums["ok"] += 1
        if row["latency_s"] is not None:
            sums["latency_s"] += row["latency_s"]
            sums[BINS[bisect.bisect_right(EDGES_S, row["latency_s"])]] += 1
    if row["refusal"] is not None:
        sums["looked_at"] += 1
        sums["refusals"] += row["refusal"]
    for name, value in _numbers(None, points.reward_of(row["reward"], None, is_judged=False)).items():
        sums[name] += value


def _numbers(thumb: float | None, reward: float | None) -> dict[str, float]:
    return {
        "thumbs": int(thumb is not None),
        "thumbs_up": thumb or 0.0,
        "rewards": int(reward is not None),
        "reward": reward or 0.0,
        "reward_squared": (reward or 0.0) ** 2,
    }


def _told(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[tuple[str, ...], dict[str, float]]]:
    """Of each request that was shown: its key, and what was told of it."""
    e, o = exposures.c, outcomes.c
    rows: list[Any] = []
    thumbs: dict[str, float] = {}
    rewards: dict[str, float] = {}
    for first in range(0, len(ids), _AT_ONCE):
        some = ids[first : first + _AT_ONCE]
        shown = select(e.request_id, e.at, e.alias, e.digest, e.cohort, e.reward, e.rollout_id)
        rows += connection.execute(shown.where(e.request_id.in_(some), e.rule != "shadow")).all()
        is_thumb = (o.kind == "thumb") & (o.state != "refused") & o.value.is_not(None)
        said = select(o.request_id, o.kind, o.value).where(o.request_id.in_(some), is_thumb | points.is_reported())
        for request_id, kind, value in connection.execute(said.order_by(o.id)):
            (thumbs if kind == "thumb" else rewards)[request_id] = value
    judged = points.judged(connection, (row.rollout_id for row in rows))
    return {
        row.request_id: (
            _key(dict(row._mapping)),
            _numbers(
                thumbs.get(row.request_id),
                points.reward_of(row.reward, rewards.get(row.request_id), is_judged=row.rollout_id in judged),
            ),
        )
        for row in rows
    }


def _write(database: Database, connection: Connection, sums: Mapping[tuple[str, ...], Mapping[str, float]]) -> None:
    rows = [{**dict(zip(KEYS, key, strict=True)), **numbers} for key, numbers in sums.items()]
    database.add_up(connection, served_sums, rows)
