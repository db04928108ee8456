"""A rollout read as an experiment: each arm's difference from the control, by user, which may be looked at at any time.

First the shares: where units came in other shares than were drawn nothing is compared, for whatever kept them away may be what is
to be measured. Then each arm against the control (`measures/two_arms`): users are the units, what they did under this alias
before the rollout is taken off (CUPED), and p-value and interval hold however often somebody looks. alpha is shared by the arms
(Bonferroni).

Compared are replies since the shares of the two arms last changed: over a ramp the pooled rates would differ where neither arm
does. A canary's stage is an experiment of its own. Of a bandit, whose shares move all the time, `rlhf offpolicy --rollout` tells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlhf.errors import BadUsage, Conflict
from rlhf.measures import sample_ratio, sample_size, two_arms
from rlhf.measures.always_valid import LEAST_UNITS, PLANNED
from rlhf.serving import guardrails, monitor
from rlhf.serving import log as logs
from rlhf.serving.guardrails import VALUES, Mismatch
from rlhf.serving.log import Rollout
from rlhf.serving.monitor import Served
from rlhf.serving.settings import CONTROL
from rlhf.store import Workspace

Says = Literal["better", "worse", "higher", "lower", "not shown", "too few", "blocked"]
_WORDS: dict[str, tuple[Says, Says]] = {  # what a higher and a lower value are
    "satisfaction": ("better", "worse"),
    "reward": ("better", "worse"),
    "error_rate": ("worse", "better"),
    "refusal": ("worse", "better"),
    "latency": ("worse", "better"),
    "reply_length": ("higher", "lower"),
}
METRICS = tuple(_WORDS)
_STEP, _MOST_LOOKS = 50, 100  # replies between two looks; beyond so many looks the step doubles


@dataclass(frozen=True, slots=True)
class Compared:
    """One arm and the control. n: replies told of; units: users, those with a past among them in `with_past`. difference: mean of
    the arm less the control's, CUPED-adjusted; low, high: hold it at all looks at once with 1 - alpha; p: always valid. None: too
    few. variance_left: what CUPED leaves of the variance. mixed: units seen in both arms, left out. wanted_units: of each arm,
    for the effect that was asked about."""

    arm: str
    says: Says
    why: str
    n: Mapping[str, int]
    units: Mapping[str, int]
    mean: float | None = None
    mean_control: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    alpha: float | None = None
    looks: int = 0
    with_past: int = 0
    variance_left: float | None = None
    mixed: int = 0
    wanted_units: int | None = None
    since: str = ""

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "n": dict(self.n), "units": dict(self.units)}


@dataclass(frozen=True, slots=True)
class Experiment:
    """blocked: by a sample-ratio mismatch; then nothing is compared. chi_square: the shares' test for who looks once."""

    rollout: Rollout
    metric: str
    planned: float
    mismatch: Mismatch
    chi_square: float
    comparisons: tuple[Compared, ...] = field(default=())

    @property
    def blocked(self) -> bool:
        return self.mismatch.found

    def as_json(self) -> dict[str, Any]:
        return {
            "rollout": self.rollout.id,
            "alias": self.rollout.alias,
            "kind": self.rollout.settings.kind,
            "status": self.rollout.status,
            "metric": self.metric,
            "planned_units": self.planned,
            "blocked": self.blocked,
            "mismatch": {**self.mismatch.as_json(), "chi_square_p": self.chi_square},
            "comparisons": [one.as_json() for one in self.comparisons],
        }


def read(
    workspace: Workspace,
    which: str,
    metric: str = "satisfaction",
    *,
    planned: float = PLANNED,
    alpha: float = 0.05,
    effect: float | None = None,
) -> Experiment:
    """The experiment as it stands. which: name@alias or the rollout's id. planned: units of both arms that it was planned for,
    fixed before it began. effect: a difference of which the units wanted are told.

    Raises NotFound, BadUsage for a metric that isn't one, Conflict for a bandit or a shadow.
    """
    if metric not in VALUES:
        raise BadUsage(f"{metric!r:.60} is no metric", fix=f"use one of {', '.join(METRICS)}")
    if not planned > 0 or not 0 < alpha < 1 or effect == 0:
        raise BadUsage(
            f"planned = {planned:g}, alpha = {alpha:g}, effect = {effect}; wanted units above 0, 0 < alpha < 1, an effect",
            fix="leave them out for the defaults",
        )
    with workspace.read() as connection:
        rollout = logs.find(connection, which)
        _require_compared(rollout)
        rows = monitor.compared(monitor.served(connection, rollout))
        past = monitor.earlier(connection, rollout)
        shares = monitor.shares_by_entry(connection, rollout)
    mismatch = guardrails.shares_check(rollout, rows, shares)
    arms = [arm for arm in rollout.arms if arm != CONTROL]
    if mismatch.found:
        why = "units came in other shares than were drawn: find out why before anything is compared"
        blocked = tuple(Compared(arm, "blocked", why, {}, {arm: mismatch.units[arm]}) for arm in arms)
        return Experiment(rollout, metric, planned, mismatch, _chi_square(mismatch), blocked)
    before = _past(past, metric)
    found = []
    for arm in arms:
        since = _since(arm, shares)
        told = [
            row for row in rows if row.seq >= since and row.arm in (arm, CONTROL) and VALUES[metric](row) is not None
        ]
        found.append(_compared(arm, metric, told, before, planned, alpha / len(arms), effect))
    return Experiment(rollout, metric, planned, mismatch, _chi_square(mismatch), tuple(found))


