"""What a rollout's arms did, from its exposures and outcomes: figures with intervals for people, rows for the guards.

Compared is only what chance assigned: rows whose arm a toggle gave, or that the audience left out, are counted and no more.
Erasure takes words and leaves these rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, func, select

from rlhf.measures import intervals
from rlhf.serving import log, points
from rlhf.serving.log import Rollout
from rlhf.store.tables import effects, exposures, outcomes

LEVEL = 0.95
_BOOT = 400  # resamples of an interval: a status is looked at often
_MANY = 20_000  # rows beyond which a share's and a mean's interval is the normal one over units


@dataclass(frozen=True, slots=True)
class Served:
    """One reply as the figures see it. unit: the request itself where no unit was said. thumb, reward: None = not told.
    propensity: as it was logged, the chance of the arm."""

    request_id: str
    at: str
    seq: int
    arm: str
    rule: str
    unit: str
    status: str
    latency_s: float | None
    refusal: int | None
    length_chars: int | None
    reward: float | None
    shadow_of: str | None
    thumb: float | None = None
    thumb_at: str | None = None
    propensity: float = 1.0


def served(connection: Connection, rollout: Rollout) -> list[Served]:
    """Every reply of the rollout, in the order of time, with the thumb that came for it first."""
    return replies(connection, exposures.c.rollout_id == rollout.id)


def earlier(connection: Connection, rollout: Rollout) -> list[Served]:
    """Every reply that its alias gave and showed before the rollout began: what its users were like before. Left out is what a
    rollout of the same salt drew, whose arms had the same users: that past would know the arm."""
    e = exposures.c
    drawn_alike = e.rollout_id.in_(log.of_same_draw(connection, rollout)) & (e.rule == "weights")
    before = (e.alias == rollout.alias, e.at < rollout.started_at, e.rule != "shadow")
    return replies(connection, *before, e.rollout_id.is_(None) | ~drawn_alike)


def replies(connection: Connection, *where: ColumnElement[bool]) -> list[Served]:
    """Replies of which all this holds, in the order of time."""
    e = exposures.c
    columns = (e.request_id, e.at, e.rollout_seq, e.arm, e.rule, e.unit, e.status, e.latency_s, e.refusal)
    query = select(*columns, e.length_chars, e.reward, e.shadow_of, e.propensity, e.rollout_id).where(*where)
    thumbs, rewards = _told(connection, *where)
    judged = points.judged(connection)
    rows = []
    for row in connection.execute(query.order_by(e.at, e.request_id)):
        request_id, at, seq, arm, rule, unit, status, latency_s, refusal, length, own, shadow_of, propensity, of = row
        reward = points.reward_of(own, rewards.get(request_id), is_judged=of in judged)
        thumb, thumb_at = thumbs.get(request_id, (None, None))
        rows.append(
            Served(
                request_id, at, seq, arm, rule, unit or request_id, status, latency_s, refusal, length, reward, shadow_of,
                thumb, thumb_at, propensity,
            )
        )  # fmt: skip
    return rows


def compared(rows: Iterable[Served]) -> list[Served]:
    """Those whose arm chance gave, shadows too."""
    return [row for row in rows if row.rule in ("weights", "shadow")]


def figures(rollout: Rollout, rows: Sequence[Served]) -> dict[str, dict[str, Any]]:
    """By arm: n and units, error rate, latency (p50, p95), refusals, length, satisfaction and reward, each with its n and interval;
    None where nothing was told. Intervals are of this one look at 95 %: shares and means by cluster bootstrap over units, a
    share's by Wilson over units where that has no width, quantiles by order statistics; low and high are None where so few rows
    tell none. Who looks until one pleases wants the guards' verdicts.
    """
    chosen = compared(rows)
    return {arm: _of_arm([row for row in chosen if row.arm == arm], rollout, arm, rows) for arm in rollout.arms}


def _of_arm(mine: list[Served], rollout: Rollout, arm: str, rows: Sequence[Served]) -> dict[str, Any]:
    answered = [row for row in mine if row.status in ("ok", "error")]
    fine = [row for row in mine if row.status == "ok"]
    latencies = sorted(row.latency_s for row in fine if row.latency_s is not None)
    return {
        "digest": rollout.arms[arm],
        "share": rollout.allocation.weights.get(arm, 0) / 100,
        "n": len(mine),
        "units": len({row.unit for row in mine}),
        "toggled": sum(row.rule == "toggle" and row.arm == arm for row in rows),
        "error_rate": _mean(answered, lambda row: float(row.status == "error"), is_share=True),
        "latency_p50": _quantile(latencies, 0.5),
        "latency_p95": _quantile(latencies, 0.95),
        "refusal": _mean(fine, lambda row: row.refusal, is_share=True),
        "reply_length": _mean(fine, lambda row: row.length_chars),
        "satisfaction": _mean(fine, lambda row: row.thumb, is_share=True),
        "reward": _mean(fine, lambda row: row.reward),
    }


def time_to_effect(connection: Connection, rollout: Rollout) -> dict[str, Any] | None:
    """How long the rollout's and its alias's changes took to be in force, over routers: n, p50_s, p99_s, max_s; None before any."""
    query = select(effects.c.seconds).where(
        (effects.c.subject == rollout.id) | ((effects.c.subject == rollout.alias) & (effects.c.seq > rollout.alias_seq))
    )
    seconds = np.array(connection.execute(query).scalars().all())
    if not seconds.size:
        return None
    p50, p99 = np.quantile(seconds, [0.5, 0.99])
    return {"n": int(seconds.size), "p50_s": float(p50), "p99_s": float(p99), "max_s": float(seconds.max())}


def counts(connection: Connection, rollout: Rollout) -> dict[str, int]:
    """Units by arm that chance assigned, since the last entry that changed the shares; cheap enough for every tick."""
    e = exposures.c
    who = func.count(func.distinct(func.coalesce(e.unit, e.request_id)))
    query = select(e.arm, who).where(e.rollout_id == rollout.id, e.rule == "weights", e.at >= rollout.stage_at)
    return {row[0]: row[1] for row in connection.execute(query.group_by(e.arm))}


def shares_by_entry(connection: Connection, rollout: Rollout) -> dict[int, dict[str, float]]:
    """Entry of the rollout -> share of each arm, in [0, 1]."""
    by_entry = log.weights_by_entry(connection, rollout.id)
    return {seq: {arm: n / 10_000 for arm, n in weights.items()} for seq, weights in by_entry.items()}


def _told(connection: Connection, *where: ColumnElement[bool]) -> tuple[dict[str, tuple[float, str]], dict[str, float]]:
    """Thumbs (the first of a request) and reported rewards (the last), by request; refused ones aren't read."""
    joined = outcomes.join(exposures, exposures.c.request_id == outcomes.c.request_id)
    o = outcomes.c
    is_thumb = (o.kind == "thumb") & (o.state != "refused") & o.value.is_not(None)
    query = (
        select(o.request_id, o.kind, o.value, o.at)
        .select_from(joined)
        .where(*where, is_thumb | points.is_reported())
        .order_by(o.at, o.id)
    )
    thumbs: dict[str, tuple[float, str]] = {}
    rewards: dict[str, float] = {}
    for request_id, kind, value, at in connection.execute(query):
        if kind == "thumb":
            thumbs.setdefault(request_id, (value, at))
        else:
            rewards[request_id] = value
    return thumbs, rewards


