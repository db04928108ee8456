"""The always-valid test: looked at after every batch it raises no more false alarms than it says, and a fixed test does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import table_statistics

from rlhf.measures import always_valid
from rlhf.measures.always_valid import half_width, log_evidence, p_values

SIMULATED = table_statistics()
RUNS = 2000


@pytest.mark.parametrize("kind", SIMULATED.KINDS)
def test_two_thousand_null_experiments_looked_at_after_every_batch_stay_under_alpha(kind: str) -> None:
    """The same 50 looks with a test that was made for one find something in far more of them."""
    told = SIMULATED.null_looks(kind, runs=RUNS)
    assert told["always valid"] <= 0.05
    beyond_chance = 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)
    assert told["fixed test, the last look alone"] < beyond_chance < told["fixed test, every look"]


def test_users_who_come_back_raise_no_more_false_alarms() -> None:
    told = SIMULATED.returning(runs=500)
    assert told["always valid"] <= 0.05 < 0.1 < told["fixed test, every look"]


@pytest.mark.parametrize("effect", SIMULATED.EFFECTS)
def test_the_interval_holds_an_effect_at_all_looks_at_once(effect: str) -> None:
    told = SIMULATED.effect_looks(effect, runs=500)
    assert told["interval holds it at all looks"] >= 0.95 > 0.85 > told["fixed interval, all looks"]
    assert told["found by the end"] > 0.15


@given(st.floats(-8, 8), st.integers(1, 10**7), st.floats(10, 1e6), st.floats(0.001, 0.3))
def test_the_interval_is_what_the_test_does_not_pass(z: float, n: int, planned: float, alpha: float) -> None:
    """Two roads to one decision: evidence beyond 1 / alpha, and an interval without zero."""
    evidence, half = float(log_evidence(z, n, planned, alpha)), float(half_width(1.0, n, planned, alpha))
    if abs(abs(z) - half) > 1e-6:
        assert (evidence >= math.log(1 / alpha)) == (abs(z) > half)


@given(st.floats(0.001, 0.3), st.floats(0.3, 3.0))
def test_the_interval_is_narrowest_in_its_standard_errors_at_the_plan(alpha: float, factor: float) -> None:
    at, beside = (float(half_width(1.0, n, 1000, alpha)) for n in (1000, 1000 * factor))
    assert at <= beside + 1e-12


def test_evidence_is_a_fair_bet_under_no_difference() -> None:
    """Its mean is 1 at every look: the mixture's integral, by quadrature over z."""
    z = np.linspace(-60, 60, 200_001)
    for n in (1, 500, 5000, 20_000):
        mean = np.trapezoid(np.exp(log_evidence(z, n) - z**2 / 2), z) / math.sqrt(2 * math.pi)
        assert mean == pytest.approx(1.0, abs=1e-6)


def test_p_never_rises_and_nonsense_is_refused() -> None:
    assert p_values([-3.0, 1.0, 0.5, 4.0]).tolist() == pytest.approx([1, math.exp(-1), math.exp(-1), math.exp(-4)])
    with pytest.raises(ValueError, match="planned"):
        always_valid.log_evidence(1.0, 10, planned=0)
    with pytest.raises(ValueError, match="alpha"):
        always_valid.half_width(1.0, 10, alpha=1.0)
