"""Do probabilities mean what they say: expected calibration error, its interval, what a perfect scorer would get, and two tests.

Preference data is stored chosen first, so "the first reply wins" is always true and a scorer that says 1.0 looks
perfectly calibrated. `orient` draws a side for each pair first; no figure here means anything without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.ids import chance
from rlhf.measures.intervals import Interval, bootstrap, wilson
from rlhf.measures.ranking import as_numbers, as_probabilities, check_same_length, sigmoid

Floats = NDArray[np.float64]
_CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a reliability plot: mean probability, share won with its 95 % Wilson interval, number of pairs."""

    p_mean: float
    won_rate: float
    n: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PerfectEce:
    """The ECE that chance alone gives a perfectly calibrated scorer: mean and 95th percentile of the simulation."""

    mean: float
    p95: float


@dataclass(frozen=True, slots=True)
class CalibrationTest:
    """statistic and p-value under perfect calibration; None where every probability is 0 or 1, and nothing can vary."""

    statistic: float | None
    p_value: float | None
    n: int


def one_vote(margins_N: ArrayLike, targets_N: ArrayLike, seed: int = 0) -> Floats:
    """(N,) score of the reply that one drawn vote chose minus the other's: what `orient` and the tests take.

    margins: score a - score b. targets: share of the votes for a (a tie is half a vote each), the chance that the drawn vote is
    for a. So an outcome is 0 or 1 and has the variance that ECE's yardstick and the tests assume, which a share has not.
    """
    margins, targets = as_numbers(margins_N, "margins"), as_probabilities(targets_N, "targets")
    check_same_length(margins, targets)
    generator = np.random.default_rng(chance(seed, "one vote").getrandbits(64))
    return np.where(generator.random(margins.size) < targets, margins, -margins)


def kolmogorov_smirnov(margins_N: ArrayLike) -> CalibrationTest:
    """Cumulative differences between outcomes and probabilities, the least sure pairs first: the largest against a Brownian
    motion's (Arrieta-Ibarra et al. 2022; MAPIE's). No bins, and power against any shape of miscalibration.

    margins: as for `orient`. Each pair is seen from the side of the scorer's own choice, P = sigmoid(|margin|), so no orientation
    is drawn. Assumes independent pairs: where pairs share prompts and errors it rejects a calibrated scorer too often, never the
    other way. The p-value is asymptotic (0.05 is 0.04 to 0.05 from some 100 pairs on).
    """
    from mapie.metrics.calibration import kolmogorov_smirnov_p_value, kolmogorov_smirnov_statistic

    p, won = _by_choice(margins_N)
    if not (p * (1.0 - p)).sum() > 0:
        return CalibrationTest(None, None, p.size)
    statistic = float(kolmogorov_smirnov_statistic(won, p))
    return CalibrationTest(statistic, min(1.0, max(0.0, float(kolmogorov_smirnov_p_value(won, p)))), p.size)


def spiegelhalter(margins_N: ArrayLike) -> CalibrationTest:
    """z of the Brier score against its expectation under the probabilities (Spiegelhalter 1986; MAPIE's statistic): above 0 is
    too sure, below 0 not sure enough, which is what a temperature mends. Blind to what leaves the Brier score alone.

    margins, assumptions: as for `kolmogorov_smirnov`. Two-sided; MAPIE's own p-value is one-sided and takes a scorer that isn't
    sure enough for perfect.
    """
    from mapie.metrics.calibration import spiegelhalter_statistic

    p, won = _by_choice(margins_N)
    if not ((1.0 - 2.0 * p) ** 2 * p * (1.0 - p)).sum() > 0:
        return CalibrationTest(None, None, p.size)
    z = float(spiegelhalter_statistic(won, p))
    return CalibrationTest(z, 2.0 * NormalDist().cdf(-abs(z)), p.size)


def orient(margins_N: ArrayLike, seed: int = 0) -> tuple[Floats, Floats]:
    """Draw for each pair which reply is called A: (P(A wins), 1.0 where A was the preferred reply else 0.0), each (N,).

    margins: score of the preferred reply minus the other's. P(A wins) = sigmoid(margin), or sigmoid(-margin) where
    turned.
    """
    margins = as_numbers(margins_N, "margins")
    generator = np.random.default_rng(chance(seed, "orient").getrandbits(64))
    a_won = generator.integers(0, 2, size=margins.size).astype(np.float64)
    turned = np.where(a_won > 0, margins, -margins)
    return sigmoid(turned), a_won


def ece(p_N: ArrayLike, won_N: ArrayLike, n_bins: int = 15) -> float:
    """Expected calibration error over equal-mass bins: sum_b (n_b / N) |mean won_b - mean p_b| (Naeini et al. 2015;
    equal mass as in Nguyen & O'Connor 2015). Equal probabilities share a bin, so the order of the pairs doesn't matter.

    Biased upwards, the more the smaller N / n_bins is: read it beside `ece_if_perfect`.
    """
    p, won = _checked(p_N, won_N)
    starts, order = _bins(p, n_bins)
    gaps = np.add.reduceat((won - p)[order], starts)
    return float(np.abs(gaps).sum() / p.size)


