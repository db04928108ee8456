from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.measures import calibration, ranking

outcomes = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=80)


def _perfect(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    p = generator.random(n)
    return p, (generator.random(n) < p).astype(float)


def test_orientation_is_a_fair_coin_that_keeps_who_won() -> None:
    margins = np.random.default_rng(0).normal(size=4000)
    p, won = calibration.orient(margins, 3)
    assert 0.46 < won.mean() < 0.54
    right = np.where(won > 0, p > 0.5, p < 0.5)
    assert np.array_equal(right, margins > 0)
    assert np.mean(np.where(won > 0, -np.log(p), -np.log1p(-p))) == pytest.approx(ranking.log_loss(margins))


def test_orientation_depends_on_the_seed_alone() -> None:
    margins = np.ones(64)
    assert np.array_equal(calibration.orient(margins, 1)[1], calibration.orient(margins, 1)[1])
    assert not np.array_equal(calibration.orient(margins, 1)[1], calibration.orient(margins, 2)[1])


def test_without_orientation_a_scorer_that_is_always_sure_would_look_perfect() -> None:
    """The trap that `orient` is there for: sure of the chosen reply half the time wrongly, seen only when turned."""
    margins = np.tile([20.0, -20.0], 200)
    p, won = calibration.orient(margins, 0)
    assert calibration.ece(p, won) > 0.4


@given(outcomes, st.integers(1, 20), st.randoms())
def test_ece_is_in_range_and_the_order_of_pairs_does_not_matter(rows: list, n_bins: int, r: object) -> None:
    p, won = np.array(rows).T
    found = calibration.ece(p, won, n_bins)
    assert 0.0 <= found <= 1.0
    r.shuffle(rows)  # type: ignore[attr-defined]
    again = np.array(rows).T
    assert calibration.ece(again[0], again[1], n_bins) == pytest.approx(found, abs=1e-12)


@given(outcomes, st.integers(1, 20))
def test_the_bins_hold_every_pair_and_give_the_ece(rows: list[tuple[float, int]], n_bins: int) -> None:
    p, won = np.array(rows).T
    bins = calibration.reliability(p, won, n_bins)
    assert sum(b.n for b in bins) == len(rows) and len(bins) <= n_bins
    assert all(b.low - 1e-9 <= b.won_rate <= b.high + 1e-9 for b in bins)
    by_hand = sum(b.n * abs(b.won_rate - b.p_mean) for b in bins) / len(rows)
    assert calibration.ece(p, won, n_bins) == pytest.approx(by_hand, abs=1e-9)


def test_bins_have_equal_mass() -> None:
    p, won = _perfect(1000)
    assert {b.n for b in calibration.reliability(p, won, 10)} == {100}


def test_a_constant_scorer_has_one_bin() -> None:
    assert calibration.ece([0.7] * 10, [1] * 5 + [0] * 5) == pytest.approx(0.2)


def test_a_perfect_scorer_lies_within_what_perfection_gives() -> None:
    below = 0
    for seed in range(40):
        p, won = _perfect(500, seed)
        below += calibration.ece(p, won) <= calibration.ece_if_perfect(p, n_draws=300).p95
    assert below >= 34  # 38 expected


def test_an_overconfident_scorer_lies_beyond_it() -> None:
    p, won = _perfect(2000)
    sure = 1 / (1 + np.exp(-3 * np.log(p / (1 - p))))
    perfect = calibration.ece_if_perfect(sure)
    assert calibration.ece(sure, won) > 2 * perfect.p95 > 2 * perfect.mean > 0


def test_ece_interval_holds_the_ece_of_a_bad_scorer() -> None:
    p, won = _perfect(600)
    sure = np.where(p > 0.5, 0.95, 0.05)
    found = calibration.ece_interval(sure, won, n_boot=200)
    assert calibration.ece(sure, won) in found
    assert found.low > 0.1


def test_one_pair_has_figures_without_nan() -> None:
    assert calibration.ece([0.9], [1]) == pytest.approx(0.1)
    assert calibration.ece_interval([0.9], [1]).low == pytest.approx(0.1)
    assert np.isfinite(calibration.ece_if_perfect([0.9]).p95)


def _margins(n: int, seed: int, factor: float = 1.0) -> np.ndarray:
    """Score of the chosen reply minus the other's; calibrated at factor 1, too sure above it."""
    generator = np.random.default_rng(seed)
    margins = generator.normal(size=n)
    return factor * np.where(generator.random(n) < ranking.sigmoid(margins), margins, -margins)


@pytest.mark.parametrize("test", [calibration.kolmogorov_smirnov, calibration.spiegelhalter])
def test_a_perfect_scorer_is_rejected_as_often_as_the_level_says(test: object) -> None:
    rejected = sum(test(_margins(200, 1000 + seed)).p_value < 0.05 for seed in range(400))  # type: ignore[operator]
    assert rejected <= 20 + 9  # 20 expected at most; two standard deviations more


@pytest.mark.parametrize("factor", [0.3, 3.0])
@pytest.mark.parametrize("test", [calibration.kolmogorov_smirnov, calibration.spiegelhalter])
def test_a_scorer_that_is_too_sure_or_not_sure_enough_is_rejected(test: object, factor: float) -> None:
    """MAPIE's one-sided Spiegelhalter takes the second for perfect."""
    found = test(_margins(800, 1, factor))  # type: ignore[operator]
    assert found.p_value < 0.01 and found.n == 800
    if test is calibration.spiegelhalter:
        assert (found.statistic > 0) == (factor > 1)


def test_calibration_tests_do_not_depend_on_the_order_and_say_none_of_certainty() -> None:
    margins = _margins(300, 2)
    assert calibration.kolmogorov_smirnov(margins[::-1]).p_value == pytest.approx(
        calibration.kolmogorov_smirnov(margins).p_value, abs=1e-6
    )
    for test in (calibration.kolmogorov_smirnov, calibration.spiegelhalter):
        sure = test(np.full(5, 1e4))
        assert (sure.statistic, sure.p_value, sure.n) == (None, None, 5)
        assert 0 <= (test([0.5]).p_value or 0.0) <= 1


def test_one_drawn_vote_is_the_share_of_the_votes() -> None:
    margins = np.linspace(1, 2, 6000)
    for share in (0.0, 0.25, 0.5, 1.0):
        drawn = calibration.one_vote(margins, np.full(6000, share), 5)
        assert np.array_equal(np.abs(drawn), margins)
        assert np.mean(drawn > 0) == pytest.approx(share, abs=0.02)
