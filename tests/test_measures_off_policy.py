"""Off-policy estimates: unbiased where the log supports them, and refused where it doesn't."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rlhf.measures import off_policy
from rlhf.measures.off_policy import LEAST_ESS, Log, always, estimates, evaluate, uniform

CHANCES = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])  # of the logger, by context
RATES = np.array([[0.1, 0.3, 0.5], [0.4, 0.2, 0.1]])  # of the reward
NAMES, PLACES = ["x", "y", "z"], ["left", "right"]


def logged(n: int, seed: int, chances: NDArray[np.float64] = CHANCES) -> Log:
    draw = np.random.default_rng(seed)
    context = draw.integers(0, 2, n)
    action = (draw.random((n, 1)) > chances[context].cumsum(axis=1)[:, :-1]).sum(axis=1)
    reward = (draw.random(n) < RATES[context, action]).astype(float)
    return Log(action, context, reward, chances[context, action], NAMES, PLACES)


def test_all_three_are_right_in_the_mean_and_the_doubly_robust_one_is_calmest() -> None:
    """1,500 logs of 400 rows: the mean of the estimates is the truth, within what so many logs can tell."""
    found = []
    for seed in range(1500):
        log = logged(400, seed)
        target = uniform(log)
        w = target[log.context_N, log.action_N] / log.propensity_N
        ips, snips, dr = estimates(log, target, w, seed)
        found.append((ips.mean(), snips.sum() / w.sum(), dr.mean()))
    truth, values = RATES.mean(), np.array(found)
    bias, sd = values.mean(axis=0) - truth, values.std(axis=0)
    assert (np.abs(bias) < 3.5 * sd / np.sqrt(len(values))).all(), bias
    assert sd[2] < sd[1] < sd[0]


def test_a_row_has_no_part_in_its_own_prediction() -> None:
    log = logged(300, 1)
    own, _ = off_policy.cross_fitted(log, uniform(log))
    for row in (0, 17, 299):
        moved = replace(log, reward_N=np.where(np.arange(300) == row, 100.0, log.reward_N))
        assert off_policy.cross_fitted(moved, uniform(log))[0][row] == own[row]
    together = replace(log, unit_N=np.arange(300) // 3)
    own, _ = off_policy.cross_fitted(together, uniform(log))
    moved = replace(together, reward_N=np.where(np.arange(300) // 3 == 4, 100.0, log.reward_N))
    assert (off_policy.cross_fitted(moved, uniform(log))[0][12:15] == own[12:15]).all(), "nor has its unit"


def test_the_loggers_own_policy_is_worth_what_was_earned() -> None:
    log = logged(2000, 2)
    found = evaluate(log, CHANCES)
    assert (found.ess, found.max_weight, found.mean_weight) == pytest.approx((2000, 1, 1))
    assert found.ips is not None and found.snips is not None
    assert found.ips.value == pytest.approx(log.reward_N.mean()) == found.snips.value


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = np.zeros(3)
    for seed in range(300):
        log = logged(600, seed)
        found = evaluate(log, uniform(log), n_boot=300, seed=seed)
        assert found.ips and found.snips and found.dr
        held += [RATES.mean() in one.interval for one in (found.ips, found.snips, found.dr)]
    assert (held / 300 > 0.91).all(), held / 300


def test_rows_of_one_user_widen_the_interval() -> None:
    log = logged(500, 3)
    columns = (log.action_N, log.context_N, log.reward_N, log.propensity_N)
    many = Log(*(np.repeat(column, 20) for column in columns), NAMES, PLACES)
    owned = replace(many, unit_N=np.repeat(np.arange(500), 20))
    alone, together = evaluate(many, uniform(many)), evaluate(owned, uniform(owned))
    assert alone.ips and together.ips
    width = [one.interval.high - one.interval.low for one in (alone.ips, together.ips)]
    assert width[1] > 3 * width[0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.02, 0.9))
def test_names_are_only_names(seed: int, share: float) -> None:
    """Actions in another order, contexts in another order: the same figures."""
    log = logged(300, seed)
    target = np.array([[share, 1 - share, 0], [0, share, 1 - share]])
    turned = replace(log, action_N=2 - log.action_N, context_N=1 - log.context_N)
    turned = replace(turned, actions=NAMES[::-1], contexts=PLACES[::-1])
    one, other = evaluate(log, target, n_boot=20), evaluate(turned, target[::-1, ::-1], n_boot=20)
    assert one.refused == other.refused and one.ess == pytest.approx(other.ess)
    if one.ips and other.ips and one.dr and other.dr:
        assert (one.ips.value, one.dr.value) == pytest.approx((other.ips.value, other.dr.value))


def test_without_support_no_number_is_given() -> None:
    log = logged(2000, 4)
    more = replace(log, actions=[*NAMES, "never"])
    found = evaluate(more, always(more, 3))
    assert found.refused and "never" in str(found.reason) and found.ips is found.snips is found.dr is None
    assert found.ess == 0.0, "told all the same"
    impossible = replace(log, propensity_N=np.where(np.arange(2000) == 5, 0.0, log.propensity_N))
    assert "propensity 0" in str(evaluate(impossible, uniform(log)).reason)


def test_support_that_one_context_lacks_is_found() -> None:
    """A logger that never shows z on the left and always says so: the weights there fall short of 1."""
    log = logged(4000, 5, np.array([[0.7, 0.3, 0.0], [0.1, 0.3, 0.6]]))
    found = evaluate(log, uniform(log))
    assert "in context left the target chooses z in 33%" in str(found.reason)
    told_nothing_of_it = replace(log, context_N=np.zeros(4000, dtype=int), contexts=("",))
    assert "weights average 0.8" in str(evaluate(told_nothing_of_it, uniform(told_nothing_of_it)).reason)
    assert not evaluate(log, np.array([[0.5, 0.5, 0.0], [0.2, 0.2, 0.6]])).refused, "the target doesn't want it there"


def test_propensities_that_were_not_drawn_with_are_disbelieved() -> None:
    log = logged(4000, 6)
    halved = replace(log, propensity_N=log.propensity_N / 2)
    assert "smaller than those" in str(evaluate(halved, uniform(log)).reason)


def test_few_effective_rows_are_refused_however_many_there_are() -> None:
    few = logged(90, 7)
    found = evaluate(few, CHANCES)
    assert found.refused and "90.0 of 90 rows, wanted 100" in str(found.reason)
    n = 60_000  # one action in a thousand: its rows are many, and under 1 % of all
    rare = np.array([[0.997, 0.002, 0.001], [0.997, 0.002, 0.001]])
    found = evaluate(logged(n, 8, rare), always(logged(10, 8), 1))
    assert LEAST_ESS < found.ess < 0.01 * n and "wanted 1% or more" in str(found.reason)


def test_no_reward_at_all_is_not_certainty() -> None:
    log = replace(logged(1000, 9), reward_N=np.zeros(1000))
    found = evaluate(log, uniform(log))
    assert found.ips and found.ips.value == 0.0 and found.ips.interval.high > 0.003
    assert any("0 rows have a reward" in note for note in found.notes)


def test_nonsense_is_refused() -> None:
    log = logged(10, 10)
    with pytest.raises(ValueError, match="propensity"):
        replace(log, propensity_N=np.full(10, 1.5))
    with pytest.raises(ValueError, match="finite"):
        replace(log, reward_N=np.full(10, np.nan))
    with pytest.raises(ValueError, match="no rows"):
        Log(*(np.zeros(0, dtype=int) for _ in range(2)), np.zeros(0), np.zeros(0), NAMES)
    with pytest.raises(ValueError, match="sum to 1"):
        evaluate(log, np.full((2, 3), 0.5))
    with pytest.raises(ValueError, match="a target of"):
        evaluate(log, np.full((1, 3), 1 / 3))


def test_three_units_tell_no_interval_and_so_no_estimate() -> None:
    log = replace(logged(2000, 3), unit_N=np.arange(2000) % 3)
    found = off_policy.evaluate(log, uniform(log))
    assert found.refused and found.reason is not None and "3 units are too few" in found.reason and found.ess > 100
    assert not off_policy.evaluate(replace(log, unit_N=np.arange(2000) % 5), uniform(log)).refused
