"""A difference that may be looked at after every batch: the mixture sequential probability ratio test and its confidence sequence.

An estimate d with standard error s, of n units, is nearly normal. Against "the difference is m" the mixture bets on differences
drawn from N(m, tau²); its likelihood ratio is an e-process, so it passes 1 / alpha at any look with a chance of alpha at most
(Robbins 1970; Johari, Koomen, Pekelis & Walsh 2017). With r = tau² / s² and z = (d - m) / s:

    log evidence = z² / 2 · r / (1 + r) - log(1 + r) / 2

and the m that it doesn't pass at are the confidence sequence d ± s sqrt((1 + r) / r · (2 log(1 / alpha) + log(1 + r))), which
holds the true difference at all looks at once. tau is set so that the interval is narrowest at a planned number of units
(Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024), r = best · n / planned, and must be fixed before the data are seen: a plan
that is far off costs width, never validity. s is estimated, so all of it is asymptotic: nothing is said below `LEAST_UNITS` units
an arm. `docs/statistics.md` has the false positives that were counted.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST_UNITS = 100  # of each arm, before anything is said
PLANNED = 5000  # units of both arms at which the interval is narrowest
Floats = NDArray[np.float64]


def log_evidence(z_L: ArrayLike, n_L: ArrayLike, planned: float = PLANNED, alpha: float = 0.05) -> Floats:
    """Natural log of the mixture's likelihood ratio at each of L looks. z: estimate less what is tested, in standard errors; n:
    units by then; alpha: what the mixture is tuned to."""
    z, r = np.asarray(z_L, dtype=np.float64), _ratio(n_L, planned, alpha)
    return np.asarray(z**2 / 2 * r / (1 + r) - np.log1p(r) / 2)


def p_values(log_evidence_L: ArrayLike) -> Floats:
    """(L,) always-valid p-values: 1 over the most evidence so far, at most 1; along the last axis."""
    most = np.maximum.accumulate(np.asarray(log_evidence_L, dtype=np.float64), axis=-1)
    return np.asarray(np.exp(-np.maximum(most, 0.0)))


def half_width(se_L: ArrayLike, n_L: ArrayLike, planned: float = PLANNED, alpha: float = 0.05) -> Floats:
    """Of the confidence sequence at each look: 1 - alpha is the chance that it holds the truth at all of them."""
    r = _ratio(n_L, planned, alpha)
    return np.asarray(np.asarray(se_L) * np.sqrt((1 + r) / r * (2 * math.log(1 / alpha) + np.log1p(r))))


def _ratio(n_L: ArrayLike, planned: float, alpha: float) -> Floats:
    if not planned > 0:
        raise ValueError(f"planned = {planned}; wanted a number of units above 0")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha}; wanted between 0 and 1, such as 0.05")
    return _best(alpha) * np.asarray(n_L, dtype=np.float64) / planned


def _best(alpha: float) -> float:
    """tau² / s² at which the interval is narrowest: where r = 2 log(1 / alpha) + log(1 + r)."""
    r = 2 * math.log(1 / alpha)
    for _ in range(50):
        r = 2 * math.log(1 / alpha) + math.log1p(r)
    return r