def _compared(
    arm: str,
    metric: str,
    rows: list[Served],
    before: Mapping[str, float],
    planned: float,
    alpha: float,
    effect: float | None,
) -> Compared:
    """rows: of the two arms, with a value each."""
    rows = sorted(
        rows, key=lambda row: ((row.thumb_at if metric == "satisfaction" else None) or row.at, row.request_id)
    )
    in_arms: dict[str, set[str]] = {}
    for row in rows:
        in_arms.setdefault(row.unit, set()).add(row.arm)
    mixed = {unit for unit, seen in in_arms.items() if len(seen) > 1}
    rows = [row for row in rows if row.unit not in mixed]
    number = {unit: i for i, unit in enumerate(dict.fromkeys(row.unit for row in rows))}
    treated = np.array([in_arms[unit] == {arm} for unit in number], dtype=bool)
    n = {side: sum(row.arm == side for row in rows) for side in (arm, CONTROL)}
    units = {arm: int(treated.sum()), CONTROL: int((~treated).sum())}
    about: dict[str, Any] = {"n": n, "units": units, "mixed": len(mixed), "since": rows[0].at if rows else ""}
    if min(units.values()) < LEAST_UNITS:
        why = f"{arm} has {units[arm]} users and {CONTROL} {units[CONTROL]}, wanted {LEAST_UNITS} of each at least"
        return Compared(arm, "too few", why, **about)
    past_U = np.array([before.get(unit, math.nan) for unit in number])
    values = np.array([VALUES[metric](row) for row in rows], dtype=np.float64)
    ends = _ends(len(rows))
    looked = two_arms.looked([number[row.unit] for row in rows], treated, values, ends, past_U)
    told = two_arms.sequence(looked, planned=planned, alpha=alpha)
    if not math.isfinite(float(looked.se[-1])):
        return Compared(
            arm, "too few", "nothing varies: every user of an arm has the same value, or what the past told", **about
        )
    low, high, p = float(told.low[-1]), float(told.high[-1]), float(told.p[-1])
    says, why = _verdict(metric, p, low, high, alpha)
    sd = float(looked.se[-1]) / math.sqrt(1 / units[arm] + 1 / units[CONTROL])
    return Compared(
        arm,
        says,
        why,
        mean=float(looked.mean_treated[-1]),
        mean_control=float(looked.mean_control[-1]),
        difference=float(looked.value[-1]),
        low=low,
        high=high,
        p=p,
        alpha=alpha,
        looks=len(ends),
        with_past=int(np.isfinite(past_U).sum()),
        variance_left=float(looked.kept[-1]),
        wanted_units=None if effect is None else sample_size.two_means(sd, effect, alpha=alpha, looks=True),
        **about,
    )


def _verdict(metric: str, p: float, low: float, high: float, alpha: float) -> tuple[Says, str]:
    higher, lower = _WORDS[metric]
    if p > alpha:
        return "not shown", f"no difference is shown: p = {p:.3g}, wanted {alpha:.3g} or less"
    if low <= 0 <= high:
        return (
            "not shown",
            f"it was shown (p = {p:.3g}) and isn't any more: the interval holds 0 now, so it may have changed",
        )
    return (higher if low > 0 else lower), f"a difference is shown: p = {p:.3g}, however often it was looked at"


def _require_compared(rollout: Rollout) -> None:
    kind = rollout.settings.kind
    if kind == "bandit":
        raise Conflict(
            f"the rollout of {rollout.alias} is a bandit, whose shares move as it goes",
            fix=f"value its arms by: rlhf offpolicy --rollout {rollout.alias} --target ARM",
        )
    if kind == "shadow":
        raise Conflict(
            f"the rollout of {rollout.alias} is a shadow, which nobody sees",
            fix=f"look at its guards: rlhf rollout status {rollout.alias}",
        )


def _since(arm: str, shares: Mapping[int, Mapping[str, float]]) -> int:
    """The first entry of the last stretch in which the two arms had the shares that they have now."""
    of_two = {
        seq: (share.get(arm, 0.0), share.get(CONTROL, 0.0)) for seq, share in sorted(shares.items(), reverse=True)
    }
    served = {seq: both for seq, both in of_two.items() if min(both) > 0}
    if not served:
        return max(shares)
    newest = next(iter(served.values()))
    since = max(served)
    for seq, both in served.items():
        if both != newest:
            break
        since = seq
    return since


def _past(rows: Sequence[Served], metric: str) -> dict[str, float]:
    """Each unit's mean before the rollout."""
    told: dict[str, list[float]] = {}
    for row in rows:
        if (value := VALUES[metric](row)) is not None:
            told.setdefault(row.unit, []).append(float(value))
    return {unit: sum(values) / len(values) for unit, values in told.items()}


def _ends(n: int) -> NDArray[np.intp]:
    step = _STEP
    while n / step > _MOST_LOOKS:
        step *= 2
    return np.array([*range(step, n, step), n], dtype=np.intp)


def _chi_square(mismatch: Mismatch) -> float:
    """One look at the units so far, against the shares as they were when each came."""
    units = list(mismatch.units.values())
    expected = np.array(list(mismatch.expected.values()))
    return sample_ratio.p_value(units, expected / expected.sum()) if expected.sum() > 0 else 1.0
