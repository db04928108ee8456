"""A confidence sequence of a bounded mean: right at every look at once, soon where the effect is large."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from rlhf.ids import unit_interval
from rlhf.measures.betting import STAKES, confidence_sequence, log_capital

LOOKS = range(20, 401, 20)


def decided(values: np.ndarray) -> int | None:
    """Units at the first look at which the bets, on either side, refute a half."""
    for look in LOOKS:
        if max(log_capital(values[:look], 0.5), log_capital(1 - values[:look], 0.5)) >= math.log(2 / 0.05):
            return look
    return None


def test_a_coin_by_hash_is_decided_in_at_most_one_of_twenty_runs_however_often_it_is_looked_at() -> None:
    runs = [np.array([float(unit_interval(run, f"prompt {i}") < 0.5) for i in range(400)]) for run in range(500)]
    n_false = sum(decided(run) is not None for run in runs)
    assert 0 < n_false <= 0.05 * len(runs), "a test that never errs would be too timid to decide anything"


def test_the_interval_leaves_out_what_the_bets_refute_and_nothing_else() -> None:
    generator = np.random.default_rng(3)
    for p in (0.5, 0.6, 0.8, 0.2):
        values = (generator.random(400) < p).astype(float)
        found = confidence_sequence(values, LOOKS)
        first = next((n for n, (low, high) in zip(LOOKS, found, strict=True) if low > 0.5 or high < 0.5), None)
        assert first == decided(values)


def test_ties_and_shares_of_an_opening_turn_count_as_what_they_are() -> None:
    """Values of one mean and less variance: no more false decisions, and a narrower interval than wins alone give."""
    generator = np.random.default_rng(0)
    runs = generator.choice([0.0, 0.25, 0.5, 1.0], p=[0.3, 0.1, 0.25, 0.35], size=(300, 400))  # mean 0.5
    assert sum(decided(run) is not None for run in runs) <= 15
    wins, ties = np.tile([0.0, 1.0], 100), np.tile([0.0, 0.5, 0.5, 1.0], 50)
    (wide,), (narrow,) = confidence_sequence(wins, [200]), confidence_sequence(ties, [200])
    assert wide[0] < narrow[0] < 0.5 < narrow[1] < wide[1]


def test_a_large_effect_is_decided_soon_and_a_smaller_one_later() -> None:
    generator = np.random.default_rng(1)
    middle = []
    for p in (0.9, 0.75, 0.65):
        needed = [decided((generator.random(400) < p).astype(float)) or 10_000 for _ in range(60)]
        middle.append(np.median(needed))
    assert middle[0] <= 40 and middle[0] < middle[1] < middle[2] < 400
    assert decided(np.ones(400)) == decided(np.zeros(400)) == 20


def test_the_interval_never_widens_holds_the_mean_and_mirrors() -> None:
    values = np.random.default_rng(2).random(300) ** 2
    found = confidence_sequence(values, range(10, 301, 10))
    assert all(a <= c <= d <= b for (a, b), (c, d) in pairwise(found))
    assert all(low < 1 / 3 < high for low, high in found)
    turned = confidence_sequence(1 - values, range(10, 301, 10))
    assert np.allclose([(1 - high, 1 - low) for low, high in turned], found)


def test_the_capital_is_what_betting_by_hand_gives() -> None:
    """The slow twin: each stake bets on each value in turn."""
    values, m = [1.0, 0.0, 0.5, 1.0], 0.4
    purses = []
    for stake in STAKES:
        purse = 1.0
        for value in values:
            purse *= 1 + stake * (value / m - 1)
        purses.append(purse)
    assert log_capital(values, m) == pytest.approx(math.log(sum(purses) / len(purses)))
    assert log_capital([0.5] * 9, 0.5) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("values", "looks", "alpha", "said"),
    [([0.5], [2], 0.05, "each 1 to 1"), ([1.5], [1], 0.05, r"in \[0, 1\]"), ([0.5], [1], 0.0, "alpha = 0.0")],
)
def test_what_can_not_be_bet_on_is_refused(values: list[float], looks: list[int], alpha: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        confidence_sequence(values, looks, alpha)
    with pytest.raises(ValueError, match="m = 0"):
        log_capital([0.5], 0)
