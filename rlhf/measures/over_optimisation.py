"""Over-optimisation: where what is really wanted falls while the proxy that is optimised still rises (Gao, Schulman & Hilton 2023).

Points come in the order of optimisation (checkpoints, rounds, n of best-of-n), all measured on the same prompts, so that
differences between two points are paired.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlhf.measures.intervals import Interval, bootstrap

_RESAMPLES = 200  # per comparison made: the quantile that decides needs some draws beyond it


@dataclass(frozen=True, slots=True)
class Fall:
    """From the best point to the first later one at which the truth is lower and the proxy is not. proxy, truth: the later point's
    mean less the best one's; interval: of truth's difference, adjusted for all pairs of points that it might have been."""

    best: int
    at: int
    proxy: float
    truth: float
    interval: Interval


def fall(
    proxy_KN: ArrayLike, truth_KN: ArrayLike, groups_N: ArrayLike | None = None, *, level: float = 0.95, seed: int = 0
) -> Fall | None:
    """None where no fall is shown.

    proxy, truth: (K, N), a row a point and a column a prompt or reply. The best point is the one of highest mean truth; with K
    points there are K (K - 1) / 2 pairs that it and a later one might be, so the paired interval has level 1 - (1 - level) / pairs
    (Bonferroni): with a chance of `level` no point is said to have fallen that didn't. Raises ValueError for shapes that differ.
    """
    proxy, truth = np.asarray(proxy_KN, dtype=np.float64), np.asarray(truth_KN, dtype=np.float64)
    if proxy.ndim != 2 or proxy.shape != truth.shape or not proxy.size:
        raise ValueError(f"shapes {proxy.shape} and {truth.shape}; wanted two of points by prompts")
    n_points = len(truth)
    n_pairs = max(1, n_points * (n_points - 1) // 2)
    best = int(truth.mean(axis=1).argmax())
    for at in range(best + 1, n_points):
        rise = float((proxy[at] - proxy[best]).mean())
        lost = truth[at] - truth[best]
        if rise < 0 or lost.mean() >= 0:
            continue
        interval = bootstrap(
            lost,
            groups_N=groups_N,
            n_boot=max(2000, _RESAMPLES * n_pairs),
            level=1 - (1 - level) / n_pairs,
            seed=seed,
        )
        if interval.high < 0 and not interval.is_of_one_group:
            return Fall(best, at, rise, float(lost.mean()), interval)
    return None
