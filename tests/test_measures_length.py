"""Length within prompts, and a linear score without it: against scipy and direct minimisation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import spearmanr

from rlhf.measures import length
from rlhf.measures.bayes_logistic import fit, updated

NUMBERS = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=30)


@given(NUMBERS)
def test_signed_ranks_give_spearman_of_the_pairs_both_ways_round(pairs: list[tuple[int, int]]) -> None:
    gaps, lengths = np.array(pairs, dtype=float).T
    if not gaps.any() or not lengths.any():
        assert length.spearman_both_ways(gaps, lengths) == 0.0
        return
    whole = spearmanr(np.r_[gaps, -gaps], np.r_[lengths, -lengths]).statistic
    assert length.spearman_both_ways(gaps, lengths) == pytest.approx(whole, abs=1e-9)


@given(NUMBERS)
def test_turning_a_pair_round_changes_no_correlation(pairs: list[tuple[int, int]]) -> None:
    gaps, lengths = np.array(pairs, dtype=float).T
    signs = np.where(np.arange(gaps.size) % 2, 1.0, -1.0)
    for correlation in (length.spearman_both_ways, length.pearson_both_ways):
        assert correlation(signs * gaps, signs * lengths) == pytest.approx(correlation(gaps, lengths), abs=1e-12)


def test_a_prompt_that_draws_long_replies_and_high_scores_counts_for_nothing() -> None:
    lengths = np.array([1.0, 2, 3, 101, 102, 103])
    scores = np.array([0.3, 0.2, 0.1, 9.3, 9.2, 9.1])
    assert length.within_prompts(scores, lengths, ["p"] * 3 + ["q"] * 3) == (pytest.approx(-1.0), 2)
    assert np.corrcoef(scores, lengths)[0, 1] > 0.9


def test_replies_of_one_length_say_nothing() -> None:
    assert length.within_prompts([1.0, 2.0], [5, 5], ["p", "p"]) is None
    assert length.within_prompts([1.0, 2.0, 3.0], [1, 2, 3], ["p", "q", "r"]) is None
    with pytest.raises(ValueError, match="2 prompts for 3 scores"):
        length.within_prompts([1.0, 2.0, 3.0], [1, 2, 3], ["p", "q"])


def test_two_replies_a_prompt_give_the_pairs_figure() -> None:
    random = np.random.default_rng(0)
    scores, lengths = random.normal(size=(40, 2)), random.normal(size=(40, 2))
    prompts = [str(i) for i in range(40) for _ in range(2)]
    found = length.within_prompts(scores.ravel(), lengths.ravel(), prompts)
    signs = np.sign(np.diff(scores).ravel()), np.sign(np.diff(lengths).ravel())
    assert found is not None and found[0] == pytest.approx(length.pearson_both_ways(*signs))


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences whose first two features are partly length, and answers that follow the first."""
    random = np.random.default_rng(1)
    lengths = random.normal(size=300)
    x = random.normal(size=(300, 6)) + lengths[:, None] * np.array([1, 0.5, 0, 0, 0, 0])
    return x, (x[:, 0] + random.normal(size=300) > 0).astype(float), length.signed_ranks(lengths)


@pytest.mark.parametrize("penalty", [0.05, 1.0, 20.0])
def test_the_length_penalty_is_the_minimum_of_the_penalised_loss(
    answers: tuple[np.ndarray, np.ndarray, np.ndarray], penalty: float
) -> None:
    """Against a minimiser, on the quadratic that Laplace's posterior is, with its whole matrices."""
    x, y, ranks = answers
    before = fit(x, y, precision=3.0)
    covariance = np.eye(6) / before.precision - before.shrink @ before.shrink.T
    curvature, standard = np.linalg.inv(covariance), x / before.scale
    spread = np.mean((standard @ before.weight) ** 2) * np.mean(ranks**2)
    m = standard.T @ ranks / len(ranks)

    def loss(w: np.ndarray) -> float:
        off = w - before.weight
        return float(off @ curvature @ off / 2 + penalty * len(ranks) * (m @ w) ** 2 / spread)

    found = length.without_length(before, x, ranks, penalty)
    assert found.weight == pytest.approx(minimize(loss, before.weight, tol=1e-10).x, abs=1e-4)
    wanted = np.linalg.inv(curvature + 2 * penalty * len(ranks) * np.outer(m, m) / spread)
    assert np.allclose(np.eye(6) / found.precision - found.shrink @ found.shrink.T, wanted, atol=1e-9)


def test_a_larger_penalty_leaves_less_correlation_and_infinity_none(
    answers: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    x, y, ranks = answers
    before = fit(x, y, precision=3.0)
    left = [
        length.pearson_both_ways(length.without_length(before, x, ranks, penalty).logits(x), ranks)
        for penalty in (0.0, 0.1, 1.0, 10.0, np.inf)
    ]
    assert left[0] == length.pearson_both_ways(before.logits(x), ranks) > 0.3
    assert all(less < more for more, less in itertools.pairwise(left))
    assert abs(left[-1]) < 1e-9


def test_later_answers_bring_no_length_back(answers: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    x, y, ranks = answers
    now = length.without_length(fit(x, y, precision=3.0), x, ranks, np.inf)
    for difference in np.random.default_rng(3).normal(size=(20, 6)):
        now = updated(now, difference, 1.0)
    assert abs(length.pearson_both_ways(now.logits(x), ranks)) < 1e-9


def test_where_length_says_nothing_nothing_is_taken_out(answers: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    x, y, ranks = answers
    before = fit(x, y, precision=3.0)
    assert length.without_length(before, x, np.zeros(len(x)), 1.0) is before
    assert length.without_length(before, x, ranks, 0.0) is before
    with pytest.raises(ValueError, match="penalty = -1"):
        length.without_length(before, x, ranks, -1.0)
