"""The length-controlled win rate, held against scikit-learn's fit and against a world whose truth is known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.measures.controlled import MIN_PAIRS, length_controlled


def world(n: int, strength: float, slope: float, *, seed: int = 0, longer: float = 60.0) -> tuple[np.ndarray, ...]:
    """n pairs drawn from the model itself: (wins, length differences), with one side longer by `longer` on average."""
    draw = np.random.default_rng(seed)
    differences = draw.normal(longer, 100.0, n).round()
    p = 1 / (1 + np.exp(-(strength + slope * np.tanh(differences / differences.std()))))
    return (draw.random(n) < p).astype(float), differences


def test_it_is_the_win_rate_at_equal_lengths() -> None:
    """Long replies win here, and nothing else does: plain win rate well above a half, controlled one at it."""
    wins, differences = world(20_000, 0.0, 1.5)
    found = length_controlled(wins, differences, n_boot=20)
    assert wins.mean() > 0.6
    assert found.win_rate == pytest.approx(0.5, abs=0.02) and found.slope == pytest.approx(1.5, abs=0.15)


def test_a_real_advantage_survives() -> None:
    wins, differences = world(20_000, 0.8, -1.0)
    found = length_controlled(wins, differences, n_boot=20)
    assert found.win_rate == pytest.approx(1 / (1 + np.exp(-0.8)), abs=0.02)


def test_it_agrees_with_a_stock_fit() -> None:
    from sklearn.linear_model import LogisticRegression

    for seed in range(5):
        wins, differences = world(150, 0.4, 0.7, seed=seed)
        x = np.tanh(differences / differences.std())[:, None]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stock = LogisticRegression(C=100.0, tol=1e-10, max_iter=1000).fit(x, wins)
        found = length_controlled(wins, differences, n_boot=2)
        assert found.win_rate == pytest.approx(float(stock.predict_proba([[0.0]])[0, 1]), abs=1e-5)
        assert found.slope == pytest.approx(float(stock.coef_[0, 0]), abs=1e-4)


def test_the_interval_holds_its_level() -> None:
    """40 worlds of 80 pairs: about 38 of the 95 % intervals hold the truth."""
    truth = 1 / (1 + np.exp(-0.5))
    held = 0
    for seed in range(40):
        found = length_controlled(*world(80, 0.5, 0.8, seed=seed), n_boot=200, seed=seed)
        assert found.interval is not None
        held += truth in found.interval
    assert 34 <= held <= 40


def test_pairs_of_one_group_count_together() -> None:
    """The same pair four times over tells no more than once."""
    wins, differences = world(60, 0.3, 0.5)
    once = length_controlled(wins, differences, n_boot=300)
    four = length_controlled(
        np.repeat(wins, 4), np.repeat(differences, 4), groups_N=np.repeat(np.arange(60), 4), n_boot=300
    )
    assert once.interval is not None and four.interval is not None
    width = lambda i: i.high - i.low  # noqa: E731
    assert width(four.interval) == pytest.approx(width(once.interval), rel=0.15)
    alone = length_controlled(wins, differences, groups_N=np.zeros(60), n_boot=10)
    assert alone.win_rate is not None and alone.interval is None


@pytest.mark.parametrize(
    ("wins", "differences", "why"),
    [
        ([1, 0] * 9 + [1], list(range(19)), "19 pairs are fewer"),
        ([1, 0] * 20, [7] * 40, "all length differences are equal"),
        ([1] * 40, list(range(40)), "one side wins every pair"),
        ([0] * 20 + [1] * 20, list(range(40)), "length alone separates"),
        ([1] * 20 + [0] * 20, list(range(40)), "length alone separates"),
        ([0] * 20 + [0.5] + [1] * 20, list(range(41)), "length alone separates"),
    ],
)
def test_what_can_not_be_told_is_refused_with_the_reason(wins: list[float], differences: list[int], why: str) -> None:
    found = length_controlled(wins, differences)
    assert (found.win_rate, found.interval, found.slope) == (None, None, None)
    assert found.why is not None and why in found.why and found.n == len(wins)


def test_ties_are_half_a_win_on_either_side() -> None:
    found = length_controlled([0.5] * 40, list(range(-20, 20)), n_boot=20)
    assert found.win_rate == pytest.approx(0.5, abs=1e-9)


def test_wrong_shapes_and_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="as many"):
        length_controlled([1, 0], [1])
    with pytest.raises(ValueError, match="outside"):
        length_controlled([2.0] * MIN_PAIRS, list(range(MIN_PAIRS)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(-300, 300)), min_size=MIN_PAIRS, max_size=60))
def test_the_other_side_gets_the_mirror_image(pairs: list[tuple[float, int]]) -> None:
    wins, differences = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    one = length_controlled(wins, differences, n_boot=20)
    other = length_controlled(1 - wins, -differences, n_boot=20)
    assert (one.win_rate is None) == (other.win_rate is None)
    if one.win_rate is not None and other.win_rate is not None and one.interval and other.interval:
        assert other.win_rate == pytest.approx(1 - one.win_rate, abs=1e-6)
        assert other.interval.low == pytest.approx(1 - one.interval.high, abs=1e-6)
        assert other.interval.high == pytest.approx(1 - one.interval.low, abs=1e-6)
