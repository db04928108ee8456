"""What another policy would have earned, from a log whose chances are known: IPS, SNIPS, doubly robust, and when none may be given.

Row i: in context x the logger chose action a with chance p (its propensity) and earned r. The target chooses a with chance
t(a | x); w = t / p. With means over the n rows (Horvitz & Thompson 1952; Swaminathan & Joachims 2015; Dudík et al. 2011):

    IPS   = mean(w r)                                   unbiased; wild where a weight is large
    SNIPS = sum(w r) / sum(w)                           consistent; a little biased, calmer, and never outside the rewards seen
    DR    = mean( sum_a t(a|x) q(x,a) + w (r - q) )     unbiased whatever q is; calmer the better q is

q is the mean reward of (context, action), drawn to the action's mean by `PRIOR` rows, and that to the mean of all by as many. It is
cross-fitted: rows, whole units where they are given, are dealt into `FOLDS` folds, and a row's q is fitted on the others, so that
no row's luck is in its own q. Assumed: the propensities are those that were drawn with, and rows (units, where given) are
independent; of a logger that learns on the way the estimates stay right, their intervals hold roughly.

An estimate is refused where the target does what the log never shows, where its weights don't average 1 as they must, and where
few rows carry all of the weight: effective sample size (sum w)² / sum w² (Kish 1965) under `LEAST_ESS` or `LEAST_SHARE` of n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.ids import chance
from rlhf.measures.intervals import LEAST_GROUPS, Interval, ratio, wilson

LEAST_ESS, LEAST_SHARE = 100.0, 0.01
FOLDS, PRIOR = 5, 10.0
_MOST_CELLS = 20_000_000
_FIT = 0.1  # weights may average so far from 1 …
_SURE = 1e-6  # … or as far as chance takes them this seldom, whichever is more, before the propensities are disbelieved
Floats = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Log:
    """N rows. action, context: numbers of `actions` (A names) and `contexts` (C names; one where there is no context).

    reward: any finite number. propensity: the logger's chance of the action that it chose, in [0, 1]; 0 contradicts itself, and
    nothing is estimated for a target that chooses it too. unit: whose row it is, by number; None = each row is its own.
    """

    action_N: Codes
    context_N: Codes
    reward_N: Floats
    propensity_N: Floats
    actions: Sequence[str]
    contexts: Sequence[str] = ("",)
    unit_N: Codes | None = None

    def __post_init__(self) -> None:
        n = len(self.action_N)
        for name, column in (
            ("context", self.context_N), ("reward", self.reward_N), ("propensity", self.propensity_N), ("unit", self.unit_N)
        ):  # fmt: skip
            if column is not None and len(column) != n:
                raise ValueError(f"{len(column)} of {name} for {n} actions")
        if not n:
            raise ValueError("no rows: nothing can be estimated")
        if not np.isfinite(self.reward_N).all():
            raise ValueError("a reward is not finite")
        if not ((self.propensity_N >= 0) & (self.propensity_N <= 1)).all():
            raise ValueError("a propensity is outside [0, 1]")
        if len(self.actions) * len(self.contexts) > _MOST_CELLS:
            raise ValueError(f"{len(self.contexts)} contexts times {len(self.actions)} actions are too many to hold")

    @property
    def units_N(self) -> Codes:
        return np.arange(len(self.action_N)) if self.unit_N is None else self.unit_N


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval, (cluster) bootstrap with q as fitted; normal over units beyond 20,000 of them."""

    value: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class OffPolicy:
    """refused: no estimate is given, and `reason` says why. n: rows. ess, max_weight, mean_weight: of the weights w, always there.
    notes: what to know about estimates that are given."""

    n: int
    ess: float
    max_weight: float
    mean_weight: float
    reason: str | None = None
    ips: Estimate | None = None
    snips: Estimate | None = None
    dr: Estimate | None = None
    notes: tuple[str, ...] = ()

    @property
    def refused(self) -> bool:
        return self.reason is not None

    def as_json(self) -> dict[str, Any]:
        """Each estimate as [value, low, high]; null where none is given."""
        told: dict[str, Any] = {"refused": self.refused, "reason": self.reason, "n": self.n, "ess": self.ess}
        told |= {"max_weight": self.max_weight, "mean_weight": self.mean_weight}
        for name, one in (("ips", self.ips), ("snips", self.snips), ("dr", self.dr)):
            told[name] = None if one is None else [one.value, one.interval.low, one.interval.high]
        method = None if self.ips is None else self.ips.interval.method
        return {**told, "level": 0.95, "method": method, "notes": list(self.notes)}


def uniform(log: Log) -> Floats:
    """(C, A) the policy that chooses evenly among the actions that the log shows anywhere."""
    seen = np.bincount(log.action_N, minlength=len(log.actions)) > 0
    return np.tile(seen / seen.sum(), (len(log.contexts), 1))


def always(log: Log, action: int) -> Floats:
    """(C, A) the policy that always chooses this action."""
    target = np.zeros((len(log.contexts), len(log.actions)))
    target[:, action] = 1.0
    return target


