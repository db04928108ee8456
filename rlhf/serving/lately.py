"""What each alias served in the last minutes: how much, how fast, how well. Read by the index on time, so that a look costs what
came in lately and not what is kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, select

from rlhf.ids import now
from rlhf.serving import points
from rlhf.store.tables import exposures, outcomes

MINUTES = 15


@dataclass(frozen=True, slots=True)
class Lately:
    """Of `n` requests, answered or not. error_rate: of those that ended ok or in an error. latency_s: mean of those that ended ok.
    satisfaction: share of thumbs up, over `n_thumbs` requests. reward: mean (`points.py`), over `n_rewards`. None = nothing was
    told."""

    n: int
    per_minute: float
    error_rate: float | None
    latency_s: float | None
    satisfaction: float | None
    n_thumbs: int
    reward: float | None
    n_rewards: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def by_alias(connection: Connection, minutes: float = MINUTES) -> dict[str, Lately]:
    """Alias -> its last minutes; an alias that nobody asked for is left out, and shadows aren't counted."""
    e, o = exposures.c, outcomes.c
    since = (now() - timedelta(minutes=minutes)).isoformat(timespec="microseconds")
    counts = (o.request_id == e.request_id) & (o.kind == "thumb") & (o.state != "refused")
    thumb = (
        select(func.avg(o.value)).where(counts).correlate(exposures).scalar_subquery()
    )  # a join would read every outcome
    reported = select(o.value).where(o.request_id == e.request_id, points.is_reported()).correlate(exposures)
    newest = reported.order_by(o.id.desc()).limit(1).scalar_subquery()
    is_reported: ColumnElement[bool] = e.reward.is_(None)
    if judged := points.judged(connection):  # an empty list would be one more table to read
        is_reported &= func.coalesce(e.rollout_id, "").not_in(judged)
    shown = select(
        e.alias,
        case((e.status == "error", 1.0), (e.status == "ok", 0.0)).label("is_error"),
        case((e.status == "ok", e.latency_s)).label("latency_s"),
        case((func.abs(e.reward) <= points.MOST, e.reward), (is_reported, newest)).label("reward"),
        thumb.label("thumb"),
    ).where(e.at >= since, e.alias.is_not(None), e.rule != "shadow")
    s = shown.subquery().c
    told = (func.avg(s.is_error), func.avg(s.latency_s), func.avg(s.thumb), func.count(s.thumb))
    rewards = (func.avg(s.reward), func.count(s.reward))
    rows = connection.execute(select(s.alias, func.count(), *told, *rewards).group_by(s.alias))
    return {alias: Lately(n, n / minutes, *figures) for alias, n, *figures in rows}
