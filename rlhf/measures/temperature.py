"""Temperature: the one number that a reward's scores are divided by so that its probabilities mean what they say.

P(a beats b) = sigmoid((score a - score b) / T). Dividing changes no order, so accuracy stays what it was, to the last pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.measures.folds import grouped_folds
from rlhf.measures.ranking import as_numbers, as_probabilities, check_same_length, log_losses

Floats = NDArray[np.float64]
PRIOR_SCALE = (
    0.3  # of log T's Cauchy: half of all rewards are held to be calibrated to a factor of 1.35 before a vote is seen
)
_LOG_LIMIT = math.log(1e4)
_STARTS = np.linspace(
    -_LOG_LIMIT, _LOG_LIMIT, 93
)  # steps of 0.2 in log T: between two of them there is one minimum at most


class NoTemperature(ValueError):
    """The scores point away from what people chose: no temperature makes probabilities of them."""


def temperature(margins_N: ArrayLike, targets_N: ArrayLike, groups_N: ArrayLike | None = None) -> float:
    """The T > 0 that makes the votes likeliest (Guo et al. 2017, with soft targets), under a heavy-tailed prior around 1.

    margins: score a - score b. targets: share of the votes for a, a tie being half a vote for each. groups: opening turn of each
    pair; None = no two pairs share one. Minimises

        sum_i weight_i log_loss(margin_i / T, target_i) + log(1 + (log T / PRIOR_SCALE)^2),  weight_i = 1 / pairs in i's group

    so that an opening turn counts once, however many pairs it has: these share replies and what is odd about the prompt, and
    twenty of one prompt can say together that T is 3 where the next prompt says 1.

    Most rewards are trained by likelihood and are nearly calibrated, and 150 votes tell log T to 0.2 only: there the prior draws
    T to 1, for dividing by noise would make good probabilities worse. Where the votes say clearly otherwise (scores on another
    scale, a training that went on for too long) its tail lets them. It also keeps T from 0, which is certainty, where all pairs
    are ranked rightly. Raises NoTemperature where sum weight (target - 1/2) margin <= 0: by likelihood alone T would be infinite.
    """
    margins, targets = as_numbers(margins_N, "margins"), as_probabilities(targets_N, "targets")
    check_same_length(margins, targets)
    weights = np.ones(len(margins)) if groups_N is None else _once_a_group(groups_N)
    check_same_length(margins, weights)
    if float((weights * (targets - 0.5) * margins).sum()) <= 0:
        raise NoTemperature("the margins point away from the votes, or say nothing")

    def loss(log_t: float) -> float:
        return float(weights @ log_losses(margins * math.exp(-log_t), targets)) + math.log1p((log_t / PRIOR_SCALE) ** 2)

    from scipy.optimize import minimize_scalar

    best = min(_STARTS.tolist(), key=loss)
    step = float(_STARTS[1] - _STARTS[0])
    found = minimize_scalar(loss, bounds=(best - step, best + step), method="bounded", options={"xatol": 1e-9})
    return math.exp(float(found.x))


def cross_fitted(
    margins_N: ArrayLike, targets_N: ArrayLike, groups_N: ArrayLike, n_folds: int = 5, seed: int = 0
) -> tuple[Floats, tuple[float, ...]]:
    """Margins, each divided by the temperature of the other folds' pairs, and those temperatures.

    What a temperature is worth on pairs that it was not fitted on; no pair's own group has a say in its own margin. Raises
    NoTemperature where the other folds have none, ValueError on fewer than two groups.
    """
    margins, targets = as_numbers(margins_N, "margins"), as_probabilities(targets_N, "targets")
    check_same_length(margins, targets)
    groups, fold_N = np.asarray(groups_N), grouped_folds(groups_N, n_folds, seed)
    scaled, temperatures = margins.copy(), []
    for fold in _numbers(fold_N):
        held = fold_N == fold
        temperatures.append(temperature(margins[~held], targets[~held], groups[~held]))
        scaled[held] = margins[held] / temperatures[-1]
    return scaled, tuple(temperatures)


def _once_a_group(groups_N: ArrayLike) -> Floats:
    """Weights that sum to 1 within every group."""
    _, index_N, sizes = np.unique(np.asarray(groups_N), return_inverse=True, return_counts=True)
    return np.asarray(1.0 / sizes[index_N.ravel()], np.float64)


def _numbers(fold_N: NDArray[np.intp]) -> Iterable[int]:
    return range(int(fold_N.max()) + 1)
