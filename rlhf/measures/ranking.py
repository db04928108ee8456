"""How well scores order pairs: accuracy, log-loss, Brier score, and what length alone explains.

A margin is the score of the reply that people preferred minus the score of the other, in nats of the Bradley-Terry
model: P(preferred wins) = sigmoid(margin) (Bradley & Terry 1952).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def accuracy(margins_N: ArrayLike) -> float:
    """Share of pairs that are ordered as people ordered them; a margin of exactly 0 counts 0.5.

    mean(1[m > 0] + 0.5 * 1[m = 0]). Raises ValueError on no margins, or on NaN.
    """
    margins = as_numbers(margins_N, "margins")
    return float(np.mean((margins > 0) + 0.5 * (margins == 0)))


def log_loss(margins_N: ArrayLike) -> float:
    """Mean negative log-likelihood of the preferences, nats: mean softplus(-m). 0.693 is what a coin gets."""
    return float(np.mean(np.logaddexp(0.0, -as_numbers(margins_N, "margins"))))


def soft_log_loss(margins_N: ArrayLike, targets_N: ArrayLike) -> float:
    """Cross-entropy against soft targets, nats: mean(t softplus(-m) + (1 - t) softplus(m)).

    targets: in [0, 1], the share of labelers on the side that the margin favours when it is positive; a tie is 0.5.
    Never below the targets' own entropy. Equals `log_loss` where every target is 1.
    """
    margins, targets = as_numbers(margins_N, "margins"), as_probabilities(targets_N, "targets")
    check_same_length(margins, targets)
    return float(np.mean(targets * np.logaddexp(0.0, -margins) + (1.0 - targets) * np.logaddexp(0.0, margins)))


def brier(p_N: ArrayLike, won_N: ArrayLike) -> float:
    """Mean squared error of probabilities: mean((p - won)^2), won in [0, 1] (Brier 1950). 0.25 is what a coin gets."""
    p, won = as_probabilities(p_N, "p"), as_probabilities(won_N, "won")
    check_same_length(p, won)
    return float(np.mean((p - won) ** 2))


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


def length_correlation(scores_N: ArrayLike, lengths_N: ArrayLike) -> float:
    """Spearman's correlation of scores (margins) with lengths (length differences): what length could explain."""
    return spearman(scores_N, lengths_N)


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
