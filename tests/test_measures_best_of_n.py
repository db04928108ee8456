"""Best of n: exact expectations over all draws."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from rlhf.measures.best_of_n import best_of_n, best_of_n_kl, best_of_n_over_starts


def test_it_is_the_mean_over_every_draw() -> None:
    generator = np.random.default_rng(0)
    proxy, truth = generator.normal(size=(3, 7)), generator.normal(size=(3, 7))
    found = best_of_n(proxy, truth, [1, 2, 5, 7])
    for row in range(3):
        for column, n in enumerate([1, 2, 5, 7]):
            picked = [truth[row, max(draw, key=lambda i: proxy[row, i])] for draw in combinations(range(7), n)]
            assert found[row, column] == pytest.approx(np.mean(picked))


def test_equal_proxies_share_their_truth() -> None:
    assert best_of_n([[1.0, 1.0, 0.0]], [[2.0, 4.0, 9.0]], [1, 3])[0] == pytest.approx([5.0, 3.0])


def test_the_truth_as_its_own_proxy_only_rises() -> None:
    truth = np.random.default_rng(1).normal(size=(4, 16))
    assert (np.diff(best_of_n(truth, truth, [1, 2, 4, 8, 16]), axis=1) >= 0).all()
    assert best_of_n(truth, truth, [16])[:, 0] == pytest.approx(truth.max(axis=1))


def test_kl_of_best_of_one_is_zero_and_rises() -> None:
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(2) < best_of_n_kl(4) < np.log(4)


@pytest.mark.parametrize("ns", [[0], [4], [1, 9]])
def test_more_draws_than_replies_are_refused(ns: list[int]) -> None:
    with pytest.raises(ValueError, match="1 to 3"):
        best_of_n(np.zeros((1, 3)), np.zeros((1, 3)), ns)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        best_of_n(np.zeros((1, 3)), np.zeros((1, 4)), [1])


def test_over_all_starts_best_of_one_is_a_half_and_the_luck_of_one_start_is_gone() -> None:
    points = np.random.default_rng(4).normal(size=(30, 9))
    wins = (np.sign(points[:, :, None] - points[:, None, :]) + 1) / 2
    found = best_of_n_over_starts(points, wins, [1, 2, 4, 8])
    assert found[:, 0] == pytest.approx(np.full(30, 0.5))
    assert found.mean(axis=0) == pytest.approx([n / (n + 1) for n in (1, 2, 4, 8)]), (
        "of n + 1 draws the largest is among n"
    )
    by_one = best_of_n(points[:, 1:], wins[:, 1:, 0], [1, 2, 4, 8])
    assert by_one.std(axis=0)[1] > 3 * found.std(axis=0)[1]
    with pytest.raises(ValueError, match="replies again"):
        best_of_n_over_starts(points, wins[:, :, 0], [1])
