from __future__ import annotations

import numpy as np
import pytest

from rlhf.measures.ranking import sigmoid
from rlhf.measures.threshold import guaranteed, held, one_a_group


def scorer(n: int, seed: int, size: float = 1.5) -> np.ndarray:
    """Margins of a calibrated scorer: positive where a vote chose what it chose."""
    generator = np.random.default_rng(seed)
    margins = generator.normal(size=n) * size
    return np.where(generator.random(n) < sigmoid(margins), margins, -margins)


def test_the_guarantee_holds_as_often_as_it_says_near_the_target() -> None:
    """The hardest case: sureness says nothing, and every choice is right with the target's own chance, or just below it."""
    generator, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        right = generator.random(200) < 0.795
        margins = np.where(right, 1.0, -1.0) * generator.random(200)
        wrong += guaranteed(margins, np.arange(200), target=0.8).margin is not None
    assert wrong <= 200 * 0.1 + 9  # two standard deviations


def test_a_good_scorer_has_a_threshold_that_holds_on_other_pairs() -> None:
    found = guaranteed(scorer(3000, 1), np.arange(3000))
    assert found.margin is not None and found.coverage is not None and 0.3 < found.coverage < 0.8
    other = held(found.margin, scorer(50_000, 2))
    assert other.precision is not None and other.precision > 0.8
    assert other.n_above / other.n == pytest.approx(found.coverage, abs=0.05)
    easier = guaranteed(scorer(3000, 1), np.arange(3000), target=0.6)
    assert easier.coverage is not None and easier.coverage > found.coverage


def test_it_may_say_that_there_is_none() -> None:
    for margins in (scorer(3000, 3, size=0.01), scorer(12, 3), np.zeros(500)):
        found = guaranteed(margins, np.arange(len(margins)))
        assert (found.margin, found.coverage, found.precision) == (None, None, None)
        assert found.n == len(margins)


def test_many_pairs_of_few_prompts_prove_nothing() -> None:
    """400 copies of 4 prompts that were ranked rightly are 4 prompts."""
    margins = np.linspace(1, 2, 400)
    assert guaranteed(margins, np.arange(400)).margin == 0.0
    assert guaranteed(margins, np.arange(400) % 4).margin is None


def test_one_pair_of_each_group_is_drawn() -> None:
    groups = np.array(list("aabbbc"))
    drawn = [one_a_group(groups, seed) for seed in range(30)]
    assert all(sorted(groups[d].tolist()) == ["a", "b", "c"] for d in drawn)
    assert {int(d[0]) for d in drawn} == {0, 1}, "each of a's pairs at some time"
    assert np.array_equal(one_a_group(groups, 3), one_a_group(groups, 3))


def test_a_threshold_on_pairs_that_all_lie_below_it_says_nothing() -> None:
    found = held(5.0, [1.0, -1.0])
    assert (found.n, found.n_above, found.precision) == (2, 0, None)
    assert (found.interval.low, found.interval.high) == (0.0, 1.0)


def test_targets_outside_0_to_1_are_refused() -> None:
    with pytest.raises(ValueError, match="target = 1"):
        guaranteed([1.0], ["a"], target=1.0)
