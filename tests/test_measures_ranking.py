from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.measures import ranking

margins = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)
varied = st.lists(st.tuples(st.floats(-1e100, 1e100), st.floats(-1e100, 1e100)), min_size=2, max_size=30)


@given(margins)
def test_accuracy_of_turned_margins_is_the_rest(values: list[float]) -> None:
    assert ranking.accuracy(values) + ranking.accuracy([-v for v in values]) == pytest.approx(1.0)


def test_a_tie_counts_half() -> None:
    assert ranking.accuracy([1.0, -2.0, 0.0, 3.0]) == 0.625


@given(margins)
def test_log_loss_is_finite_and_a_coin_gets_ln_2(values: list[float]) -> None:
    assert np.isfinite(ranking.log_loss(values))
    assert ranking.log_loss([0.0] * len(values)) == pytest.approx(np.log(2))


@given(margins)
def test_soft_log_loss_with_hard_targets_is_log_loss(values: list[float]) -> None:
    assert np.mean(ranking.log_losses(values, [1.0] * len(values))) == pytest.approx(ranking.log_loss(values))


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=20), st.floats(-3, 3))
def test_soft_log_loss_is_least_at_the_targets_own_logits(targets: list[float], shift: float) -> None:
    t = np.array(targets)
    best = np.log(t / (1 - t))
    entropy = -np.mean(t * np.log(t) + (1 - t) * np.log(1 - t))
    assert np.mean(ranking.log_losses(best, t)) == pytest.approx(entropy)
    assert np.mean(ranking.log_losses(best + shift, t)) >= entropy - 1e-12


def test_brier_of_a_coin_is_a_quarter() -> None:
    assert ranking.squared_errors([0.0, 0.0]) == pytest.approx([0.25, 0.25])
    assert ranking.squared_errors([800.0, -800.0]) == pytest.approx([0.0, 1.0])


@given(varied)
def test_correlations_stay_in_range_and_ignore_scale(points: list[tuple[float, float]]) -> None:
    x, y = np.array(points).T
    for measure in (ranking.pearson, ranking.spearman):
        assert -1.0 <= measure(x, y) <= 1.0
        assert measure(x, y) == pytest.approx(measure(y, x), abs=1e-9)
    assert ranking.spearman(x, x) == pytest.approx(1.0 if len(set(x)) > 1 else 0.0)


def test_correlations_agree_with_scipy() -> None:
    from scipy import stats

    x, y = np.random.default_rng(0).normal(size=(2, 40))
    x = np.round(x, 1)  # ties
    assert ranking.pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert ranking.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)


def test_a_constant_length_explains_nothing() -> None:
    assert ranking.spearman([1.0, 2.0, 3.0], [7, 7, 7]) == 0.0


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [[1.0]]])
def test_nothing_and_nan_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError):
        ranking.accuracy(bad)


def test_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        ranking.log_losses([1.0, 2.0], [1.0])
