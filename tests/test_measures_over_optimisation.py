"""A fall is told where the truth falls while the proxy rises, and seldom where it doesn't."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf.measures.over_optimisation import fall


def points(truths: list[float], n: int = 300, seed: int = 0) -> np.ndarray:
    """Wins of each point, (K, n), prompts of which some are easy."""
    generator = np.random.default_rng(seed)
    easy = generator.normal(0, 0.1, n)
    return (generator.random((len(truths), n)) < np.array(truths)[:, None] + easy).astype(float)


def test_a_hump_under_a_rising_proxy_is_a_fall_from_its_top() -> None:
    truth, proxy = points([0.5, 0.65, 0.75, 0.55, 0.45]), points([0.5, 0.6, 0.7, 0.8, 0.9], seed=1)
    found = fall(proxy, truth)
    assert found is not None and (found.best, found.at) == (2, 3)
    assert found.truth == pytest.approx(truth[3].mean() - truth[2].mean()) and found.proxy > 0
    assert found.interval.low <= found.truth <= found.interval.high < 0
    assert found.interval.level == pytest.approx(1 - 0.05 / 10)


def test_a_truth_that_falls_with_its_proxy_is_no_over_optimisation() -> None:
    truth = points([0.5, 0.75, 0.5])
    assert fall(points([0.5, 0.8, 0.5], seed=1), truth) is None
    assert fall(points([0.5, 0.6, 0.7], seed=1), points([0.5, 0.6, 0.7], seed=2)) is None


def test_points_that_are_all_alike_are_seldom_said_to_have_fallen() -> None:
    """The best of ten is chosen on the data: without the adjustment a fall would be seen in most of these."""
    found = [fall(points([0.5] * 10, 120, seed), points([0.6] * 10, 120, seed + 1000)) for seed in range(60)]
    assert sum(one is not None for one in found) <= 4


def test_prompts_of_one_opening_turn_tell_of_one() -> None:
    truth, proxy = np.array([[1.0] * 40, [0.0] * 40]), np.array([[0.5] * 40, [1.0] * 40])
    assert fall(proxy, truth) is not None
    assert fall(proxy, truth, ["one opening"] * 40) is None
    with pytest.raises(ValueError, match="shapes"):
        fall(proxy, truth[:, :3])
