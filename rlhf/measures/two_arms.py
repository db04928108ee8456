"""Two arms compared: the difference of their means per reply, by user, less what users already were before (CUPED).

A user's replies belong together, so users are the units and an arm's mean is a ratio of sums: sum of outcomes t over sum of
replies c. By the delta method a unit deviates by e = (t - mean c) / (mean of c), and the mean's variance is sum e² / (n (n - 1))
(Deng, Knoblich & Lu 2018). With one reply a unit this is the plain difference of means.

CUPED (Deng, Xu, Kohavi & Walker 2013) takes off theta (x_treated - x_control), where x is what the same units did before the
experiment and theta, fitted within both arms together, is cov(e, x) / var(x). x knows nothing of the arm, so the difference stays
right in the mean, and its variance falls by the square of the correlation. Units without a past are given the mean of the others'.

Everything is computed from sums, so that looks after every batch cost no more than one, and swapping the arms changes the sign of
the difference and nothing else, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.measures import always_valid
from rlhf.measures.always_valid import LEAST_UNITS, PLANNED

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sums:
    """Of one arm's units, one number a look (L): how many, outcomes t, replies c, past x, and their products."""

    n: Floats
    t: Floats
    c: Floats
    tt: Floats
    tc: Floats
    cc: Floats
    x: Floats
    xx: Floats
    tx: Floats
    cx: Floats


@dataclass(frozen=True, slots=True)
class Difference:
    """Treated less control at each look (L). mean_*: unadjusted. se: the larger of what the arms' own variances give and what their
    common one does, for an arm of few units with a rare outcome may have seen none. theta, kept: CUPED's, and the share of the
    variance that it leaves (0 and 1 where nobody has a past). NaN never: se is inf where an arm has under `LEAST_UNITS` units, or
    nothing varies."""

    value: Floats
    se: Floats
    n_treated: Floats
    n_control: Floats
    mean_treated: Floats
    mean_control: Floats
    theta: Floats
    kept: Floats


@dataclass(frozen=True, slots=True)
class Sequence:
    """A difference that was looked at L times: always-valid p-values, and the interval that holds the truth at all looks at
    once."""

    difference: Difference
    p: Floats
    low: Floats
    high: Floats


def sums(total_U: ArrayLike, count_U: ArrayLike, before_U: ArrayLike | None = None) -> Sums:
    """Of units (the last axis), at one look for each place of the other axes. before: what the unit was, less the mean of all that
    have a past, 0 for those that have none (`centred`). A unit with count 0 isn't there yet."""
    t, c = np.asarray(total_U, dtype=np.float64), np.asarray(count_U, dtype=np.float64)
    here = c > 0
    x = np.where(here, np.zeros(()) if before_U is None else np.asarray(before_U, dtype=np.float64), 0.0)
    products = (here, t, c, t * t, t * c, c * c, x, x * x, t * x, c * x)
    return Sums(*(np.asarray(column.sum(axis=-1), dtype=np.float64) for column in products))


def centred(before_U: ArrayLike) -> Floats:
    """A past less its mean over the units that have one; 0 for those whose past is NaN."""
    before = np.asarray(before_U, dtype=np.float64)
    has = np.isfinite(before)
    return np.where(has, before - before[has].mean(), 0.0) if has.any() else np.zeros(before.shape)


def difference(treated: Sums, control: Sums) -> Difference:
    """The treated arm's mean less the control's, CUPED-adjusted where units have a past."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_t, see_t, sex_t, sxx_t = _spread(treated)
        mean_c, see_c, sex_c, sxx_c = _spread(control)
        sxx = sxx_t + sxx_c
        theta = np.where(sxx > 0, (sex_t + sex_c) / sxx, 0.0)
        theta = np.where(np.isfinite(theta), theta, 0.0)
        plain_t, plain_c = see_t, see_c
        see_t = see_t - 2 * theta * sex_t + theta**2 * sxx_t
        see_c = see_c - 2 * theta * sex_c + theta**2 * sxx_c
        value = (mean_t - mean_c) - theta * (treated.x / treated.n - control.x / control.n)
        kept = (see_t + see_c) / (plain_t + plain_c)
        own = see_t / (treated.n * (treated.n - 1)) + see_c / (control.n * (control.n - 1))
        common = (see_t + see_c) / (treated.n + control.n - 2) * (1 / treated.n + 1 / control.n)
        se = np.sqrt(np.maximum(own, common))
        told = (treated.n >= LEAST_UNITS) & (control.n >= LEAST_UNITS) & (se > 0)
    return Difference(
        value=np.nan_to_num(value),
        se=np.where(told, se, np.inf),
        n_treated=treated.n,
        n_control=control.n,
        mean_treated=np.nan_to_num(mean_t),
        mean_control=np.nan_to_num(mean_c),
        theta=theta,
        kept=np.where(np.isfinite(kept), kept, 1.0),
    )


def sequence(looked: Difference, *, planned: float = PLANNED, alpha: float = 0.05) -> Sequence:
    """What may be said at each look (the last axis of the difference), whoever looks as often as they like."""
    n = looked.n_treated + looked.n_control
    z = looked.value / looked.se
    half = always_valid.half_width(looked.se, np.maximum(n, 1), planned, alpha)
    p = always_valid.p_values(always_valid.log_evidence(z, n, planned, alpha))
    return Sequence(looked, p, looked.value - half, looked.value + half)


def looked(
    unit_R: ArrayLike,
    is_treated_U: ArrayLike,
    value_R: ArrayLike,
    ends_L: ArrayLike,
    before_U: ArrayLike | None = None,
) -> Difference:
    """The difference after the first `ends` rows, for each of L looks. Row: one reply in order of time, its unit (0 to U - 1) and
    what came of it. before: each unit's past, NaN for none."""
    unit, value = np.asarray(unit_R, dtype=np.intp), np.asarray(value_R, dtype=np.float64)
    treated = np.asarray(is_treated_U, dtype=bool)
    ends = np.asarray(ends_L, dtype=np.intp)
    past = np.zeros(len(treated)) if before_U is None else centred(before_U)
    total_U, count_U, begin = np.zeros(len(treated)), np.zeros(len(treated)), 0
    found: list[tuple[Sums, Sums]] = []
    for end in ends.tolist():  # look by look: units times looks would not fit
        total_U += np.bincount(unit[begin:end], weights=value[begin:end], minlength=len(treated))
        count_U += np.bincount(unit[begin:end], minlength=len(treated))
        begin = end
        found.append((_of(treated, total_U, count_U, past), _of(~treated, total_U, count_U, past)))
    arms = [
        Sums(*(np.array([getattr(look[arm], name) for look in found]) for name in Sums.__slots__)) for arm in (0, 1)
    ]
    return difference(arms[0], arms[1])


def _of(arm_U: NDArray[np.bool_], total_U: Floats, count_U: Floats, past_U: Floats) -> Sums:
    return sums(total_U[arm_U], count_U[arm_U], past_U[arm_U])


def _spread(arm: Sums) -> tuple[Floats, Floats, Floats, Floats]:
    """The mean a reply; sum of e², of e x, and of (x - its mean)²."""
    mean, size = arm.t / arm.c, arm.c / arm.n
    see = (arm.tt - 2 * mean * arm.tc + mean**2 * arm.cc) / size**2
    sex = (arm.tx - mean * arm.cx) / size
    sxx = arm.xx - arm.x**2 / arm.n
    return mean, np.maximum(see, 0.0), sex, np.maximum(sxx, 0.0)
