"""How sure a figure is: Wilson's interval for a share, the (cluster) bootstrap for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.ids import chance

Floats = NDArray[np.float64]
MANY_GROUPS = 20_000  # beyond so many `ratio` is the normal interval: a bootstrap would cost much and say the same
LEAST_GROUPS = 5  # of fewer a bootstrap can't hold 95 %: all of four lie on one side of the truth in an eighth of cases
_ONE_GROUP, _FEW = ", degenerate: one group", f", degenerate: fewer than {LEAST_GROUPS} groups"
_ALIKE = ", degenerate: all resamples alike"
_ROUNDING = 1e-12  # what sums of equal values may differ by
_CELLS_AT_ONCE = 4_000_000  # 32 MB of float64 while means are resampled


@dataclass(frozen=True, slots=True)
class Interval:
    """low <= high, at `level` (0.95 = 95 %); `method` says how it was made and what it assumes."""

    low: float
    high: float
    level: float
    method: str

    @property
    def is_degenerate(self) -> bool:
        """Made of fewer than `LEAST_GROUPS` groups, or of resamples that are all alike: nobody knows how sure the figure is."""
        return self.method.endswith((_ONE_GROUP, _FEW, _ALIKE))

    @property
    def is_of_one_group(self) -> bool:
        return self.method.endswith(_ONE_GROUP)

    @property
    def is_of_few_groups(self) -> bool:
        return self.method.endswith((_ONE_GROUP, _FEW))

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def as_json(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "level": self.level, "method": self.method}


def wilson(successes: float, n: int, level: float = 0.95) -> Interval:
    """Score interval of a share (Wilson 1927): (k + z²/2 ± z sqrt(k(n-k)/n + z²/4)) / (n + z²).

    successes: may be fractional (ties count 0.5). Holds its level for small n and near 0 and 1, which k/n ± z·se
    doesn't. n = 0 gives [0, 1]: nothing is known. Assumes independent pairs; use `bootstrap` with groups where pairs
    share prompts.
    """
    _check_level(level)
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}; wanted 0 <= successes <= n")
    if n == 0:
        return Interval(0.0, 1.0, level, "wilson")
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre, scale = successes + z * z / 2, n + z * z
    half = z * math.sqrt(successes * (n - successes) / n + z * z / 4)
    share = successes / n  # rounding must not push the share itself out of its interval
    low, high = min((centre - half) / scale, share), max((centre + half) / scale, share)
    return Interval(max(0.0, low), min(1.0, high), level, "wilson")


def bootstrap(
    values_N: ArrayLike,
    statistic: Callable[[NDArray[Any]], float] = np.mean,
    *,
    groups_N: ArrayLike | None = None,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of `statistic` (Efron & Tibshirani 1993, ch. 13), its percentiles expanded for few groups
    (`tail`); whole groups are drawn where `groups_N` is given.

    values: (N,) or (N, K), resampled along the first axis; statistic: resampled array -> float (`np.mean` of (N,) is
    vectorised). groups: N labels of any kind; pairs of one opening turn or one labeler aren't independent, and drawing
    them singly makes the interval too narrow. Below `LEAST_GROUPS` groups, or where all resamples are alike, it
    `is_degenerate`. N = 0 raises ValueError.
    """
    _check_level(level)
    values = np.asarray(values_N)
    n = values.shape[0] if values.ndim else 0
    if n == 0:
        raise ValueError("no values: an interval of nothing is unknown")
    if n_boot < 1:
        raise ValueError(f"n_boot = {n_boot}; wanted at least 1")
    codes = np.arange(n) if groups_N is None else np.unique(np.asarray(groups_N), return_inverse=True)[1].reshape(-1)
    if codes.shape != (n,):
        raise ValueError(f"{codes.size} groups for {n} values")
    n_groups = int(codes.max()) + 1
    method = "bootstrap" if groups_N is None else f"cluster bootstrap over {n_groups} groups"
    if n_groups == 1:
        point = float(statistic(values))
        return Interval(point, point, level, f"{method}{_ONE_GROUP}")
    generator = np.random.default_rng(chance(seed, "bootstrap").getrandbits(64))
    if statistic is np.mean and values.ndim == 1:
        drawn = _resampled_ratios(values.astype(np.float64), np.ones(n), codes, n_boot, generator)
    else:
        drawn = _resampled(values, statistic, codes, n_groups, n_boot, generator)
    return _percentiles(drawn, level, method, n_groups)


