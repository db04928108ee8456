"""Holm's correction: against values worked out by hand, and against the family-wise error that it promises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from rlhf.measures.holm import holm


def test_values_worked_out_by_hand() -> None:
    # sorted .005 .01 .03 .04; times 4 3 2 1 = .02 .03 .06 .04; never smaller than the one before
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0] and holm([0.02]).tolist() == [0.02] and holm([]).shape == (0,)


def test_equal_p_values_stay_equal_and_order_is_kept() -> None:
    found = holm([0.02, 0.001, 0.02])
    assert found[0] == found[2] == pytest.approx(0.04) and found[1] == pytest.approx(0.003)


def test_what_is_no_p_value_is_refused() -> None:
    for wrong in ([0.1, 1.2], [-0.1], [[0.1]], [float("nan")]):
        with pytest.raises(ValueError, match="p-values"):
            holm(wrong)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_one_false_finding_among_twelve_is_as_rare_as_promised(correlation: float) -> None:
    """4,000 families of 12 tests of which 9 have nothing to find; the others are found by most."""
    generator = np.random.default_rng(3)
    n, truth = 4000, np.array([4.0, 4.5, 5.0] + [0.0] * 9)
    shared = generator.normal(size=(n, 1)) * np.sqrt(correlation)
    z = truth + shared + generator.normal(size=(n, 12)) * np.sqrt(1 - correlation)
    p = 2 * norm.sf(np.abs(z))
    found = np.array([holm(row) for row in p]) < 0.05
    wrong, uncorrected = found[:, 3:].any(axis=1).mean(), (p[:, 3:] < 0.05).any(axis=1).mean()
    assert wrong < 0.05 + 3 * np.sqrt(0.05 * 0.95 / n) < uncorrected
    assert found[:, :3].mean() > 0.8
