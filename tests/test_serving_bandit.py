"""The bandit's shares: Thompson's chances, exact enough, a floor for each arm, everything given away."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.serving.assignment import Allocation
from rlhf.serving.bandit import chances_best, weights


@pytest.mark.parametrize(
    ("successes", "trials"),
    [
        ({"a": 5, "b": 8}, {"a": 10, "b": 10}),
        ({"a": 500, "b": 530, "c": 2}, {"a": 1000, "b": 1000, "c": 3}),
        ({"a": 0, "b": 40}, {"a": 50, "b": 50}),
        ({}, {"a": 0, "b": 0, "c": 0}),
    ],
)
def test_quadrature_agrees_with_draws(successes: dict[str, int], trials: dict[str, int]) -> None:
    draw = np.random.default_rng(0)
    drawn = [draw.beta(1 + successes.get(a, 0), 1 + trials[a] - successes.get(a, 0), 200_000) for a in trials]
    slow = np.bincount(np.argmax(drawn, axis=0), minlength=len(trials)) / 200_000
    assert list(chances_best(successes, trials).values()) == pytest.approx(slow, abs=0.005)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=5), st.floats(0.01, 0.2))
def test_shares_are_everything_and_none_is_below_its_floor(counts: list[tuple[int, int]], floor: float) -> None:
    arms = {f"arm{i}": (ups, ups + downs) for i, (ups, downs) in enumerate(counts)}
    found = weights({a: n[0] for a, n in arms.items()}, {a: n[1] for a, n in arms.items()}, floor)
    assert sum(found.values()) == 10_000 and min(found.values()) >= round(floor * 10_000)
    assert Allocation.whole("arm0").moved_to(found).weights == {a: n for a, n in found.items() if n}


def test_the_better_arm_gets_more_and_floors_that_do_not_fit_are_refused() -> None:
    found = weights({"a": 30, "b": 60}, {"a": 100, "b": 100}, 0.05)
    assert found["b"] > 9000 and found["a"] == 10_000 - found["b"] >= 500
    with pytest.raises(ValueError, match="more than everything"):
        weights({}, {"a": 1, "b": 1, "c": 1}, 0.4)
