"""How well scores order pairs: accuracy, log-loss, Brier score; correlations.

A margin is the score of the reply that people preferred minus the score of the other, in nats of the Bradley-Terry
model: P(preferred wins) = sigmoid(margin) (Bradley & Terry 1952).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def hits(margins_N: ArrayLike) -> Floats:
    """(N,): 1 where a pair is ordered as people ordered it, 0 where not, 0.5 at a margin of exactly 0. N may be 0."""
    margins = np.asarray(margins_N, dtype=np.float64)
    return (margins > 0) + 0.5 * (margins == 0)


def accuracy(margins_N: ArrayLike) -> float:
    """Share of pairs that are ordered as people ordered them: mean of `hits`. Raises ValueError on no margins, or on
    NaN."""
    return float(np.mean(hits(as_numbers(margins_N, "margins"))))


def log_losses(margins_N: ArrayLike, targets_N: ArrayLike | None = None) -> Floats:
    """(N,) negative log-likelihoods of the preferences, nats: t softplus(-m) + (1 - t) softplus(m).

    targets: in [0, 1], the share of labelers on the side that the margin favours when it is positive; a tie is 0.5;
    None = all 1. Their mean is never below the targets' own entropy.
    """
    margins = np.asarray(margins_N, dtype=np.float64)
    if targets_N is None:
        return np.logaddexp(0.0, -margins)
    targets = as_probabilities(targets_N, "targets")
    check_same_length(margins, targets)
    return targets * np.logaddexp(0.0, -margins) + (1.0 - targets) * np.logaddexp(0.0, margins)


def log_loss(margins_N: ArrayLike) -> float:
    """Mean of `log_losses`, nats: 0.693 is what a coin gets. Raises ValueError on no margins, or on NaN."""
    return float(np.mean(log_losses(as_numbers(margins_N, "margins"))))


def squared_errors(margins_N: ArrayLike) -> Floats:
    """(N,) of (1 - P(preferred wins))^2; the mean is the Brier score (Brier 1950). 0.25 is what a coin gets."""
    return sigmoid(-np.asarray(margins_N, dtype=np.float64)) ** 2


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return np.exp(-np.logaddexp(0.0, -x))


def p_better(score: float, other: float) -> float:
    """P(the first reply is preferred) = sigmoid(score - other), for a reward of any kind."""
    return float(sigmoid(np.array([score - other], dtype=np.float64))[0])


def pearson(x_N: ArrayLike, y_N: ArrayLike) -> float:
    """Linear correlation, in [-1, 1]; 0.0 where either side doesn't vary (there is nothing to explain)."""
    x, y = as_numbers(x_N, "x"), as_numbers(y_N, "y")
    check_same_length(x, y)
    x, y = _standardised(x), _standardised(y)
    return float(np.clip(np.mean(x * y), -1.0, 1.0))


def spearman(x_N: ArrayLike, y_N: ArrayLike) -> float:
    """Rank correlation: Pearson's on average ranks (Spearman 1904); 0.0 where either side doesn't vary."""
    from scipy.stats import rankdata

    return pearson(rankdata(as_numbers(x_N, "x")), rankdata(as_numbers(y_N, "y")))


def as_numbers(values: ArrayLike, name: str) -> Floats:
    """A one-dimensional float64 array. Raises ValueError where it is empty, has more dimensions or holds NaN."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; wanted one dimension with at least one number")
    if np.isnan(array).any():
        raise ValueError(f"{name} holds NaN at {int(np.flatnonzero(np.isnan(array))[0])}")
    return array


def as_probabilities(values: ArrayLike, name: str) -> Floats:
    """`as_numbers`, and each in [0, 1]."""
    array = as_numbers(values, name)
    if array.min() < 0.0 or array.max() > 1.0:
        raise ValueError(f"{name} runs from {array.min()} to {array.max()}; wanted within [0, 1]")
    return array


def check_same_length(one: Floats, other: Floats) -> None:
    if one.shape != other.shape:
        raise ValueError(f"shapes differ: {one.shape} and {other.shape}")


def _standardised(x: Floats) -> Floats:
    """Mean 0, variance 1; zeros where x is constant. Scaled first, so that 1e300 squared stays finite."""
    biggest = np.abs(x).max()
    if biggest == 0.0 or x.min() == x.max():
        return np.zeros_like(x)
    x = x / biggest
    x = x - x.mean()
    spread = np.sqrt(np.mean(x**2))
    return x / spread if spread > 1e-15 else np.zeros_like(x)
