"""The win rate that would be seen at equal lengths: what is left of a win rate once longer replies win for being long.

After AlpacaEval 2's length control (Dubois, Galambosi, Liang & Hashimoto 2024, "Length-Controlled AlpacaEval"):

    P(win) = sigmoid(strength + slope * tanh(difference / sd(difference))),   controlled win rate = sigmoid(strength)

The paper's third term, how hard each prompt is, needs many models on the same prompts and is left out. The fit is
maximum likelihood by Newton's method with a small penalty on the slope, which moves the estimate by less than its last
digits and gives a resample without overlap a finite slope.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.measures.intervals import Interval, bootstrap

MIN_PAIRS = 20
METHOD = (
    "logistic regression of the win on tanh(length difference / its sd), read at no difference (Dubois et al. 2024)"
)
_RIDGE = 0.01  # in the log-likelihood's own units: the weight of a hundredth of a pair
_LOGIT_LIMIT = 30.0  # where a resample holds wins alone, the strength would run off
_STEPS, _ENOUGH = 50, 1e-8
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Controlled:
    """win_rate: at equal lengths, in [0, 1]; None = can't be told, and `why` says why. interval: of the win rate; None
    also where all pairs are of one group. slope: log odds gained by a reply that is longer by much more than the sd."""

    win_rate: float | None
    interval: Interval | None
    slope: float | None
    why: str | None
    n: int


def length_controlled(
    wins_N: ArrayLike,
    differences_N: ArrayLike,
    *,
    groups_N: ArrayLike | None = None,
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Controlled:
    """The win rate at equal lengths.

    wins: 1 won, 0 lost, 0.5 a tie (half of each in the likelihood); differences: own length minus the other's, any
    unit. Turning both round gives 1 - win_rate and the mirrored interval. The interval is a percentile bootstrap of
    the whole fit, by groups where given. Refused, with the reason, below 20 pairs, where all differences are equal, and
    where length separates wins from losses: then no finite fit exists. Raises ValueError for wins outside [0, 1] or
    unequal numbers.
    """
    wins, differences = np.asarray(wins_N, dtype=np.float64), np.asarray(differences_N, dtype=np.float64)
    if wins.shape != differences.shape or wins.ndim != 1:
        raise ValueError(f"{wins.shape} wins for {differences.shape} length differences; wanted as many of each")
    if wins.size and not (wins.min() >= 0 and wins.max() <= 1):
        raise ValueError("a win is outside [0, 1]")
    if (why := _refusal(wins, differences)) is not None:
        return Controlled(None, None, None, why, wins.size)
    rows = np.column_stack((wins, differences))
    strength, slope = _fit(rows)
    interval = bootstrap(rows, _win_rate, groups_N=groups_N, n_boot=n_boot, level=level, seed=seed)
    return Controlled(
        float(_sigmoid(strength)), None if interval.is_degenerate else interval, float(slope), None, wins.size
    )


def _refusal(wins: Floats, differences: Floats) -> str | None:
    if wins.size < MIN_PAIRS:
        return f"{wins.size} pairs are fewer than the {MIN_PAIRS} that a fit needs"
    if np.ptp(differences) == 0:
        return "all length differences are equal"
    # A tie is half a win and half a loss, so it stands on both sides. Without overlap one point can part them.
    won, lost = differences[wins > 0], differences[wins < 1]
    if not won.size or not lost.size:
        return "one side wins every pair"
    if lost.max() <= won.min() or won.max() <= lost.min():
        return "length alone separates the wins from the losses"
    return None


def _win_rate(rows_N2: Floats) -> float:
    return float(_sigmoid(_fit(rows_N2)[0]))


def _fit(rows_N2: Floats) -> tuple[float, float]:
    """(strength, slope). Damped Newton steps: the penalised log-likelihood never falls."""
    wins, differences = rows_N2[:, 0], rows_N2[:, 1]
    sd = differences.std()
    x = np.tanh(differences / sd) if sd > 0 else np.zeros_like(differences)
    design = np.column_stack((np.ones_like(x), x))
    at, value = np.zeros(2), -np.inf
    step = np.zeros(2)
    for _ in range(_STEPS):
        ahead = np.clip(at + step, -_LOGIT_LIMIT, _LOGIT_LIMIT)
        ahead_value = _log_likelihood(ahead, wins, x)
        if ahead_value < value - 1e-12:
            step = step / 2
            if np.abs(step).max() < _ENOUGH:
                break
            continue
        at, value = ahead, ahead_value
        p = _sigmoid(design @ at)
        gradient = design.T @ (wins - p) - np.array([0.0, _RIDGE * at[1]])
        weighted = design * (p * (1 - p))[:, None]
        curvature = weighted.T @ design + np.diag([1e-9, _RIDGE])
        step = np.linalg.solve(curvature, gradient)
        if np.abs(step).max() < _ENOUGH:
            break
    return float(at[0]), float(at[1])


def _log_likelihood(at: Floats, wins: Floats, x: Floats) -> float:
    logits = at[0] + at[1] * x
    return float((wins * logits - np.logaddexp(0.0, logits)).sum() - _RIDGE / 2 * at[1] ** 2)


def _sigmoid(value: float | Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.asarray(value, dtype=np.float64))))
