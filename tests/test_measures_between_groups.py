"""Groups against each other: against formulas by hand and fairlearn, and in simulations in which the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest

from rlhf.measures.between_groups import Sums, compare, sums_of


def drawn(
    generator: np.random.Generator, means: Sequence[float], n_clusters: int = 25, size: int = 3, rho: float = 0.4
) -> Sums:
    """Shares: n_clusters of each group, `size` rows each, which are alike with probability rho."""
    values, members, clusters = [], [], []
    for group, mean in enumerate(means):
        for cluster in range(n_clusters):
            shared = generator.random() < mean
            for _ in range(size):
                values.append(shared if generator.random() < rho else generator.random() < mean)
                members.append(group)
                clusters.append(group * n_clusters + cluster)
    return sums_of(values, np.array(members)[:, None] == np.arange(len(means)), clusters, share=True)


def test_the_difference_and_its_error_are_the_formulas_of_two_independent_samples() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(1.0, 1.0, 200), generator.normal(0.4, 2.0, 300)
    members = np.arange(500)[:, None] < 200
    found = compare(sums_of(np.append(a, b), np.hstack([members, ~members]), np.arange(500)), [(0, 1)], n_boot=4000)
    error = np.sqrt(a.var() / 200 + b.var() / 300)
    assert found.values_K[0] == pytest.approx(a.mean() - b.mean())
    assert (found.high_K[0] - found.low_K[0]) / 2 == pytest.approx(1.96 * error, rel=0.05)
    assert found.largest_high == pytest.approx(found.high_K[0]) and found.p_K[0] == pytest.approx(1 / 4001)
    assert "500 clusters" in found.method and "simultaneous" not in found.method


def test_rows_that_are_paired_in_their_clusters_are_compared_as_pairs() -> None:
    generator = np.random.default_rng(1)
    common = generator.normal(0, 5, 40)
    values = np.concatenate([common + 0.3 + generator.normal(0, 0.2, 40), common])
    members = np.arange(80)[:, None] < 40
    paired = compare(sums_of(values, np.hstack([members, ~members]), np.tile(np.arange(40), 2)), [(0, 1)])
    apart = compare(sums_of(values, np.hstack([members, ~members]), np.arange(80)), [(0, 1)])
    assert paired.p_K[0] < 0.002 < 0.5 < apart.p_K[0]
    assert paired.high_K[0] - paired.low_K[0] < 0.1 * (apart.high_K[0] - apart.low_K[0])


def test_a_gap_that_is_the_same_in_every_cluster_is_certain_and_none_at_all_is_nothing() -> None:
    common = np.random.default_rng(2).normal(0, 5, 12)
    members = np.arange(36)[:, None] // 12 == np.arange(3)
    values = np.concatenate([common + 0.25, common, common])
    found = compare(sums_of(values, members, np.tile(np.arange(12), 3)), [(0, 1), (1, 2)])
    assert found.values_K.tolist() == pytest.approx([0.25, 0.0])
    assert found.p_K.tolist() == pytest.approx([1 / 2001, 1.0])
    assert (found.largest, found.largest_low) == (0, pytest.approx(0.25))


def test_a_group_that_is_always_right_is_not_taken_for_certain() -> None:
    values = np.array([1.0] * 30 + [1.0] * 30)
    members = np.arange(60)[:, None] // 30 == np.arange(2)
    found = compare(sums_of(values, members, np.arange(60), share=True), [(0, 1)])
    assert found.values_K[0] == 0 and found.largest_low == 0 and found.largest_high > 0.05


def test_a_ratio_is_the_smaller_over_the_larger_and_needs_means_above_zero() -> None:
    of = drawn(np.random.default_rng(3), (0.9, 0.6), 60)
    found = compare(of, [(0, 1)], scale="ratio")
    means = of.means_G
    assert found.values_K[0] == pytest.approx(means[0] / means[1])
    assert found.largest_low < means[1] / means[0] < found.largest_high < 1
    members = np.arange(4)[:, None] // 2 == np.arange(2)
    with pytest.raises(ValueError, match="above 0"):
        compare(sums_of([0, 0, 1, 1], members, np.arange(4)), [(0, 1)], scale="ratio")


def test_means_differences_and_ratios_are_fairlearns() -> None:
    from fairlearn.metrics import MetricFrame

    generator = np.random.default_rng(4)
    values, groups = generator.random(300), generator.choice(["x", "y", "z"], 300)
    frame = MetricFrame(
        metrics=lambda _, v: float(np.mean(v)), y_true=np.ones(300), y_pred=values, sensitive_features=groups
    )
    of = sums_of(values, groups[:, None] == np.array(["x", "y", "z"]), np.arange(300))
    pairs = list(combinations(range(3), 2))
    assert of.means_G.tolist() == pytest.approx(frame.by_group.tolist())
    found = compare(of, pairs, n_boot=50)
    assert abs(found.values_K[found.largest]) == pytest.approx(frame.difference(method="between_groups"))
    ratios = compare(of, pairs, scale="ratio", n_boot=50).values_K
    assert min(np.minimum(ratios, 1 / ratios)) == pytest.approx(frame.ratio(method="between_groups"))


def test_the_same_seed_gives_the_same_and_what_cannot_be_compared_is_refused() -> None:
    of = drawn(np.random.default_rng(5), (0.7, 0.6))
    one, two, other = (compare(of, [(0, 1)], seed=seed) for seed in (0, 0, 1))
    assert (one.low_K == two.low_K).all() and one.low_K[0] != other.low_K[0]
    with pytest.raises(ValueError, match="0 comparisons"):
        compare(of, [])
    with pytest.raises(ValueError, match="no rows"):
        sums_of([1.0], [[True, False]], [0])
    with pytest.raises(ValueError, match="values"):
        sums_of([1.0, 2.0], [[True]], [0])


def test_p_values_of_nulls_keep_their_level() -> None:
    """400 data sets with nothing to find, 15 clusters a group, shares near 1, rows alike within a cluster."""
    generator = np.random.default_rng(6)
    p = [compare(drawn(generator, (0.85, 0.85), 15), [(0, 1)], n_boot=300).p_K[0] for _ in range(400)]
    assert np.mean(np.array(p) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


@pytest.mark.parametrize("means", [(0.7,) * 5, (0.5, 0.7, 0.7, 0.7, 0.9)])
def test_the_interval_of_the_largest_gap_holds_the_truth_although_it_was_looked_for(means: tuple[float, ...]) -> None:
    generator = np.random.default_rng(7)
    pairs, truth, n = list(combinations(range(5), 2)), max(means) - min(means), 300
    found = [compare(drawn(generator, means), pairs, n_boot=300) for _ in range(n)]
    held = np.mean([f.largest_low <= truth <= f.largest_high for f in found])
    assert held > 0.95 - 3 * np.sqrt(0.05 * 0.95 / n)
    assert np.mean([f.largest_low > 0 for f in found]) > 0.9 or truth == 0
    if truth == 0:  # the point is the largest of ten, far above 0; the interval doesn't say that it isn't chance
        assert np.mean([f.largest_low > 0 for f in found]) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / n)
        assert np.mean([abs(f.values_K[f.largest]) for f in found]) > 0.1


def test_the_least_variance_of_a_share_is_for_clusters_that_show_no_spread() -> None:
    def floor(values: list[float], a_cluster: int) -> float:
        clusters = np.arange(len(values)) // a_cluster
        return float(sums_of(values, np.ones((len(values), 1), bool), clusters, share=True).floors_G[0])

    assert floor([1.0, 0.0, 1.0, 1.0] * 225, 100) == 0.0, (
        "nine clusters of a hundred rows, each right in three quarters"
    )
    assert floor([1.0] * 900, 100) > floor([0.0] + [1.0] * 899, 100) > 0.0
    assert floor([0.0] * 900, 100) == floor([1.0] * 900, 100)
