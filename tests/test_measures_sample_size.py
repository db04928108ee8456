"""Sample sizes: with so many units the effect is found as often as was said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.measures.sample_size import two_means, two_rates, win_rate


@pytest.mark.parametrize(("base", "effect"), [(0.5, 0.05), (0.1, 0.03), (0.02, -0.01)])
def test_two_rates_are_told_apart_as_often_as_was_said(base: float, effect: float) -> None:
    n, draw = two_rates(base, effect), np.random.default_rng(1)
    one, other = draw.binomial(n, base, 20_000) / n, draw.binomial(n, base + effect, 20_000) / n
    middle = (one + other) / 2
    found = np.abs(other - one) > 1.96 * np.sqrt(2 * middle * (1 - middle) / n)
    assert found.mean() == pytest.approx(0.8, abs=0.015)


@pytest.mark.parametrize(("wins", "ties"), [(0.55, 0.0), (0.6, 0.3), (0.42, 0.1)])
def test_a_win_rate_is_found_as_often_as_was_said(wins: float, ties: float) -> None:
    n, draw = win_rate(wins, ties), np.random.default_rng(2)
    scores = draw.multinomial(n, [wins - ties / 2, ties, 1 - wins - ties / 2], 20_000) @ np.array([1.0, 0.5, 0.0])
    found = np.abs(scores / n - 0.5) > 1.96 * np.sqrt((1 - ties) / 4 / n)
    assert found.mean() == pytest.approx(0.8, abs=0.02)


def test_means_are_the_textbooks() -> None:
    assert two_means(1.0, 0.5) == 63  # 2 ((1.960 + 0.842) / 0.5)², Cohen's n for d = 0.5 without the t correction
    assert two_means(1.0, 0.5, power=0.9) == 85


@given(st.floats(0.05, 0.9), st.floats(0.01, 0.09))
def test_a_smaller_effect_more_power_and_looks_all_cost_more(base: float, effect: float) -> None:
    n = two_rates(base, effect)
    assert two_rates(base, effect / 2) > n
    assert two_rates(base, effect, power=0.9) > n
    assert 1.5 * n < two_rates(base, effect, looks=True) < 2.6 * n
    assert win_rate(0.5 + effect) == win_rate(0.5 - effect) > win_rate(0.5 + effect, 0.2)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: two_rates(0.5, 0.0),
        lambda: two_rates(0.99, 0.02),
        lambda: two_rates(0.5, 0.1, alpha=0),
        lambda: two_rates(0.5, 0.1, power=1),
        lambda: win_rate(0.5),
        lambda: win_rate(0.9, 0.5),
        lambda: two_means(0.0, 1.0),
        lambda: win_rate(0.6, 1.0),
        lambda: two_rates(0.5, 0.1, power=0.05),
        lambda: win_rate(0.6, power=0.04),
    ],
)
def test_what_can_not_be_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="wanted"):
        wrong()  # type: ignore[operator]


def test_a_win_rate_that_can_not_be_is_told_which_could() -> None:
    with pytest.raises(ValueError, match=r"^a win rate of 0.9 with 50% ties; wanted one between 0.25 and 0.75$"):
        win_rate(0.9, 0.5)
    with pytest.raises(ValueError, match=r"^a win rate of 0.5, which is no difference; wanted one above or below it$"):
        win_rate(0.5)
    with pytest.raises(ValueError, match=r"power = 0.05 with alpha = 0.1; wanted a power above alpha"):
        two_rates(0.5, 0.1, alpha=0.1, power=0.05)
