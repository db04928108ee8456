"""Tests that may be looked at after every observation: e-processes, which bet against "no harm" and are paid fairly while it holds.

By Ville's inequality (1939) an e-process passes 1/alpha at any time with a chance of alpha at most, so whoever looks after each
row, stops when they like and looks again still raises a false alarm that seldom. The tests here bet on the *arm* of what came in,
whose chance is known because a hash drew it, and not on the outcome: no distribution, no constant rate over the day and no equal
arms are assumed, and a share that changes on the way changes the bet. (Lindon & Malek 2022 do so for counts.)

Assumed: one row a unit, for a unit's arm is drawn once; the arms were drawn with the shares given (`mismatch` tests that); and
"no harm" means that the arm doesn't raise the outcome, in any moment's mix of units.

Paths are natural logarithms, (N,); `peak` of a path is what was ever reached.
"""

from __future__ import annotations

import bisect

import numpy as np
from numpy.typing import ArrayLike, NDArray

RATIOS = (
    1.15,
    1.3,
    1.6,
    2.0,
    3.0,
    5.0,
    10.0,
    30.0,
)  # of the rates, beyond what is tolerated, that `more_events` bets on
STAKES = (0.1, 0.25, 0.5, 0.9)  # shares of the largest bet that `higher_values` makes
_POOL = 2000  # earlier values that a value is ranked among; beyond, the first ones stay the measure
_CONCENTRATION = (
    200.0  # of the Dirichlet prior around the shares: units after which `mismatch` trusts what it saw as much
)
_MOST = 690.0  # e^690 is still a float


def more_events(is_treated_N: ArrayLike, share_N: ArrayLike, tolerance: float = 0.0) -> NDArray[np.float64]:
    """Do events (errors, refusals, thumbs down) come from the treated arm more often than its share?

    Row: one event. is_treated: whose it was. share: the chance that a unit of the two arms is the treated one, then, in (0, 1).
    tolerance: the treated arm's rate may be (1 + tolerance) times the other's, so that the fair share is p(1 + tolerance) /
    (p(1 + tolerance) + 1 - p). The bet on a ratio r is the likelihood ratio of the share at r times the tolerated rate against
    the fair one; the path is the mean over `RATIOS`. Where there is no harm, an event's arm is the treated one with at most the
    fair share, so that each factor's mean is at most 1.
    """
    treated, share = np.asarray(is_treated_N, dtype=bool), _shares(share_N)
    fair = share * (1 + tolerance) / (share * (1 + tolerance) + 1 - share)
    ratios = np.array(RATIOS)[:, None]
    bet = fair * ratios / (fair * ratios + 1 - fair)
    return _mixed(np.where(treated, np.log(bet / fair), np.log((1 - bet) / (1 - fair))))


def higher_values(is_treated_N: ArrayLike, share_N: ArrayLike, value_N: ArrayLike) -> NDArray[np.float64]:
    """Are the treated arm's values (latencies, lengths) higher, in the mean of their ranks?

    Row: one unit's value, finite. `higher_scores` of each value's place among earlier ones, in [-1, 1], ties in the middle: a
    sequential rank-sum test, in which outliers weigh no more than others. Only the order of values counts, so a tolerance is taken
    off the treated values by the caller.
    """
    return higher_scores(is_treated_N, share_N, _places(np.asarray(value_N, dtype=np.float64)))


def higher_scores(is_treated_N: ArrayLike, share_N: ArrayLike, score_N: ArrayLike) -> NDArray[np.float64]:
    """Are the treated arm's scores, each in [-1, 1], higher in the mean? Rows of 0 may be left out.

    The bet is 1 + stake (treated - share) score / max(share, 1 - share): its mean over the draw of the arm is 1 + c (mean score of
    the treated less that of the others), c > 0, at most 1 where there is no harm. The path is the mean over `STAKES`.
    """
    treated, share = np.asarray(is_treated_N, dtype=bool), _shares(share_N)
    score = np.asarray(score_N, dtype=np.float64)
    if score.size and not np.abs(score).max() <= 1:
        raise ValueError("scores: wanted each in [-1, 1]")
    edge = (treated - share) * score / np.maximum(share, 1 - share)
    return _mixed(np.log1p(np.array(STAKES)[:, None] * edge))


def mismatch(arm_N: ArrayLike, shares_NK: ArrayLike, segment_N: ArrayLike) -> NDArray[np.float64]:
    """Do new units come to the arms with other shares than were drawn? (Sample-ratio mismatch.)

    Row: a unit's first appearance. arm: its number, 0 to K - 1. shares: of all arms then, rows sum to 1. segment: a number for each
    stretch of equal shares. Within a stretch the bet is Lindon & Malek's: the multinomial with a Dirichlet prior around the shares,
    against the shares; stretches multiply. An arm that had no share at all ends it at once.
    """
    arm, shares, segment = np.asarray(arm_N, dtype=int), np.asarray(shares_NK, dtype=float), np.asarray(segment_N)
    path, total = np.zeros(len(arm)), 0.0
    counts, here = np.zeros(shares.shape[1] if shares.ndim == 2 else 0), None
    for row, (one, at) in enumerate(zip(arm, segment, strict=True)):
        if at != here:
            counts[:], here = 0.0, at
        fair = shares[row, one]
        if fair <= 0:
            path[row:] = _MOST
            return path
        total += np.log((_CONCENTRATION * fair + counts[one]) / (_CONCENTRATION + counts.sum()) / fair)
        counts[one] += 1
        path[row] = total
    return np.clip(path, -_MOST, _MOST)


def peak(path_N: ArrayLike) -> float:
    """The most that was ever reached, as an e-value; 1 where nothing came in."""
    path = np.asarray(path_N, dtype=np.float64)
    return float(np.exp(min(max(0.0, path.max()), _MOST))) if path.size else 1.0


def last(path_N: ArrayLike) -> float:
    """How it stands, as an e-value; 1 where nothing came in."""
    path = np.asarray(path_N, dtype=np.float64)
    return float(np.exp(np.clip(path[-1], -_MOST, _MOST))) if path.size else 1.0


def _mixed(factors_KN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log of the mean over K bets of the products so far."""
    if factors_KN.shape[1] == 0:
        return np.zeros(0)
    sums = np.cumsum(factors_KN, axis=1)
    top = sums.max(axis=0)
    return np.asarray(np.clip(top + np.log(np.exp(sums - top).mean(axis=0)), -_MOST, _MOST))


def _places(value_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """2 F - 1, where F is the share of earlier values below, half of the equal ones; 0 for the first."""
    if not np.isfinite(value_N).all():
        raise ValueError("a value is not finite")
    places, pool = np.zeros(len(value_N)), list[float]()
    for row, value in enumerate(value_N[:_POOL].tolist()):
        low, high = bisect.bisect_left(pool, value), bisect.bisect_right(pool, value)
        places[row] = (low + high) / len(pool) - 1 if pool else 0.0
        pool.insert(low, value)
    rest = value_N[_POOL:]
    if rest.size:
        kept = np.array(pool)
        places[_POOL:] = (np.searchsorted(kept, rest, "left") + np.searchsorted(kept, rest, "right")) / _POOL - 1
    return places


def _shares(share_N: ArrayLike) -> NDArray[np.float64]:
    share = np.asarray(share_N, dtype=np.float64)
    if share.size and not ((share > 0) & (share < 1)).all():
        raise ValueError("shares: wanted each between 0 and 1, for with one arm alone there is nothing to compare")
    return share
