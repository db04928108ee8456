"""Selective prediction: how often a reward is right where it is sure, and what abstaining where it isn't would buy.

A margin is the score of the reply that people preferred minus the other's; its sign says whether the reward chose it too, and the
reward's confidence in its own choice is sigmoid(|margin|), whichever that is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.measures.intervals import Interval
from rlhf.measures.ranking import as_numbers, hits, sigmoid

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Above:
    """The pairs whose confidence is at least `confidence`: how many of n, how many right (a margin of 0 is half a hit), and the
    exact interval of the share that is right. n_above 0: precision None, interval 0 to 1."""

    confidence: float
    n: int
    n_above: int
    n_right: float
    precision: float | None
    interval: Interval

    @property
    def coverage(self) -> float:
        return self.n_above / self.n


@dataclass(frozen=True, slots=True)
class Kept:
    """A point of the risk-coverage curve: of the surest `coverage` of all pairs, `risk` is the share that is wrong; `margin` is the
    smallest |margin| among them."""

    coverage: float
    risk: float
    margin: float


def precision_above(margins_N: ArrayLike, confidence: float, level: float = 0.95) -> Above:
    """Precision and coverage at a confidence in [0.5, 1) that was chosen before the pairs were looked at.

    Raises ValueError on another confidence, and on no margins.
    """
    if not 0.5 <= confidence < 1:
        raise ValueError(f"confidence = {confidence}; wanted 0.5 to below 1")
    margins = as_numbers(margins_N, "margins")
    own = margins[sigmoid(np.abs(margins)) >= confidence]
    n_right = float(hits(own).sum())
    share = n_right / len(own) if len(own) else None
    return Above(confidence, len(margins), len(own), n_right, share, clopper_pearson(n_right, len(own), level))


def clopper_pearson(successes: float, n: int, level: float = 0.95) -> Interval:
    """Exact binomial interval (Clopper & Pearson 1934): it covers with at least `level` whatever the share is. Halves, of ties, are
    counted against either end. n = 0 gives [0, 1]. Assumes independent trials."""
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}; wanted 0 <= successes <= n")
    from scipy.stats import beta

    tail, fewest, most = (1 - level) / 2, int(np.floor(successes)), int(np.ceil(successes))
    low = 0.0 if fewest == 0 else float(beta.ppf(tail, fewest, n - fewest + 1))
    high = 1.0 if most == n else float(beta.ppf(1 - tail, most + 1, n - most))
    return Interval(low, high, level, "exact (Clopper-Pearson)")


def risk_coverage(margins_N: ArrayLike) -> tuple[Floats, Floats]:
    """(N,) coverages k / N and (N,) risks: the share of errors among the k surest pairs (El-Yaniv & Wiener 2010).

    Pairs of one |margin| are taken in random order, in expectation: each of them has their mean error. Raises ValueError on none.
    """
    margins = as_numbers(margins_N, "margins")
    order = np.argsort(-np.abs(margins), kind="stable")
    sure, errors = np.abs(margins)[order], 1.0 - hits(margins)[order]
    _, first, counts = np.unique(-sure, return_index=True, return_counts=True)
    means = np.add.reduceat(errors, first) / counts
    ranks = np.arange(1, len(margins) + 1)
    return ranks / len(margins), np.cumsum(np.repeat(means, counts)) / ranks


def aurc(margins_N: ArrayLike) -> float:
    """Area under the risk-coverage curve: the mean of its risks (Geifman, Uziel & El-Yaniv 2019). Where being sure tells nothing it
    is the error rate; the less the better."""
    return float(np.mean(risk_coverage(margins_N)[1]))


def curve(margins_N: ArrayLike, n_points: int = 20) -> tuple[Kept, ...]:
    """The risk-coverage curve at up to n_points even coverages, the last being all pairs."""
    margins = as_numbers(margins_N, "margins")
    coverages, risks = risk_coverage(margins)
    sure = np.sort(np.abs(margins))[::-1]
    n = len(margins)
    ends = sorted({max(1, round(n * point / n_points)) for point in range(1, n_points + 1)})
    return tuple(Kept(float(coverages[k - 1]), float(risks[k - 1]), float(sure[k - 1])) for k in ends)
