"""Estimates: a figure with its number of pairs, its interval and the method that made it, as the reports hold it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.evaluation.scored import ScoredPair
from rlhf.measures import intervals

Floats = NDArray[np.float64]
LEVEL, N_BOOT, N_BOOT_SLOW, MIN_SHOWN = 0.95, 2000, 500, 30
_DECIMALS = 6  # beyond what a score is good for (1e-4), so that figures compare as text
NO_INTERVAL = "no interval: all pairs are of one group"
TOO_FEW = f"no interval: fewer than {intervals.LEAST_GROUPS} groups"
ALL_ALIKE = "no interval: all resamples are alike"


def coined(pairs: Sequence[ScoredPair]) -> Floats:
    """(N,) margins, an unscored pair's taken as 0."""
    return np.array([p.margin or 0.0 for p in pairs], dtype=np.float64)


def mean(
    values: Floats, groups: Sequence[str] | NDArray[Any], seed: int, *, share: bool = False, level: float = LEVEL
) -> dict[str, Any]:
    """A mean with its clustered interval. share: of values in [0, 1], see `intervals.share`."""
    if not len(values):
        return nothing()
    of = intervals.share if share else intervals.bootstrap
    interval = of(values, groups_N=groups, n_boot=N_BOOT, level=level, seed=seed)
    return estimate(float(np.mean(values)), interval, len(values))


def estimate(value: float, interval: intervals.Interval, n: int) -> dict[str, Any]:
    """A figure as the reports hold it; a degenerate interval is none."""
    if interval.is_degenerate:
        why = NO_INTERVAL if interval.is_of_one_group else TOO_FEW if interval.is_of_few_groups else ALL_ALIKE
        return {"value": value, "low": None, "high": None, "n": n, "level": None, "method": why}
    return {
        "value": value,
        "low": interval.low,
        "high": interval.high,
        "n": n,
        "level": interval.level,
        "method": interval.method,
    }


def nothing() -> dict[str, Any]:
    """A figure of no pairs."""
    return {"value": None, "low": None, "high": None, "n": 0, "level": None, "method": "no pairs"}


def rounded(value: Any) -> Any:
    """The same with every float rounded, so that figures compare as text."""
    if isinstance(value, float | np.floating):
        return round(float(value), _DECIMALS) + 0.0  # no -0.0
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value
