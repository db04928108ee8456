"""Guards: each arm's harm against the control's, tested so that it may be looked at after every row; what follows from it.

A guard compares one row a unit (its first error, its first latency …), so a heavy user counts once. The tests are e-processes
(`measures/sequential.py`); alpha is for the whole rollout and is shared by its guards and arms (Bonferroni): a guard fires when
its evidence ever passed n_tests / alpha. At 100 % there is no control beside the arm, and what was found before stands.

A sample-ratio mismatch, units in other shares than were drawn, blocks every verdict: then nothing compared can be trusted, and the
rollout is paused for a person. Rows of a shadow are compared in pairs, arm and control on the same request; its latency isn't, for
a shadow waits for everybody.

What holds: where an arm makes no difference the chance of any false alarm is alpha at most, whatever the users and the hour. Where
an arm is better at some users and worse at others, "no harm" is about the rows compared: users' first errors and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from rlhf.measures import sequential
from rlhf.serving import monitor
from rlhf.serving.log import Rollout
from rlhf.serving.monitor import Served
from rlhf.serving.settings import CONTROL, Guard

Role = Literal["guardrail", "signal"]
SHARES = "shares"  # the name of the mismatch among a rollout's signals


@dataclass(frozen=True, slots=True)
class Finding:
    """One guard on one arm. e: evidence of harm now; peak: the most it ever was; it fires at `threshold`. n: rows compared, of
    which `n_arm` are the arm's. passed_over: it fired, and somebody resumed past it."""

    name: str
    metric: str
    role: Role
    arm: str
    n: int
    n_arm: int
    e: float
    peak: float
    threshold: float
    fired: bool
    passed_over: bool

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Units by arm as they came and as they were drawn; found where the evidence ever passed the threshold."""

    units: Mapping[str, int]
    expected: Mapping[str, float]
    e: float
    peak: float
    threshold: float
    found: bool

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "units": dict(self.units), "expected": dict(self.expected)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows: roll_back, pause or nothing. why: in words; blocked: by a mismatch."""

    action: Literal["roll_back", "pause", "none"]
    why: str
    fired: tuple[str, ...]
    blocked: bool
    mismatch: Mismatch
    findings: tuple[Finding, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        return {
            "action": self.action,
            "why": self.why,
            "blocked": self.blocked,
            "mismatch": self.mismatch.as_json(),
            "guards": [finding.as_json() for finding in self.findings],
        }


def judge(connection: Connection, rollout: Rollout, rows: Sequence[Served] | None = None) -> Verdict:
    """The verdict on everything served so far. Nothing is changed. rows: from `monitor.served`, where they were read already."""
    chosen = monitor.compared(monitor.served(connection, rollout) if rows is None else rows)
    shares = monitor.shares_by_entry(connection, rollout)
    mismatch = shares_check(rollout, chosen, shares)
    arms = [arm for arm in rollout.arms if arm != CONTROL]
    guards = [g for g in rollout.settings.guards if g.metric != "latency" or rollout.settings.kind != "shadow"]
    n_tests = max(1, len(arms) * len(guards))
    findings = []
    for guard in guards:
        for arm in arms:
            n, n_arm, path = _evidence(guard, arm, rollout, chosen, shares)
            findings.append(_finding(guard, arm, n, n_arm, path, n_tests / rollout.settings.alpha, rollout))
    return _verdict(rollout, mismatch, tuple(findings))


def _finding(
    guard: Guard, arm: str, n: int, n_arm: int, path: NDArray[np.float64], threshold: float, rollout: Rollout
) -> Finding:
    name, peak = f"{guard.name} of {arm}", sequential.peak(path)
    return Finding(
        name=name,
        metric=guard.metric,
        role=guard.role,
        arm=arm,
        n=n,
        n_arm=n_arm,
        e=sequential.last(path),
        peak=peak,
        threshold=threshold,
        fired=peak >= threshold,
        passed_over=guard.role == "signal" and name in rollout.signals,
    )


def _verdict(rollout: Rollout, mismatch: Mismatch, findings: tuple[Finding, ...]) -> Verdict:
    if mismatch.found:
        if SHARES in rollout.signals:
            return Verdict("none", "the mismatch was passed over; verdicts stay blocked", (), True, mismatch, findings)
        came = ", ".join(f"{arm} {n} (drawn {mismatch.expected[arm]:.0f})" for arm, n in mismatch.units.items())
        why = f"units came in other shares than were drawn, e = {mismatch.peak:.3g}: {came}"
        return Verdict("pause", why, (SHARES,), True, mismatch, findings)
    fired = [finding for finding in findings if finding.fired and not finding.passed_over]
    harms = [finding for finding in fired if finding.role == "guardrail"]
    if not fired:
        return Verdict("none", "no harm is shown", (), False, mismatch, findings)
    said = "; ".join(f"{one.name}, e = {one.peak:.3g} of {one.threshold:.3g}" for one in harms or fired)
    names = tuple(one.name for one in harms or fired)
    return Verdict("roll_back" if harms else "pause", f"harm is shown: {said}", names, False, mismatch, findings)


def shares_check(rollout: Rollout, rows: Sequence[Served], shares: Mapping[int, Mapping[str, float]]) -> Mismatch:
    """Units' first appearances against the shares that they were drawn with, looked at after every unit."""
    arms = list(rollout.arms)
    first = _first_of_each(row for row in rows if row.rule == "weights")
    shares_NK = np.array([[shares[row.seq].get(arm, 0.0) for arm in arms] for row in first]).reshape(-1, len(arms))
    path = sequential.mismatch([arms.index(row.arm) for row in first], shares_NK, [row.seq for row in first])
    threshold, peak = 1 / rollout.settings.mismatch_alpha, sequential.peak(path)
    units = {arm: sum(row.arm == arm for row in first) for arm in arms}
    expected = dict(zip(arms, (float(total) for total in shares_NK.sum(axis=0)), strict=True))
    return Mismatch(units, expected, sequential.last(path), peak, threshold, peak >= threshold)


def _evidence(
    guard: Guard, arm: str, rollout: Rollout, rows: Sequence[Served], shares: Mapping[int, Mapping[str, float]]
) -> tuple[int, int, NDArray[np.float64]]:
    """Rows compared, those of the arm among them, and the path of evidence of harm."""
    if guard.direction == "either":
        up, down = (guard.model_copy(update={"harm": harm}) for harm in ("higher", "lower"))
        n, n_arm, higher = _evidence(up, arm, rollout, rows, shares)
        lower = _evidence(down, arm, rollout, rows, shares)[2]
        return n, n_arm, np.logaddexp(higher, lower) - np.log(2)  # half of the stake on each
    value_of = VALUES[guard.metric]
    if rollout.settings.kind == "shadow":
        worse = [harm for harm in _pairs(guard, arm, rows, value_of) if harm]
        treated = np.array(worse) > 0  # of two replies that differ, the arm's is the worse with a chance of 1/2 at most
        return len(worse), int(treated.sum()), sequential.more_events(treated, np.full(len(worse), 0.5))
    two = [row for row in rows if row.arm in (arm, CONTROL) and _share(shares[row.seq], arm) is not None]
    told = [row for row in two if value_of(row) is not None]
    if guard.metric in ("error_rate", "refusal"):
        told = [row for row in told if value_of(row)]
    if guard.metric == "satisfaction":
        told.sort(key=lambda row: (row.thumb_at or "", row.request_id))
    told = _first_of_each(told)
    treated = np.array([row.arm == arm for row in told], dtype=bool)
    share = np.array([_share(shares[row.seq], arm) for row in told], dtype=float)
    values = np.array([value_of(row) for row in told], dtype=float)
    if guard.metric in ("error_rate", "refusal"):
        path = (
            sequential.more_events(treated, share, guard.tolerance)
            if guard.direction == "higher"
            else sequential.more_events(~treated, 1 - share, guard.tolerance)
        )
    elif guard.metric == "satisfaction":
        path = sequential.higher_scores(treated, share, 1 - 2 * values)  # a thumb down is 1, up is -1, none counts 0
    else:
        path = sequential.higher_values(treated, share, _as_harm(guard, values, treated))
    return len(told), int(treated.sum()), path


def _as_harm(guard: Guard, values_N: NDArray[np.float64], treated_N: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Values of which higher is worse, the arm's with what is tolerated taken off."""
    sign = 1.0 if guard.direction == "higher" else -1.0
    if guard.metric == "reward":
        return sign * values_N - np.where(treated_N, guard.tolerance, 0.0)
    factor = (1 + guard.tolerance) ** -sign
    return sign * values_N * np.where(treated_N, factor, 1.0)


def _pairs(
    guard: Guard, arm: str, rows: Sequence[Served], value_of: Callable[[Served], float | None]
) -> Iterable[float]:
    """For the first request of each unit that both answered: above 0 where the arm's reply is worse, 0 where neither is."""
    shown = monitor.by_request(row for row in rows if row.rule == "weights")
    for row in _first_of_each(row for row in rows if row.rule == "shadow" and row.arm == arm):
        other = shown.get(row.shadow_of or "")
        mine, theirs = value_of(row), None if other is None else value_of(other)
        if mine is not None and theirs is not None:
            mine, theirs = _as_harm(guard, np.array([mine, theirs], dtype=float), np.array([True, False]))
            yield float(mine - theirs)


def _share(shares: Mapping[str, float], arm: str) -> float | None:
    """The arm's share of the two; None where one of them has none."""
    mine, control = shares.get(arm, 0.0), shares.get(CONTROL, 0.0)
    return mine / (mine + control) if mine > 0 and control > 0 else None


def _first_of_each(rows: Iterable[Served]) -> list[Served]:
    """The first row of each unit, in order."""
    seen: dict[str, Served] = {}
    for row in rows:
        seen.setdefault(row.unit, row)
    return list(seen.values())


def _when_ok(value_of: Callable[[Served], float | None]) -> Callable[[Served], float | None]:
    return lambda row: value_of(row) if row.status == "ok" else None


# What a reply is worth by each metric; None = not told.
VALUES: dict[str, Callable[[Served], float | None]] = {
    "error_rate": lambda row: float(row.status == "error") if row.status in ("ok", "error") else None,
    "latency": _when_ok(lambda row: row.latency_s),
    "refusal": _when_ok(lambda row: row.refusal),
    "reply_length": _when_ok(lambda row: row.length_chars),
    "reward": _when_ok(lambda row: row.reward),
    "satisfaction": _when_ok(lambda row: row.thumb),
}