def _mean(
    rows: Sequence[Served], value_of: Callable[[Served], float | None], *, is_share: bool = False
) -> dict[str, Any] | None:
    told = [(float(value), row.unit) for row in rows if (value := value_of(row)) is not None]
    if not told:
        return None
    values, units = np.array([value for value, _ in told]), [unit for _, unit in told]
    mean, n_units = float(values.mean()), len(set(units))
    if not is_share and n_units == 1:
        return {"value": mean, "n": len(values), **_none("one unit says nothing of others")}
    if not is_share and values.min() == values.max():
        return {"value": mean, "n": len(values), **_none("all have the same value, which says nothing of others")}
    if n_units == 1 or values.min() == values.max():
        interval = intervals.wilson(mean * n_units, n_units, LEVEL)
    elif len(values) > _MANY:
        interval = _normal(values, units)
    else:
        interval = (intervals.share if is_share else intervals.bootstrap)(
            values, groups_N=np.array(units), n_boot=_BOOT, level=LEVEL
        )
    return {"value": mean, "n": len(values), **interval.as_json()}


def _none(why: str) -> dict[str, Any]:
    return {"low": None, "high": None, "level": LEVEL, "method": why}


def _normal(values_N: np.ndarray[Any, Any], units: Sequence[str]) -> intervals.Interval:
    """Mean ± 1.96 standard errors over units (linearised: sums of deviations by unit)."""
    codes = np.unique(np.array(units), return_inverse=True)[1]
    half = 1.96 * intervals.linearised(values_N, np.ones(len(values_N)), codes)
    mean = float(values_N.mean())
    return intervals.Interval(mean - half, mean + half, LEVEL, f"normal, over {int(codes.max()) + 1} units")


def _quantile(sorted_N: Sequence[float], q: float) -> dict[str, Any] | None:
    """The quantile, and the order statistics between which the true one lies: ranks nq ± 1.96 sqrt(nq(1-q)) (independent rows).
    No interval where even the least and the greatest row hold it between them in less than 95 %: 1 - q^n - (1-q)^n (Wilks 1941)."""
    n = len(sorted_N)
    if not n:
        return None
    value = sorted_N[min(n - 1, math.floor(n * q))]
    if 1 - q**n - (1 - q) ** n < LEVEL:
        return {"value": value, "n": n, **_none("too few rows for order statistics")}
    half = 1.96 * math.sqrt(n * q * (1 - q))
    low, high = max(0, math.floor(n * q - half)), min(n - 1, math.ceil(n * q + half))
    return {
        "value": value, "n": n, "low": sorted_N[low], "high": sorted_N[high], "level": LEVEL, "method": "order statistics"
    }  # fmt: skip


def by_request(rows: Iterable[Served]) -> Mapping[str, Served]:
    return {row.request_id: row for row in rows}
