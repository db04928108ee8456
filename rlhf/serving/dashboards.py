"""Dashboards: how versions did in a window, by audience where asked, and the same over time. Read from the sums alone (`sums.py`).

Intervals are of this one look, at 95 %, over replies and not over users: a user who votes often counts often. To decide between two
arms read a rollout's guards, which hold under continuous looking. Latencies are known to a bin a third wide.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import Connection, func, select

from rlhf.ids import now
from rlhf.measures import intervals
from rlhf.serving.sums import BINS, EDGES_S, KEYS, MINUTES, NUMBERS
from rlhf.store.tables import served_sums

Window = Literal["hour", "day", "week", "month"]
By = Literal["version", "audience"]
LEVEL = 0.95
_Z = 1.959964


@dataclass(frozen=True, slots=True)
class _Span:
    length: timedelta
    point: int  # characters of a bucket's time that make a point of the series

    @property
    def minutes(self) -> float:
        return self.length.total_seconds() / 60


_SPANS: dict[str, _Span] = {
    "hour": _Span(timedelta(hours=1), 16),
    "day": _Span(timedelta(days=1), 13),
    "week": _Span(timedelta(days=7), 13),
    "month": _Span(timedelta(days=30), 10),
}


def read(connection: Connection, window: Window, by: By = "version") -> dict[str, Any]:
    """{"window", "by", "since", "at", "minutes", "rows"}; a row: {alias, digest, cohort, figures, series}. cohort None unless `by`
    is audience; alias and digest '' as in the table. By alias, then the busiest first. A series' points: {at, n, error_rate,
    latency_p95, satisfaction, reward}, None where nothing was told."""
    span, at = _SPANS[window], now()
    since = (at - span.length).isoformat()[:16]
    points: defaultdict[tuple[str, ...], dict[str, dict[str, float]]] = defaultdict(dict)
    for key, point, numbers in _sums(connection, since, span.point, by):
        points[key][point] = numbers
    rows = [_row(key, series, span, by) for key, series in points.items()]
    rows.sort(key=lambda row: (row["alias"], -row["figures"]["n"], row["digest"], row["cohort"] or ""))
    return {
        "window": window,
        "by": by,
        "since": since,
        "at": at.isoformat(timespec="seconds"),
        "minutes": MINUTES,
        "rows": rows,
    }


def _sums(
    connection: Connection, since: str, point: int, by: By
) -> Iterable[tuple[tuple[str, ...], str, dict[str, float]]]:
    s = served_sums.c
    keys = [s[name] for name in KEYS[1:] if name != "cohort" or by == "audience"]
    at = func.substr(s.bucket, 1, point)
    numbers = [func.sum(s[name]) for name in NUMBERS]
    query = select(*keys, at, *numbers).where(s.bucket >= since).group_by(*keys, at).order_by(at)
    for row in connection.execute(query):
        values = (float(value) if isinstance(value, float) else int(value) for value in row[len(keys) + 1 :])
        yield tuple(row[: len(keys)]), row[len(keys)], dict(zip(NUMBERS, values, strict=True))


def _row(key: tuple[str, ...], series: Mapping[str, Mapping[str, float]], span: _Span, by: By) -> dict[str, Any]:
    whole = {name: sum(numbers[name] for numbers in series.values()) for name in NUMBERS}
    return {
        "alias": key[0],
        "digest": key[1],
        "cohort": key[2] if by == "audience" else None,
        "figures": {"per_minute": whole["n"] / span.minutes, **figures(whole)},
        "series": [{"at": at, **_point(numbers)} for at, numbers in series.items()],
    }


def figures(sums: Mapping[str, float]) -> dict[str, Any]:
    """Of sums: n and, each with its n, interval and method or None, error_rate (of those that ended ok or in an error),
    latency_p50, latency_p95, satisfaction (share of thumbs up), refusal and reward."""
    return {
        "n": sums["n"],
        "shed": sums["shed"],
        "tokens_out": sums["tokens_out"],
        "error_rate": _share(sums["errors"], sums["ok"] + sums["errors"]),
        "latency_p50": quantile(sums, 0.5),
        "latency_p95": quantile(sums, 0.95),
        "satisfaction": _share(sums["thumbs_up"], sums["thumbs"]),
        "refusal": _share(sums["refusals"], sums["looked_at"]),
        "reward": _mean(sums["reward"], sums["reward_squared"], sums["rewards"]),
    }


def quantile(sums: Mapping[str, float], q: float) -> dict[str, Any] | None:
    """The q-quantile of the latency (s) between its bin's edges, log-linear inside; in the last bin its lower edge."""
    counts = [sums[name] for name in BINS]
    n = sum(counts)
    if not n:
        return None
    before, k = 0.0, 0
    while before + counts[k] < q * n:
        before += counts[k]
        k += 1
    high = EDGES_S[min(k, len(EDGES_S) - 1)]
    low = EDGES_S[k - 1] if k else EDGES_S[0] / 2
    value = min(high, low * (high / low) ** ((q * n - before) / counts[k])) if high > low else low
    return {"value": value, "n": n, "low": low if k else 0.0, "high": high, "method": "its bin's edges"}


def _share(successes: float, n: float) -> dict[str, Any] | None:
    if not n:
        return None
    return {"value": successes / n, "n": n, **intervals.wilson(successes, int(n), LEVEL).as_json()}


def _mean(total: float, squares: float, n: float) -> dict[str, Any] | None:
    if not n:
        return None
    mean = total / n
    found: dict[str, Any] = {"value": mean, "n": n, "level": LEVEL, "method": "normal, over replies"}
    if n < 2:
        return {**found, "low": None, "high": None, "method": "one reply says nothing of others"}
    half = _Z * math.sqrt(max(0.0, squares - n * mean * mean) / (n - 1) / n)
    return {**found, "low": mean - half, "high": mean + half}


def _point(sums: Mapping[str, float]) -> dict[str, Any]:
    told = figures(sums)
    lines = ("error_rate", "latency_p95", "satisfaction", "reward")
    return {"n": sums["n"], **{name: None if told[name] is None else told[name]["value"] for name in lines}}