def evaluate(log: Log, target_CA: Floats, *, n_boot: int = 2000, seed: int = 0) -> OffPolicy:
    """What the target would have earned a row. target: chances of each action in each context, rows sum to 1.

    Raises ValueError for a target of another shape, or that is no chance.
    """
    if target_CA.shape != (len(log.contexts), len(log.actions)):
        raise ValueError(
            f"a target of {target_CA.shape} for {len(log.contexts)} contexts and {len(log.actions)} actions"
        )
    if not (target_CA >= 0).all() or not np.allclose(target_CA.sum(axis=1), 1.0, atol=1e-6):
        raise ValueError("the target's chances must be 0 or more and sum to 1 in each context")
    chosen_N = target_CA[log.context_N, log.action_N]
    is_possible = log.propensity_N > 0
    w_N = np.divide(chosen_N, log.propensity_N, out=np.zeros(len(chosen_N)), where=is_possible)
    n, total = len(w_N), float(w_N.sum())
    ess = total**2 / float((w_N**2).sum()) if total > 0 else 0.0
    told = (n, ess, float(w_N.max()), total / n)
    reason = _refusal(log, target_CA, w_N, ess)
    if reason is not None:
        return OffPolicy(*told, reason=reason)
    ips, snips, dr = estimates(log, target_CA, w_N, seed)
    weigh = w_N > 0  # rows that SNIPS doesn't read
    found: list[Estimate] = []
    for above, below in ((ips, np.ones(n)), (snips, w_N), (dr, np.ones(n))):
        rows = weigh if below is w_N else np.ones(n, dtype=bool)
        value = float(above.sum() / below.sum())
        interval = ratio(above[rows], below[rows], groups_N=_groups(log, rows), n_boot=n_boot, seed=seed)
        found.append(Estimate(value, _wide_enough(value, interval, log.reward_N[weigh], ess)))
    return OffPolicy(*told, ips=found[0], snips=found[1], dr=found[2], notes=_notes(log, target_CA, w_N))


