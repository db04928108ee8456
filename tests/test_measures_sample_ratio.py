"""Sample-ratio mismatch at one look and at many."""

from __future__ import annotations

import math

import numpy as np
import pytest
from simulated import table_statistics

from rlhf.measures.sample_ratio import p_value

RUNS = 250


def test_looked_at_after_every_unit_the_sequential_check_stays_under_alpha_and_chi_square_does_not() -> None:
    as_drawn, broken = table_statistics().shares(runs=RUNS)
    most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)
    assert as_drawn["sequential, every unit"] <= 0.05 and as_drawn["chi-square, once"] <= most
    assert as_drawn["chi-square, every 100"] > 0.12
    assert broken["sequential, every unit"] > 0.7


def test_it_is_pearsons_test() -> None:
    units, shares = np.array([480.0, 520.0, 1010.0]), np.array([0.25, 0.25, 0.5])
    expected = units.sum() * shares
    from scipy.stats import chi2

    assert p_value(units, shares) == pytest.approx(chi2.sf(((units - expected) ** 2 / expected).sum(), 2))
    assert p_value([10, 12], [0.5, 0.5]) == p_value([12, 10], [0.5, 0.5])


def test_an_arm_without_a_share_settles_it_and_nothing_says_nothing() -> None:
    assert p_value([5, 1, 0], [1.0, 0.0, 0.0]) == 0.0
    assert p_value([5, 0], [1.0, 0.0]) == p_value([0, 0], [0.5, 0.5]) == 1.0
    with pytest.raises(ValueError, match="shares"):
        p_value([1, 2], [0.5, 0.6])
