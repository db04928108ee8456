"""Two arms: right in the mean, by user, less their past; swapped, the answer is mirrored to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from simulated import table_statistics

from rlhf.measures import two_arms
from rlhf.measures.two_arms import looked, sequence

SIMULATED = table_statistics()


def made(seed: int, users: int = 400, rows: int = 1500) -> tuple[NDArray[Any], ...]:
    """unit, is_treated, value, past (NaN for a fifth)."""
    draw = np.random.default_rng(seed)
    unit = draw.integers(0, users, rows)
    taste = draw.normal(size=users)
    past = np.where(draw.random(users) < 0.8, taste + draw.normal(size=users), np.nan)
    return unit, draw.random(users) < 0.5, taste[unit] + draw.normal(size=rows), past


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_swapping_the_arms_mirrors_the_answer_exactly(seed: int, with_past: bool) -> None:
    unit, treated, value, past = made(seed)
    ends, before = [500, 1000, 1500], past if with_past else None
    one = sequence(looked(unit, treated, value, ends, before))
    other = sequence(looked(unit, ~treated, value, ends, before))
    assert (one.difference.value == -other.difference.value).all() and (one.difference.se == other.difference.se).all()
    assert (one.p == other.p).all() and (one.low == -other.high).all() and (one.high == -other.low).all()
    assert (one.difference.theta == other.difference.theta).all()
    assert (one.difference.mean_treated == other.difference.mean_control).all()


@pytest.mark.parametrize("with_past", [False, True])
def test_sums_give_what_residuals_written_out_give(with_past: bool) -> None:
    """The slow twin: each unit's deviation, one by one, and theta by least squares with an intercept an arm."""
    unit, treated, value, past = made(1)
    found = looked(unit, treated, value, [900, 1500], past if with_past else None)
    for look, end in enumerate((900, 1500)):
        there = np.unique(unit[:end])
        total = np.array([value[:end][unit[:end] == u].sum() for u in there])
        count = np.array([(unit[:end] == u).sum() for u in there])
        arm = treated[there]
        x = np.where(np.isfinite(past), past - np.nanmean(past), 0.0)[there] * with_past
        mean = {side: total[arm == side].sum() / count[arm == side].sum() for side in (True, False)}
        size = {side: count[arm == side].mean() for side in (True, False)}
        e = np.array([(t - mean[s] * c) / size[s] for t, c, s in zip(total, count, arm, strict=True)])
        theta = (
            np.linalg.lstsq(np.column_stack([x, arm, ~arm]).astype(float), e, rcond=None)[0][0] if with_past else 0.0
        )
        expected = mean[True] - mean[False] - theta * (x[arm].mean() - x[~arm].mean())
        left = np.concatenate([(e - theta * x)[arm == s] + theta * x[arm == s].mean() for s in (True, False)])
        sides = [left[: arm.sum()], left[arm.sum() :]]
        own = sum((side**2).sum() / (len(side) * (len(side) - 1)) for side in sides)
        common = (left**2).sum() / (len(left) - 2) * sum(1 / len(side) for side in sides)
        assert found.value[look] == pytest.approx(expected) and found.theta[look] == pytest.approx(theta, abs=1e-12)
        assert found.se[look] == pytest.approx(np.sqrt(max(own, common)))
        assert found.n_treated[look] + found.n_control[look] == len(there)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_cuped_is_right_in_the_mean_and_takes_off_what_the_past_explains(rho: float) -> None:
    told = SIMULATED.cuped(rho, runs=2000)
    assert abs(told["bias with CUPED"]) < 3.5 * told["its standard error"]
    explained = rho**2 * 0.9  # a tenth of the units have no past
    assert told["variance left"] == pytest.approx(1 - explained, abs=0.05)
    assert told["said to be left"] == pytest.approx(told["variance left"], abs=0.04)
    assert 0.935 < told["95 % interval holds"] < 0.97


def test_replies_of_one_user_are_not_taken_for_many_users() -> None:
    """No difference, users with strong tastes and 30 replies each: singly they would be "found"; by user they aren't."""
    draw = np.random.default_rng(2)
    beyond = {"by user": 0, "singly": 0}
    for _ in range(300):
        treated, taste = draw.random(300) < 0.5, draw.normal(size=300)
        unit = np.repeat(np.arange(300), 30)
        value = taste[unit] + draw.normal(size=9000)
        by_user = looked(unit, treated, value, [9000])
        singly = looked(np.arange(9000), treated[unit], value, [9000])
        beyond["by user"] += abs(float(by_user.value[0])) > 1.96 * float(by_user.se[0])
        beyond["singly"] += abs(float(singly.value[0])) > 1.96 * float(singly.se[0])
    assert beyond["by user"] < 30 < 150 < beyond["singly"]


def test_nothing_is_said_of_few_units_or_of_what_never_varies() -> None:
    unit, treated, value, _ = made(3, users=150, rows=150)
    told = sequence(looked(unit, treated, value, [150]))
    assert np.isinf(told.difference.se[0]) and told.p[0] == 1.0 and told.low[0] == -np.inf
    flat = sequence(looked(np.arange(400), np.arange(400) % 2 == 0, np.ones(400), [400]))
    assert flat.p[0] == 1.0 and flat.difference.value[0] == 0.0
    empty = two_arms.difference(two_arms.sums([], []), two_arms.sums([], []))
    assert np.isinf(empty.se) and empty.value == 0.0 and empty.kept == 1.0
    assert two_arms.centred(np.array([np.nan, np.nan])).tolist() == [0.0, 0.0]
