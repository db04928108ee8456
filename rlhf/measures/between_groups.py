"""Means of groups against each other: all differences (or ratios) with intervals that hold together, p-values, and the largest.

Rows come in clusters that are drawn together (an opening turn, a template), and a cluster may have rows in several groups. Every
comparison is studentised by its cluster-robust standard error and resampled by whole clusters, all comparisons in the same
resamples: the bootstrap-t (Efron & Tibshirani 1993, ch. 12), and for several at once the quantile of the largest |t| (Romano &
Wolf 2005), each |t| over its own 95 % quantile, so that a comparison whose few clusters make wild resamples widens its own
interval and not all the others' (Beran 1988). So who looks for the largest of many differences pays for the search. Percentile
intervals of a maximum wouldn't do: a resample's maximum lies above the data's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.ids import chance
from rlhf.measures.intervals import wilson

Floats = NDArray[np.float64]
Scale = Literal["difference", "ratio"]
_CELLS_AT_ONCE = 4_000_000  # 32 MB of float64 while clusters are drawn
_NOTHING = 1e-9  # a standard error that is so small beside its parts is rounding


@dataclass(frozen=True, slots=True)
class Sums:
    """Of C clusters and G groups: sums_CG of the values, counts_CG of the rows. floors_G: the least variance that a group's mean
    may be said to have (of shares: 30 of 30 right isn't certainty), else 0."""

    sums_CG: Floats
    counts_CG: Floats
    floors_G: Floats

    @property
    def means_G(self) -> Floats:
        means: Floats = self.sums_CG.sum(axis=0) / self.counts_CG.sum(axis=0)
        return means

    def beside(self, other: Sums) -> Sums:
        """Both sets of groups, over the same clusters."""
        return Sums(
            np.hstack([self.sums_CG, other.sums_CG]),
            np.hstack([self.counts_CG, other.counts_CG]),
            np.concatenate([self.floors_G, other.floors_G]),
        )


@dataclass(frozen=True, slots=True)
class Compared:
    """K comparisons, first group minus (or over) second. low_K, high_K: intervals that hold all together at `level`; p_K:
    two-sided, each by itself; largest: which is the furthest from 0 (from 1), and largest_low, largest_high: the interval of the
    true largest difference without its sign (of the true smallest ratio, the smaller mean over the larger)."""

    values_K: Floats
    low_K: Floats
    high_K: Floats
    p_K: Floats
    largest: int
    largest_low: float
    largest_high: float
    level: float
    method: str


def sums_of(
    values_N: ArrayLike,
    members_NG: ArrayLike,
    clusters_N: ArrayLike,
    n_clusters: int | None = None,
    *,
    share: bool = False,
) -> Sums:
    """Rows to `Sums`. members: whether a row is in a group; clusters: from 0; n_clusters: of all, None = as there are here. share:
    values within [0, 1].

    Raises ValueError on a group without rows.
    """
    values, members = np.asarray(values_N, dtype=np.float64), np.asarray(members_NG, dtype=bool)
    clusters = np.asarray(clusters_N)
    if members.ndim != 2 or not values.shape == clusters.shape == members.shape[:1]:
        raise ValueError(f"{values.shape} values, {members.shape} members, {clusters.shape} clusters")
    if not members.any(axis=0).all():
        raise ValueError("a group has no rows")
    size = int(clusters.max()) + 1 if n_clusters is None else n_clusters
    counts = np.stack([np.bincount(clusters[own], minlength=size) for own in members.T], axis=1)
    sums = np.stack([np.bincount(clusters[own], values[own], size) for own in members.T], axis=1)
    floors = np.array(
        [_floor(own[n > 0] / n[n > 0]) if share else 0.0 for own, n in zip(sums.T, counts.T, strict=True)]
    )
    return Sums(sums.astype(np.float64), counts.astype(np.float64), floors)


def compare(
    of: Sums,
    pairs: Sequence[tuple[int, int]],
    *,
    scale: Scale = "difference",
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Compared:
    """Groups of `of` by pairs of their numbers. Resamples in which a group doesn't appear say nothing of it.

    scale ratio: on the logarithms of the means, by the delta method; they must be above 0. Raises ValueError for that, on no pairs
    and below 2 clusters.
    """
    if not pairs or len(of.sums_CG) < 2:
        raise ValueError(f"{len(pairs)} comparisons over {len(of.sums_CG)} clusters; wanted 1 or more over 2 or more")
    if scale == "ratio" and not (of.means_G > 0).all():
        raise ValueError("a ratio of means that are not all above 0")
    first, second = np.array(pairs).T
    residuals = of.sums_CG - of.means_G * of.counts_CG
    n_clusters = len(residuals)
    values, errors = (part[0] for part in _differences(of, residuals, np.ones((1, n_clusters)), first, second, scale))
    observed = _studentised(values, errors)
    generator = np.random.default_rng(chance(seed, "between groups").getrandbits(64))
    beyond, told, drawn_t = np.zeros(len(pairs)), np.zeros(len(pairs)), []
    for weights in _resamples(n_clusters, n_boot, generator):
        drawn, drawn_errors = _differences(of, residuals, weights, first, second, scale)
        t = np.abs(_studentised(drawn - values, drawn_errors))
        beyond += (t >= np.abs(observed)).sum(axis=0)
        told += np.isfinite(drawn).sum(axis=0)
        drawn_t.append(np.where(np.isnan(t), 0.0, t))
    critical = _critical(np.concatenate(drawn_t), level)
    half = np.where(errors > 0, critical * np.maximum(errors, np.finfo(float).tiny), 0.0)
    low, high = values - half, values + half
    nearest = np.where((low <= 0) & (high >= 0), 0.0, np.minimum(np.abs(low), np.abs(high)))
    ends = float(nearest.max()), float(np.maximum(np.abs(low), np.abs(high)).max())
    method = f"bootstrap-t over {n_clusters} clusters, {n_boot} resamples"
    if len(pairs) > 1:
        method += f", simultaneous over {len(pairs)} comparisons (largest |t|)"
    p_values, largest = np.minimum((1 + beyond) / (1 + told), 1.0), int(np.abs(values).argmax())
    if scale == "ratio":
        values, low, high, ends = np.exp(values), np.exp(low), np.exp(high), (math.exp(-ends[1]), math.exp(-ends[0]))
    return Compared(values, low, high, p_values, largest, *ends, level, method)


def _critical(t_BK: Floats, level: float) -> Floats:
    """(K,) bounds that a resample's |t| keep all together with a chance of `level`, none below the normal one: groups that are
    always right have no spread to resample."""
    normal = NormalDist().inv_cdf((1 + level) / 2)
    own = np.maximum(np.quantile(t_BK, level, axis=0, method="higher"), normal)
    own = np.where(np.isfinite(own), own, normal)
    bounds: Floats = own * max(1.0, float(np.quantile((t_BK / own).max(axis=1), level, method="higher")))
    return bounds


def _floor(means_C: Floats) -> float:
    """Of a group's clusters: the variance whose normal interval is as wide as Wilson's of n right of n, so far as they are wholly
    right, or wholly wrong. Clusters of many rows, right in some, show their spread themselves."""
    n = len(means_C)
    alike = max(float((means_C == 1).mean()), float((means_C == 0).mean()))
    return (alike * (1 - wilson(n, n).low) / (2 * 1.96)) ** 2


def _resamples(n_clusters: int, n_boot: int, generator: np.random.Generator) -> Iterator[Floats]:
    """(B, C) how often each cluster is drawn, some resamples at a time."""
    step = max(1, _CELLS_AT_ONCE // n_clusters)
    for start in range(0, n_boot, step):
        size = min(step, n_boot - start)
        drawn = generator.integers(0, n_clusters, size=(size, n_clusters)) + n_clusters * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n_clusters).reshape(size, n_clusters).astype(np.float64)


def _differences(
    of: Sums, residuals: Floats, weights: Floats, first: NDArray[np.intp], second: NDArray[np.intp], scale: Scale
) -> tuple[Floats, Floats]:
    """(B, K) differences of (log) means in each resample, NaN where a group is absent, and their standard errors: linearised, the
    sum over clusters of the square of a cluster's part. In deviations from the data's own means, which keeps digits."""
    counts = of.counts_CG
    with np.errstate(divide="ignore", invalid="ignore"):
        n = weights @ counts
        moved = (weights @ residuals) / n
        crossed = -2 * moved * (weights @ (residuals * counts)) + moved**2 * (weights @ counts**2)
        variances = np.maximum((weights @ residuals**2 + crossed) / n**2, of.floors_G)
        means = of.means_G + moved
        if scale == "ratio":
            means = np.where(means > 0, means, np.nan)
            variances = variances / means**2
        parts = variances[:, first] + variances[:, second]
        squares = parts - 2 * _covariances(of, residuals, weights, first, second, moved, n, means, scale)
        errors = np.sqrt(np.where(squares > _NOTHING**2 * parts, squares, 0.0))
        placed = np.log(means) if scale == "ratio" else means
    return placed[:, first] - placed[:, second], errors


def _covariances(
    of: Sums,
    residuals: Floats,
    weights: Floats,
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    moved: Floats,
    n: Floats,
    means: Floats,
    scale: Scale,
) -> Floats:
    """(B, K); 0 where no cluster has rows in both groups."""
    found = np.zeros((len(weights), len(first)))
    there = (of.counts_CG > 0).astype(np.float64)
    for k in np.flatnonzero((there.T @ there)[first, second]):
        i, j = first[k], second[k]
        r_i, r_j, n_i, n_j = residuals[:, i], residuals[:, j], of.counts_CG[:, i], of.counts_CG[:, j]
        rr, rn, nr, nn = (weights @ np.stack([r_i * r_j, r_i * n_j, n_i * r_j, n_i * n_j], axis=1)).T
        both = rr - moved[:, j] * rn - moved[:, i] * nr + moved[:, i] * moved[:, j] * nn
        found[:, k] = both / (n[:, i] * n[:, j])
        if scale == "ratio":
            found[:, k] /= means[:, i] * means[:, j]
    return found


def _studentised(differences: Floats, errors: Floats) -> Floats:
    """t; without an error 0 where there is no difference either, and else beyond every bound."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = differences / errors
    without = (errors == 0) & ~np.isnan(differences)
    beyond: Floats = np.where(np.abs(differences) < _NOTHING, 0.0, np.copysign(np.inf, differences))
    found: Floats = np.where(without, beyond, t)
    return found