def estimates(log: Log, target_CA: Floats, w_N: Floats, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """The rows' terms: IPS and DR are the means of the first and the third, SNIPS is the sum of the second over the sum of w."""
    own_N, expected_N = cross_fitted(log, target_CA, seed)
    return w_N * log.reward_N, w_N * log.reward_N, expected_N + w_N * (log.reward_N - own_N)


def cross_fitted(log: Log, target_CA: Floats, seed: int = 0) -> tuple[Floats, Floats]:
    """(N,) q of what each row did, and (N,) the mean of q over what the target would do there; each from the other folds."""
    fold_N = _folds(log, seed)
    cell_N = log.context_N * len(log.actions) + log.action_N
    n_cells = target_CA.size
    own_N, expected_N = np.zeros(len(cell_N)), np.zeros(len(cell_N))
    n_CA = _cells(log).reshape(-1)
    sum_CA = np.bincount(cell_N, weights=log.reward_N, minlength=n_cells)
    for fold in range(fold_N.max() + 1):
        held = fold_N == fold
        n_held = np.bincount(cell_N[held], minlength=n_cells)
        sum_held = np.bincount(cell_N[held], weights=log.reward_N[held], minlength=n_cells)
        q_CA = _means((n_CA - n_held).reshape(target_CA.shape), (sum_CA - sum_held).reshape(target_CA.shape))
        own_N[held] = q_CA.reshape(-1)[cell_N[held]]
        expected_N[held] = (target_CA * q_CA).sum(axis=1)[log.context_N[held]]
    return own_N, expected_N


def _means(n_CA: NDArray[Any], sum_CA: NDArray[Any]) -> Floats:
    """Mean reward of each cell, drawn to its action's, and that to the mean of all, by `PRIOR` rows each."""
    grand = sum_CA.sum() / max(1, int(n_CA.sum()))
    of_action_A = (sum_CA.sum(axis=0) + PRIOR * grand) / (n_CA.sum(axis=0) + PRIOR)
    return np.asarray((sum_CA + PRIOR * of_action_A) / (n_CA + PRIOR))


def _folds(log: Log, seed: int) -> Codes:
    """Whole units, dealt out by chance; one fold only where there is one unit."""
    units = np.unique(log.units_N, return_inverse=True)[1].reshape(-1)
    n_units = int(units.max()) + 1
    dealt = np.random.default_rng(chance(seed, "off-policy folds").getrandbits(64)).permutation(n_units)
    return np.asarray(dealt[units] % min(FOLDS, n_units))


def _groups(log: Log, rows: NDArray[np.bool_]) -> Codes | None:
    return None if log.unit_N is None else log.unit_N[rows]


def _wide_enough(value: float, interval: Interval, rewards: Floats, ess: float) -> Interval:
    """Rewards in [0, 1] that are all alike say something of the next ones, and not that they will be the same: Wilson's interval
    over the effective sample size."""
    if np.ptp(rewards) > 0 or not 0 <= rewards[0] <= 1:
        return interval
    n = round(ess)
    wide = wilson(float(rewards[0]) * n, n, interval.level)
    return Interval(min(wide.low, value), max(wide.high, value), wide.level, wide.method)


def _refusal(log: Log, target_CA: Floats, w_N: Floats, ess: float) -> str | None:
    """Why no estimate is given; None where one may be."""
    n = len(w_N)
    n_units = n if log.unit_N is None else len(np.unique(log.unit_N))
    if n_units < min(n, LEAST_GROUPS):
        return (
            f"{n_units} units are too few for an interval: wanted {LEAST_GROUPS} or more, or rows taken as independent"
        )
    n_impossible = int((log.propensity_N == 0).sum())
    if n_impossible:
        return (
            f"support is missing: {n_impossible} of {n} rows were logged with propensity 0, which can't have happened"
        )
    wanted = target_CA.max(axis=0) > 0
    n_A = np.bincount(log.action_N, minlength=len(log.actions))
    if never := [name for name, is_lacking in zip(log.actions, wanted & (n_A == 0), strict=True) if is_lacking]:
        return f"support is missing: the target chooses {_few(never)}, which the log never shows"
    if (unshown := _unshown(log, target_CA, w_N)) is not None:
        return unshown
    if (misfit := _misfit(w_N, log.units_N)) is not None:
        return misfit
    if ess < max(LEAST_ESS, LEAST_SHARE * n):
        wanted_ess = f"{LEAST_ESS:g} or more" if ess < LEAST_ESS else f"{LEAST_SHARE:.0%} or more"
        return f"the effective sample size is {ess:.1f} of {n} rows, wanted {wanted_ess}: a few rows carry the weight"
    return None


def _unshown(log: Log, target_CA: Floats, w_N: Floats) -> str | None:
    """A context in which the target does what the log never shows there, and by so much that its weights fall short of 1.

    A rare action may be unseen in a small context by chance: then the others' weights make up for it in the mean.
    """
    if len(log.contexts) == 1:
        return None
    n_CA = _cells(log)
    lacking_C = np.where(n_CA == 0, target_CA, 0.0).sum(axis=1)
    for c in np.flatnonzero((lacking_C > _FIT) & (n_CA.sum(axis=1) > 0)).tolist():
        inside = log.context_N == c
        if _misfit(w_N[inside], log.units_N[inside]) is not None:
            never = [name for name, t, k in zip(log.actions, target_CA[c], n_CA[c], strict=True) if t > 0 and k == 0]
            return (
                f"support is missing: in context {log.contexts[c]} the target chooses {_few(never)} in "
                f"{lacking_C[c]:.0%} of cases, which the log never shows there"
            )
    return None


def _cells(log: Log) -> NDArray[np.intp]:
    """(C, A) rows of each action in each context."""
    cell_N = log.context_N * len(log.actions) + log.action_N
    return np.bincount(cell_N, minlength=len(log.contexts) * len(log.actions)).reshape(len(log.contexts), -1)


def _misfit(w_N: Floats, units_N: Codes) -> str | None:
    """Weights average 1 where the propensities are right and everything that the target does is in the log. How far chance takes
    them: the empirical Bernstein bound (Maurer & Pontil 2009), whose second term knows that the largest weights may be the ones
    that didn't come."""
    mean = float(w_N.mean())
    of_unit = np.unique(units_N, return_inverse=True)[1].reshape(-1)
    n_units = int(of_unit.max()) + 1
    per_unit = np.bincount(of_unit, weights=w_N * n_units / len(w_N))  # so that their mean is the rows'
    odds = math.log(2 / _SURE)
    if n_units < 2:
        return None
    by_chance = math.sqrt(2 * float(per_unit.var()) * odds / n_units) + 7 * float(per_unit.max()) * odds / (
        3 * (n_units - 1)
    )
    if abs(mean - 1) <= max(_FIT, by_chance):
        return None
    if mean < 1:
        return (
            f"support is missing: the weights average {mean:.3g} where 1 is wanted, so the log doesn't show a part of what "
            "the target does, or its propensities are too large"
        )
    return f"the weights average {mean:.3g} where 1 is wanted: the propensities are smaller than those that were drawn with"


def _notes(log: Log, target_CA: Floats, w_N: Floats) -> tuple[str, ...]:
    notes = []
    n_CA = _cells(log)
    unseen = float((np.where(n_CA == 0, target_CA, 0.0).sum(axis=1) * n_CA.sum(axis=1)).sum() / len(w_N))
    if unseen > 0:
        notes.append(
            f"{unseen:.2%} of what the target does was never logged in its context, and is left out of IPS and SNIPS"
        )
    n_rewarded = int((log.reward_N[w_N > 0] != 0).sum())
    if n_rewarded < 30:
        notes.append(f"{n_rewarded} rows have a reward other than 0: with so few the intervals hold roughly")
    top = float(w_N.max() / w_N.sum())
    if top > 0.05:
        notes.append(f"one row carries {top:.0%} of the weight")
    if not math.isclose(float(w_N.mean()), 1.0, abs_tol=_FIT / 2):
        notes.append(f"the weights average {w_N.mean():.3f}, wanted 1: SNIPS and DR suffer less from it than IPS")
    return tuple(notes)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(f"{name:.40}" for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