def ratio(
    numerators_N: ArrayLike,
    denominators_N: ArrayLike,
    *,
    groups_N: ArrayLike | None = None,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Of sum(numerators) / sum(denominators), such as a weighted mean: the (cluster) bootstrap, which draws a row's two numbers
    together; from `MANY_GROUPS` groups on `linearised`. denominators above 0. Degenerate as `bootstrap`."""
    _check_level(level)
    above, below = np.asarray(numerators_N, dtype=np.float64), np.asarray(denominators_N, dtype=np.float64)
    if above.ndim != 1 or above.shape != below.shape or not above.size:
        raise ValueError(
            f"{above.shape} numerators for {below.shape} denominators; wanted as many of each, and one or more"
        )
    if not below.min() > 0:
        raise ValueError("a denominator is not above 0")
    n = above.size
    codes = np.arange(n) if groups_N is None else np.unique(np.asarray(groups_N), return_inverse=True)[1].reshape(-1)
    if codes.shape != (n,):
        raise ValueError(f"{codes.size} groups for {n} rows")
    n_groups = int(codes.max()) + 1
    value = float(above.sum() / below.sum())
    method = "bootstrap" if groups_N is None else f"cluster bootstrap over {n_groups} groups"
    if n_groups == 1:
        return Interval(value, value, level, f"{method}{_ONE_GROUP}")
    if n_groups > MANY_GROUPS:
        half = NormalDist().inv_cdf((1 + level) / 2) * linearised(above, below, codes)
        method = f"normal, over {n_groups} groups"
        alike = half <= _ROUNDING * max(1.0, abs(value))
        return Interval(value - half, value + half, level, f"{method}{_ALIKE}" if alike else method)
    generator = np.random.default_rng(chance(seed, "bootstrap").getrandbits(64))
    drawn = _resampled_ratios(above, below, codes, n_boot, generator)
    return _percentiles(drawn, level, method, n_groups)


def linearised(numerators_N: Floats, denominators_N: Floats, codes_N: NDArray[np.intp]) -> float:
    """Standard error of sum(numerators) / sum(denominators) over groups, by the delta method: sqrt(sum_g d_g²) / sum(denominators),
    where d_g is the group's sum of numerator - ratio * denominator. codes: each row's group, 0 to G - 1."""
    below = float(denominators_N.sum())
    deviations = np.bincount(codes_N, weights=numerators_N - numerators_N.sum() / below * denominators_N)
    return math.sqrt(float((deviations**2).sum())) / below


def share(
    values_N: ArrayLike,
    *,
    groups_N: ArrayLike | None = None,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """`bootstrap` of the mean of shares in [0, 1] (N,), such as `ranking.hits`. Where all resamples are alike it is
    Wilson's interval over the groups instead, for 30 of 30 right is not certainty; and so it is where each row is its own group
    and right or wrong, of which Wilson's holds for few rows too."""
    values = np.asarray(values_N, dtype=np.float64)
    n_groups = values.size if groups_N is None else np.unique(np.asarray(groups_N)).size
    if 1 < n_groups == values.size and bool(((values == 0) | (values == 1)).all()):
        return wilson(float(values.sum()), n_groups, level)
    interval = bootstrap(values, groups_N=groups_N, n_boot=n_boot, level=level, seed=seed)
    if not interval.method.endswith(_ALIKE):
        return interval
    found = wilson(min(float(values.mean()), 1.0) * n_groups, n_groups, level)
    return found if n_groups == values.size else replace(found, method=f"{found.method} over {n_groups} groups")


def tail(n_groups: int, level: float = 0.95) -> float:
    """The share of resamples left out on either side: of many groups (1 - level) / 2; of few less, for their resamples vary by
    (n - 1) / n too little, and as if the spread were known (expanded percentiles: Hesterberg 2015)."""
    from scipy.special import stdtrit

    wide = math.sqrt(n_groups / (n_groups - 1)) * float(stdtrit(n_groups - 1, (1 + level) / 2))
    return NormalDist().cdf(-wide)


def _percentiles(drawn: Floats, level: float, method: str, n_groups: int) -> Interval:
    beyond = tail(n_groups, level)
    low, high = (float(bound) for bound in np.quantile(drawn, [beyond, 1 - beyond]))
    if high - low <= _ROUNDING * max(1.0, abs(low)):
        method += _ALIKE
    elif n_groups < LEAST_GROUPS:
        method += _FEW
    return Interval(low, high, level, method)


def _resampled_ratios(
    numerators: Floats, denominators: Floats, codes: NDArray[np.intp], n_boot: int, generator: np.random.Generator
) -> Floats:
    """Ratios of sums of n_boot resamples, which need only both sums of each drawn group. A mean has ones below."""
    above, below = np.bincount(codes, weights=numerators), np.bincount(codes, weights=denominators)
    n_groups = len(above)
    ratios = np.empty(n_boot)
    step = max(1, _CELLS_AT_ONCE // n_groups)
    for start in range(0, n_boot, step):
        drawn = generator.integers(0, n_groups, size=(min(step, n_boot - start), n_groups))
        ratios[start : start + len(drawn)] = above[drawn].sum(axis=1) / below[drawn].sum(axis=1)
    return ratios


def _resampled(
    values: NDArray[Any],
    statistic: Callable[[NDArray[Any]], float],
    codes: NDArray[np.intp],
    n_groups: int,
    n_boot: int,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """The slow twin of `_resampled_ratios`, for any statistic: the same draws."""
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(codes, minlength=n_groups))[:-1])
    drawn = np.empty(n_boot)
    for turn in range(n_boot):
        chosen = generator.integers(0, n_groups, size=n_groups)
        rows = order[chosen] if n_groups == len(order) else np.concatenate([members[group] for group in chosen])
        drawn[turn] = statistic(values[rows])
    return drawn


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level = {level}; wanted between 0 and 1, such as 0.95")