def reliability(p_N: ArrayLike, won_N: ArrayLike, n_bins: int = 15) -> tuple[Bin, ...]:
    """The bins of `ece` in rising p: what a reliability plot shows."""
    p, won = _checked(p_N, won_N)
    starts, order = _bins(p, n_bins)
    sizes = np.diff([*starts, p.size])
    p_sums, won_sums = np.add.reduceat(p[order], starts), np.add.reduceat(won[order], starts)
    bins = []
    for p_sum, won_sum, n in zip(p_sums, won_sums, sizes, strict=True):
        interval = wilson(min(float(won_sum), float(n)), int(n))
        bins.append(Bin(float(p_sum / n), float(won_sum / n), int(n), interval.low, interval.high))
    return tuple(bins)


def reliability_rows(p_N: ArrayLike, won_N: ArrayLike, n_bins: int = 15) -> list[dict[str, float]]:
    """`reliability` as reports hold it, each bin with the band in which 95 of 100 perfectly calibrated scorers' share lies."""
    from scipy.stats import binom

    return [
        {
            "predicted": b.p_mean,
            "observed": b.won_rate,
            "n": b.n,
            "low": b.low,
            "high": b.high,
            "band_low": float(binom.ppf(0.025, b.n, b.p_mean)) / b.n,
            "band_high": float(binom.ppf(0.975, b.n, b.p_mean)) / b.n,
        }
        for b in reliability(p_N, won_N, n_bins)
    ]


def ece_interval(
    p_N: ArrayLike,
    won_N: ArrayLike,
    n_bins: int = 15,
    *,
    groups_N: ArrayLike | None = None,
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of `ece` over pairs (or groups), shifted by its own bias: resampling adds noise, noise adds
    ECE, and unshifted the interval may lie above the figure itself. No test of perfect calibration: that is
    `ece_if_perfect`."""
    p, won = _checked(p_N, won_N)
    both = np.stack([p, won], axis=1)
    drawn: list[float] = []

    def statistic(rows: Floats) -> float:
        drawn.append(ece(rows[:, 0], rows[:, 1], n_bins))
        return drawn[-1]

    interval = bootstrap(both, statistic, groups_N=groups_N, n_boot=n_boot, level=level, seed=seed)
    if interval.is_degenerate:
        return interval
    bias = float(np.mean(drawn)) - ece(p, won, n_bins)
    return Interval(max(0.0, interval.low - bias), interval.high - bias, level, f"{interval.method}, bias-shifted")


def ece_if_perfect(p_N: ArrayLike, n_bins: int = 15, seed: int = 0, n_draws: int = 1000) -> PerfectEce:
    """Simulate won ~ Bernoulli(p) and measure `ece` each time: an observed ECE below `p95` is no evidence of
    miscalibration (consistency resampling, Bröcker & Smith 2007)."""
    p = as_probabilities(p_N, "p")
    starts, order = _bins(p, n_bins)
    p = p[order]
    generator = np.random.default_rng(chance(seed, "ece_if_perfect").getrandbits(64))
    found = np.empty(n_draws)
    step = max(1, _CELLS_AT_ONCE // p.size)
    for start in range(0, n_draws, step):
        won = generator.random((min(step, n_draws - start), p.size)) < p
        gaps = np.add.reduceat(won - p, starts, axis=1)
        found[start : start + len(won)] = np.abs(gaps).sum(axis=1) / p.size
    return PerfectEce(float(found.mean()), float(np.quantile(found, 0.95)))


def _by_choice(margins_N: ArrayLike) -> tuple[Floats, Floats]:
    """P that the scorer's choice is right, and whether it was. A margin of 0 chooses neither: every other one counts as right."""
    margins = as_numbers(margins_N, "margins")
    won = (margins > 0).astype(np.float64)
    undecided = np.flatnonzero(margins == 0)
    won[undecided[::2]] = 1.0
    return sigmoid(np.abs(margins)), won


def _bins(p: Floats, n_bins: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Starts of the bins in rising p, and the order that sorts p. A run of equal p is never cut."""
    if n_bins < 1:
        raise ValueError(f"n_bins = {n_bins}; wanted at least 1")
    order = np.argsort(p, kind="stable")
    cuts = (np.arange(min(n_bins, p.size)) * p.size) // min(n_bins, p.size)
    starts = np.unique(np.searchsorted(p[order], p[order][cuts], side="left"))
    return starts, order


def _checked(p_N: ArrayLike, won_N: ArrayLike) -> tuple[Floats, Floats]:
    p, won = as_probabilities(p_N, "p"), as_probabilities(won_N, "won")
    check_same_length(p, won)
    return p, won
