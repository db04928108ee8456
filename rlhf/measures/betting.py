"""The mean of values in [0, 1] that may be looked at after every batch: a confidence sequence from bets, exact at any number.

Whoever bets against "the mean is m" is paid 1 + s (x / m - 1) for a unit of value x, a stake s of 0 to 1 on "it is higher": fair
where the mean is m, whatever the distribution, and a loss on average where it is lower. The capital K(m), averaged over `STAKES`,
is an e-process, so it ever passes 2 / alpha with a chance of alpha / 2 at most (Ville 1939); as it falls with m, the m that it has
passed at are all those below a bound. The same bets on 1 - x bound the mean from above. (Waudby-Smith & Ramdas 2024, "Estimating
means of bounded random variables by betting", with a mixture over fixed stakes.) Assumed: units come in an order that doesn't
depend on their values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

STAKES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.55, 0.8, 0.98)  # from means that are hardly away to units that all say the same
_HALVINGS = 40
Floats = NDArray[np.float64]


def confidence_sequence(values_N: ArrayLike, looks: Sequence[int], alpha: float = 0.05) -> list[tuple[float, float]]:
    """(low, high) of the mean at each look, after so many of the values: with a chance of 1 - alpha all of them hold it at once, so
    that a later one is never wider than an earlier.

    values: (N,) in [0, 1], in the order that they came in. looks: rising, each 1 to N. Raises ValueError for others.
    """
    values = np.asarray(values_N, dtype=np.float64)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha}; wanted between 0 and 1, such as 0.05")
    if values.ndim != 1 or (values.size and not (values.min() >= 0 and values.max() <= 1)):
        raise ValueError("values: wanted a row of them, each in [0, 1]")
    if any(not 1 <= look <= len(values) for look in looks):
        raise ValueError(f"looks = {list(looks)}; wanted each 1 to {len(values)}, the values there are")
    low, high, found = 0.0, 1.0, []
    for look in looks:
        low = max(low, _bound(values[:look], alpha))
        high = min(high, 1 - _bound(1 - values[:look], alpha))
        found.append((min(low, high), max(low, high)))
    return found


def log_capital(values_N: ArrayLike, m: float) -> float:
    """Natural log of what a capital of 1 has become by betting that the mean of the values is above m, in (0, 1]."""
    if not 0 < m <= 1:
        raise ValueError(f"m = {m}; wanted above 0 and up to 1")
    found, counts = np.unique(np.asarray(values_N, dtype=np.float64), return_counts=True)
    return _log_capital(found, counts, m)


def _log_capital(values_V: Floats, counts_V: NDArray[np.intp], m: float) -> float:
    logs_S = np.log1p(np.array(STAKES)[:, None] * (values_V / m - 1)) @ counts_V
    top = float(logs_S.max())
    return top + math.log(float(np.exp(logs_S - top).mean()))


def _bound(values_N: Floats, alpha: float) -> float:
    """The largest m that the bets on a higher mean refute; 0 where they refute none."""
    found, counts = np.unique(values_N, return_counts=True)
    wanted, low, high = math.log(2 / alpha), 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _log_capital(found, counts, middle) >= wanted:
            low = middle
        else:
            high = middle
    return low
