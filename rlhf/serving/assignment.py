"""Who gets which arm: a salted hash puts a unit into one of 10,000 buckets, and arms own buckets. Pure.

A bucket changes hands only where an arm's weight shrinks, and the buckets it took last go first. So from 5 to 10 % the
newcomers alone move, back from 10 to 5 the same ones return, and dropping an arm moves only its own units. (Weights as
consecutive stretches would move the neighbours' units; weighted rendezvous hashing moves some between the arms that stay.)

Before the buckets come the audience, typed operators on the request's context, and toggles, which give a cohort its arm. What
either decides is no chance, and isn't compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rlhf.serving.audience import Rule

BUCKETS = 10_000  # a basis point each
COHORT = "cohort"  # the context's key that toggles read

Run = tuple[int, int]  # buckets first to last, both in it; downwards where first > last


@dataclass(frozen=True)
class Allocation:
    """Which arm owns which buckets, each arm's runs in the order in which it took them."""

    runs: Mapping[str, tuple[Run, ...]]

    @classmethod
    def whole(cls, arm: str) -> Allocation:
        """Everything with one arm."""
        return cls({arm: ((0, BUCKETS - 1),)})

    @classmethod
    def of(cls, stored: Mapping[str, Sequence[Sequence[int]]]) -> Allocation:
        return cls({arm: tuple((run[0], run[1]) for run in runs) for arm, runs in stored.items()})

    @cached_property
    def weights(self) -> dict[str, int]:
        """Basis points by arm."""
        return {arm: sum(map(_length, runs)) for arm, runs in self.runs.items()}

    @cached_property
    def owners(self) -> tuple[str, ...]:
        """The arm of each bucket."""
        owners = [""] * BUCKETS
        for arm, runs in self.runs.items():
            for first, last in runs:
                step = 1 if first <= last else -1
                for bucket in range(first, last + step, step):
                    owners[bucket] = arm
        return tuple(owners)

    def moved_to(self, weights: Mapping[str, int]) -> Allocation:
        """The allocation with these weights (basis points, 10,000 in all), the fewest buckets in other hands. Raises
        ValueError for other sums and negative weights."""
        if sum(weights.values()) != BUCKETS or min(weights.values()) < 0:
            raise ValueError(f"weights {dict(weights)}; wanted none below 0, and {BUCKETS:,} in all")
        stacks = {arm: list(self.runs.get(arm, ())) for arm in (*self.runs, *weights)}
        freed: list[Run] = []
        for arm, stack in stacks.items():
            freed += _released(stack, sum(map(_length, stack)) - weights.get(arm, 0))
        for arm, wanted in weights.items():
            missing = wanted - sum(map(_length, stacks[arm]))
            while missing > 0:
                run = freed.pop(0)
                if _length(run) > missing:
                    step = 1 if run[0] <= run[1] else -1
                    freed.insert(0, (run[0] + step * missing, run[1]))
                    run = (run[0], run[0] + step * (missing - 1))
                missing -= _length(run)
                _push(stacks[arm], run)
        return Allocation({arm: tuple(stack) for arm, stack in stacks.items() if stack})

    def as_json(self) -> dict[str, list[list[int]]]:
        return {arm: [list(run) for run in runs] for arm, runs in self.runs.items()}


@dataclass(frozen=True, slots=True)
class Assigned:
    """The arm of one request, and why. arm None: the rollout's audience leaves the request out.

    propensity: chance of this arm, over the hash, at these weights: exact. rule: audience, toggle, weights.
    """

    arm: str | None
    rule: str
    propensity: float
    bucket: int | None
    because: str

    @property
    def reason(self) -> dict[str, Any]:
        return {"rule": self.rule, "bucket": self.bucket, "because": self.because}


@dataclass(frozen=True)
class Plan:
    """What decides an arm: made once a change, asked by every request. toggles: cohort -> arm."""

    salt: str
    allocation: Allocation
    audience: Rule | None
    toggles: Mapping[str, str]


def assign(plan: Plan, unit: str, context: Mapping[str, Any]) -> Assigned:
    """The unit's arm: the same for the same unit, context and plan."""
    if plan.audience is not None and not plan.audience.holds(context):
        return Assigned(None, "audience", 1.0, None, f"not of the audience: {plan.audience}")
    cohort = context.get(COHORT)
    if isinstance(cohort, str) and cohort in plan.toggles:
        return Assigned(plan.toggles[cohort], "toggle", 1.0, None, f"the cohort {cohort} has this arm")
    bucket = bucket_of(plan.salt, unit)
    arm = plan.allocation.owners[bucket]
    points = plan.allocation.weights[arm]
    return Assigned(
        arm, "weights", points / BUCKETS, bucket, f"bucket {bucket} is the arm's, which has {points / 100:g} %"
    )


def bucket_of(salt: str, unit: str) -> int:
    """0 to 9,999, from a hash of salt and unit alone; independent from one salt to another."""
    head = hashlib.sha256(f"{salt}\x00{unit}".encode()).digest()[:8]
    return int.from_bytes(head, "big") * BUCKETS >> 64


def _length(run: Run) -> int:
    return abs(run[1] - run[0]) + 1


def _released(stack: list[Run], n: int) -> list[Run]:
    """Take the `n` buckets that came last off the stack, the last one first; none where n <= 0."""
    freed: list[Run] = []
    while n > 0:
        first, last = stack.pop()
        step = 1 if first <= last else -1
        here = min(n, _length((first, last)))
        freed.append((last, last - step * (here - 1)))
        if here < _length((first, last)):
            stack.append((first, last - step * here))
        n -= here
    return freed


def _push(stack: list[Run], run: Run) -> None:
    """Put a run on top; one that goes on where the last ends becomes part of it."""
    if stack:
        (first, last), (start, end) = stack[-1], run
        step = start - last
        if abs(step) == 1 and (last - first) * step >= 0 and (end - start) * step >= 0:
            stack[-1] = (first, end)
            return
    stack.append(run)
