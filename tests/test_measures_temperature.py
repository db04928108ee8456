from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.measures import ranking
from rlhf.measures.temperature import NoTemperature, cross_fitted, temperature


def votes(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Margins that mean what they say, and one vote each."""
    generator = np.random.default_rng(seed)
    margins = generator.normal(size=n)
    return margins, (generator.random(n) < ranking.sigmoid(margins)).astype(float)


def test_the_temperature_of_scores_that_are_too_large_is_their_factor() -> None:
    margins, targets = votes(20_000)
    assert temperature(margins, targets) == pytest.approx(1.0, rel=0.05)
    for factor in (0.2, 7.0):
        assert temperature(margins * factor, targets) == pytest.approx(factor, rel=0.05)


def test_it_is_least_in_log_loss_of_all_temperatures() -> None:
    margins, targets = votes(3000, 1)
    best = temperature(margins * 3, targets)
    losses = [ranking.log_losses(margins * 3 / (best * factor), targets).mean() for factor in (0.97, 1.0, 1.03)]
    assert losses[1] < min(losses[0], losses[2])


def test_shares_of_votes_give_what_the_votes_give() -> None:
    """A pair with the share 3/4 is what four pairs with one vote each are, but for the prior's weight; ties pull to 1/2."""
    margins, targets = votes(6000, 2)
    share = (targets + 0.5) / 2
    single = np.concatenate([[1.0] * round(s * 4) + [0.0] * round(4 - s * 4) for s in share])
    assert temperature(margins, share) == pytest.approx(temperature(np.repeat(margins, 4), single), rel=0.02)
    ties = temperature(np.r_[margins, margins], np.r_[targets, np.full(6000, 0.5)])
    assert ties > 1.3 * temperature(margins, targets)


def test_few_votes_leave_scores_nearly_as_they_are_and_clear_ones_do_not() -> None:
    """Dividing good probabilities by a noisy number would make them worse: under the prior the error of log T is halved."""
    found = [math.log(temperature(*votes(100, seed))) for seed in range(40)]
    assert np.sqrt(np.mean(np.square(found))) < 0.13, "likelihood alone has 0.2 here"
    margins, targets = votes(300, 5)
    assert temperature(margins * 10, targets) == pytest.approx(10, rel=0.35)


def test_an_opening_turn_counts_once_however_many_pairs_it_has() -> None:
    margins, targets = votes(40, 6)
    alone = temperature(margins * 2, targets)
    groups = np.repeat([f"turn {i}" for i in range(40)], 9)
    assert temperature(np.repeat(margins, 9) * 2, np.repeat(targets, 9), groups) == pytest.approx(alone, rel=1e-6)
    assert temperature(margins * 2, targets, [str(i) for i in range(40)]) == pytest.approx(alone, rel=1e-6)


def test_pairs_of_a_few_opening_turns_leave_good_scores_nearly_as_they_are() -> None:
    """Ten pairs of a turn share what is odd about it: counted one by one, they would be sure of a wrong temperature."""
    once, each = [], []
    for seed in range(30):
        generator = np.random.default_rng(seed)
        turns = np.repeat(np.arange(12), 10)
        odd = generator.normal(size=12)[
            turns
        ]  # what a scorer doesn't know of a turn makes all of its pairs wrong together
        margins = generator.normal(size=120) * 2
        targets = (generator.random(120) < ranking.sigmoid(margins * np.exp(odd))).astype(float)
        once.append(math.log(temperature(margins, targets, turns)))
        each.append(math.log(temperature(margins, targets)))
    assert np.sqrt(np.mean(np.square(once))) < 0.15
    assert np.sqrt(np.mean(np.square(once))) < 0.7 * np.sqrt(np.mean(np.square(each)))


@given(st.integers(1, 200), st.floats(1e-4, 2))
def test_pairs_that_are_all_ranked_rightly_give_no_certainty(n: int, size: float) -> None:
    found = temperature(np.full(n, size), np.ones(n))
    assert math.isfinite(found) and found > 0
    assert 0.5 < ranking.sigmoid(np.array([size / found]))[0] < 1 - 1 / (100 * (n + 2))


def test_scores_that_point_away_from_the_votes_have_none() -> None:
    with pytest.raises(NoTemperature):
        temperature([1.0, -1.0], [0.0, 1.0])
    with pytest.raises(NoTemperature):
        temperature([1.0, 2.0], [0.5, 0.5])


def test_which_reply_is_called_a_does_not_matter() -> None:
    margins, targets = votes(300, 3)
    turned = np.arange(300) % 2 == 0
    other = temperature(np.where(turned, -margins, margins), np.where(turned, 1 - targets, targets))
    assert other == pytest.approx(temperature(margins, targets), rel=1e-6)


def test_a_cross_fitted_margin_knows_nothing_of_its_own_group() -> None:
    margins, targets = votes(100, 4)
    groups = [str(i // 2) for i in range(100)]
    before, temperatures = cross_fitted(margins, targets, groups)
    changed = targets.copy()
    changed[:2] = 1 - changed[:2]
    after, _ = cross_fitted(margins, changed, groups)
    assert len(temperatures) == 5 and len(set(temperatures)) == 5
    assert after[:2] == pytest.approx(before[:2], abs=0) and not np.array_equal(after, before)
    assert np.array_equal(np.sign(before), np.sign(margins))
