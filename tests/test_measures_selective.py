"""Precision where it is sure, and the risk-coverage curve: against scipy, by hand, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rlhf.measures import selective
from rlhf.measures.ranking import accuracy


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.8, 0.95, 0.99]))
def test_the_exact_interval_is_scipys(successes: int, more: int, level: float) -> None:
    n = successes + more
    found = selective.clopper_pearson(successes, n, level)
    if n == 0:
        assert (found.low, found.high) == (0.0, 1.0)
        return
    wanted = binomtest(successes, n).proportion_ci(level, method="exact")
    assert found.low == pytest.approx(wanted.low, abs=1e-12) and found.high == pytest.approx(wanted.high, abs=1e-12)


def test_the_exact_interval_covers_at_least_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).binomial(40, 0.85, 2000)
    held = [(i := selective.clopper_pearson(int(k), 40)).low <= 0.85 <= i.high for k in draws]
    assert np.mean(held) >= 0.95


def test_precision_counts_what_is_sure_enough_right_or_wrong() -> None:
    logit = float(np.log(0.9 / 0.1))
    found = selective.precision_above([logit + 0.1, -logit - 0.1, logit + 2, 0.3, -0.3, 0.0], 0.9)
    assert (found.n, found.n_above, found.n_right) == (6, 3, 2.0)
    assert found.precision == pytest.approx(2 / 3) and found.coverage == 0.5
    none = selective.precision_above([0.1, -0.1], 0.9)
    assert none.precision is None and (none.interval.low, none.interval.high) == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"0\.5 to below 1"):
        selective.precision_above([1.0], 0.3)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_the_curve_ends_at_the_error_rate_and_order_does_not_matter(margins: list[float], chance: object) -> None:
    coverages, risks = selective.risk_coverage(margins)
    assert coverages[-1] == 1.0 and risks[-1] == pytest.approx(1 - accuracy(margins), abs=1e-9)
    turned = list(margins)
    chance.shuffle(turned)  # type: ignore[attr-defined]
    assert selective.aurc(turned) == pytest.approx(selective.aurc(margins), abs=1e-9)


def test_being_surest_where_it_is_right_lowers_the_area_below_the_error_rate() -> None:
    right_first, wrong_first = [4.0, 3.0, 2.0, -1.0], [-4.0, 3.0, 2.0, 1.0]
    assert selective.aurc(right_first) == pytest.approx((0 + 0 + 0 + 1 / 4) / 4)
    assert selective.aurc(wrong_first) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert selective.aurc([1.0, -1.0, 1.0, -1.0]) == pytest.approx(0.5)  # equally sure of all: it tells nothing


def test_the_curve_has_few_points_and_ends_with_all_pairs() -> None:
    points = selective.curve(np.linspace(-1, 2, 1000), 20)
    assert len(points) == 20 and points[-1].coverage == 1.0 and points[0].coverage == 0.05
    assert [p.margin for p in points] == sorted((p.margin for p in points), reverse=True)
    assert len(selective.curve([1.0, -2.0])) == 2
