from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import stdtr

from rlhf.measures import intervals
from rlhf.measures.intervals import Interval, bootstrap, share, wilson


@given(st.integers(0, 5000).flatmap(lambda n: st.tuples(st.floats(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_in_the_unit_interval(case: tuple[float, int]) -> None:
    k, n = case
    found = wilson(k, n)
    assert 0.0 <= found.low <= found.high <= 1.0
    assert n == 0 or k / n in found


def test_wilson_agrees_with_scipy() -> None:
    from scipy.stats import binomtest

    expected = binomtest(346, 520).proportion_ci(0.95, method="wilson")
    found = wilson(346, 520)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_wilson_of_nothing_knows_nothing() -> None:
    assert wilson(0, 0) == Interval(0.0, 1.0, 0.95, "wilson")


def test_wilson_holds_its_level() -> None:
    k = np.random.default_rng(1).binomial(60, 0.8, size=2000)
    assert 0.93 < np.mean([0.8 in wilson(int(x), 60) for x in k]) < 0.975


def test_bootstrap_of_a_mean_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(2).normal(size=400)
    found, half = bootstrap(values), 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(0, 4)), min_size=1, max_size=40), st.integers(0, 3))
def test_the_fast_mean_equals_its_slow_twin(rows: list[tuple[float, int]], seed: int) -> None:
    values, groups = [r[0] for r in rows], [r[1] for r in rows]
    for by in (None, groups):
        fast = bootstrap(values, np.mean, groups_N=by, n_boot=50, seed=seed)
        slow = bootstrap(values, lambda x: float(x.mean()), groups_N=by, n_boot=50, seed=seed)
        assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=1e-9)


def test_groups_widen_the_interval_of_clustered_values() -> None:
    values = np.repeat(np.random.default_rng(3).normal(size=40), 25)
    alone, grouped = bootstrap(values), bootstrap(values, groups_N=np.repeat(np.arange(40), 25))
    assert grouped.high - grouped.low > 3 * (alone.high - alone.low)
    assert "40 groups" in grouped.method


def test_groups_may_be_names() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    names = bootstrap(values, groups_N=["b", "a", "b", "c", "c"])
    assert names == bootstrap(values, groups_N=[1, 0, 1, 2, 2])


def test_same_seed_same_interval() -> None:
    values = np.arange(20.0)
    assert bootstrap(values, np.median, seed=5) == bootstrap(values, np.median, seed=5)
    assert bootstrap(values, seed=5) != bootstrap(values, seed=6)


def test_one_value_is_degenerate_and_none_is_refused() -> None:
    one = bootstrap([3.0])
    assert (one.low, one.high) == (3.0, 3.0) and "degenerate" in one.method
    with pytest.raises(ValueError, match="no values"):
        bootstrap([])


def test_rows_are_resampled_together() -> None:
    x = np.arange(30.0)
    found = bootstrap(np.stack([x, 2 * x], axis=1), lambda rows: float(np.max(np.abs(rows[:, 1] - 2 * rows[:, 0]))))
    assert (found.low, found.high) == (0.0, 0.0)


def test_thirty_of_thirty_is_no_certainty() -> None:
    assert share([1.0] * 30) == wilson(30, 30)
    over_tens = share([1.0] * 30, groups_N=[i // 3 for i in range(30)])
    assert (over_tens.low, over_tens.high) == (wilson(10, 10).low, 1.0) and over_tens.method == "wilson over 10 groups"


def test_a_share_that_varies_has_the_bootstrap_s_interval_and_one_group_has_none() -> None:
    values = [1.0, 0.0, 0.5, 1.0, 1.0, 0.0]
    assert share(values, seed=3) == bootstrap(values, seed=3)
    assert share([1.0, 0.0], groups_N=["q", "q"]).is_degenerate
    assert not share(values).is_degenerate


@pytest.mark.parametrize("groups", [None, [i // 2 for i in range(12)]])
def test_equal_values_tell_no_interval_of_a_mean_and_wilsons_of_a_share(groups: list[int] | None) -> None:
    """0.1 twelve times has sums that differ in their last digit."""
    alike = bootstrap([0.1] * 12, groups_N=groups)
    assert alike.is_degenerate and not alike.is_of_one_group and "alike" in alike.method
    assert intervals.ratio([0.1] * 12, [1.0] * 12, groups_N=groups).is_degenerate
    assert not share([1.0] * 12, groups_N=groups).is_degenerate and share([1.0] * 12, groups_N=groups).low < 0.8
    one = bootstrap([0.1, 0.2], groups_N=["g", "g"])
    assert one.is_degenerate and one.is_of_one_group and share([1.0, 1.0], groups_N=["g", "g"]).is_degenerate


def test_six_groups_hold_nearly_the_level_where_plain_percentiles_do_not() -> None:
    generator, runs = np.random.default_rng(5), 400
    plain_level = 2 * stdtr(5, 1.96 / np.sqrt(6 / 5)) - 1  # whose tail is the plain 0.025
    assert intervals.tail(6, plain_level) == pytest.approx(0.025, abs=1e-4)
    held = {0.95: 0, plain_level: 0}
    for seed in range(runs):
        groups = np.repeat(np.arange(6), generator.integers(1, 10, 6))
        values = generator.normal(size=6)[groups] + generator.normal(size=groups.size)
        for level in held:
            held[level] += 0.0 in bootstrap(values, groups_N=groups, n_boot=1000, level=level, seed=seed)
    assert held[0.95] > 0.9 * runs and held[plain_level] < 0.87 * runs, held


def test_of_fewer_groups_than_five_no_interval_is_told() -> None:
    values, groups = [0.1, 0.5, 0.3, 0.9, 0.2, 0.8], [0, 0, 1, 1, 2, 3]
    assert bootstrap(values, groups_N=groups).is_of_few_groups and share(values, groups_N=groups).is_degenerate
    assert intervals.ratio(values, [1.0] * 6, groups_N=groups).is_degenerate
    assert not bootstrap(values).is_degenerate


def test_right_and_wrong_row_by_row_is_wilsons() -> None:
    """So that one wrong of twenty has no lower bound of nothing, and no smaller upper one than none wrong."""
    none, one = share([0.0] * 20), share([1.0] + [0.0] * 19)
    assert none.method == one.method == "wilson" and one.low > 0 and none.high < one.high
    assert share([0.5] + [0.0] * 19).method == "bootstrap"
