"""Doubt: the rewards' own chance to rank two replies to one prompt wrongly, held against its definition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.measures.doubt import doubt

FIGURES = st.floats(-20, 20)


def array(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float64)


@pytest.mark.parametrize("margin", [0.0, 0.5, 3.0, -3.0])
def test_one_reward_of_two_replies_is_the_chance_of_its_margin(margin: float) -> None:
    assert doubt(array([margin], [0.0]), ["p", "p"]) == pytest.approx(1 / (1 + math.exp(abs(margin))))


def test_equal_scores_are_a_coin_and_far_ones_are_sure() -> None:
    assert doubt(array([1.0], [1.0]), ["p", "p"]) == 0.5
    assert doubt(array([50.0], [-50.0]), ["p", "p"]) == pytest.approx(0.0, abs=1e-12)


def test_rewards_that_disagree_are_in_doubt_however_sure_each_is() -> None:
    sure = array([30.0, -30.0], [-30.0, 30.0])
    assert doubt(sure, ["p", "p"]) == pytest.approx(0.5)
    assert doubt(sure, ["p", "p"], [3.0, 1.0]) == pytest.approx(0.25), "the lighter one may be right"
    assert doubt(sure, ["p", "p"], [1.0, 0.0]) == pytest.approx(0.0, abs=1e-9)
    assert doubt(array([30.0, 30.0], [-30.0, -30.0]), ["p", "p"]) == pytest.approx(0.0, abs=1e-9)


def test_only_replies_to_one_prompt_are_compared() -> None:
    scores = array([1.0], [9.0], [1.0], [9.0])
    assert doubt(scores, ["p", "q", "p", "q"]) == 0.5
    assert doubt(scores, ["p", "p", "q", "q"]) == pytest.approx(1 / (1 + math.exp(8)))


def test_nothing_to_compare_is_a_coin() -> None:
    assert doubt(array([1.0], [2.0]), ["p", "q"]) == 0.5
    assert doubt(np.zeros((0, 1)), []) == 0.5


def test_what_does_not_fit_is_our_own_mistake() -> None:
    for scores, groups in ((array([1.0]), ["p", "p"]), (np.zeros(2), ["p", "p"])):
        with pytest.raises(ValueError, match="scores for"):
            doubt(scores, groups)


@given(st.lists(st.tuples(FIGURES, FIGURES, st.sampled_from("pqr")), min_size=1, max_size=8), st.floats(0.1, 5))
def test_it_is_the_mean_over_all_pairs_of_a_prompt(rows: list[tuple[float, float, str]], weight: float) -> None:
    wanted = []
    for (a0, a1, g), (b0, b1, h) in itertools.combinations(rows, 2):
        if g == h:
            p = (weight / (1 + math.exp(b0 - a0)) + 1 / (1 + math.exp(b1 - a1))) / (weight + 1)
            wanted.append(min(p, 1 - p))
    scores, groups = array(*([a, b] for a, b, _ in rows)), [g for *_, g in rows]
    found = doubt(scores, groups, [weight, 1.0])
    assert found == pytest.approx(np.mean(wanted) if wanted else 0.5, abs=1e-9)
    assert 0.0 <= found <= 0.5


@given(st.lists(FIGURES, min_size=2, max_size=6), st.floats(-50, 50))
def test_neither_order_nor_a_constant_matters(scores: list[float], shift: float) -> None:
    groups = ["p"] * len(scores)
    one = doubt(array(*([s] for s in scores)), groups)
    assert doubt(array(*([s] for s in reversed(scores))), groups) == pytest.approx(one, abs=1e-9)
    assert doubt(array(*([s + shift] for s in scores)), groups) == pytest.approx(one, abs=1e-9)
