"""Length within prompts, and a linear score without it: against scipy, scikit-learn and direct minimisation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import spearmanr

from rlhf.measures import length

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


def fitted(x: np.ndarray, ridge: float, extra: float = 0.0, u: np.ndarray | None = None) -> np.ndarray:
    """Minimum of sum log(1 + exp(-Xw)) + ridge/2 |w|² + extra/2 (u·w)², by brute force."""

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ w
        along = 0.0 if u is None else float(u @ w)
        value = np.logaddexp(0, -z).sum() + ridge / 2 * w @ w + extra / 2 * along**2
        slope = -x.T @ (1 / (1 + np.exp(z))) + ridge * w
        return value, slope if u is None else slope + extra * along * u

    found = minimize(loss, np.zeros(x.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-9})
    return np.asarray(found.x)


@pytest.fixture
def pairs() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    lengths = random.normal(size=200)
    return random.normal(size=(200, 5)) + lengths[:, None] * np.array([1, 0.5, 0, 0, 0]) + 0.3, lengths


def test_a_shrunken_direction_is_the_exact_length_penalty(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    x, lengths = pairs
    u = length.direction(x, length.signed_ranks(lengths))
    ridge, extra = 2.0, 50.0
    keep = np.sqrt(ridge / (ridge + extra))
    plain = fitted(length.shrunk_along(x, u, keep), ridge)
    assert length.shrunk_along(plain, u, keep) == pytest.approx(fitted(x, ridge, extra, u), abs=1e-5)


def test_keeping_nothing_leaves_no_correlation_with_length(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    x, lengths = pairs
    u = length.direction(x, lengths)
    before = length.pearson_both_ways(x @ fitted(x, 2.0), lengths)
    w = length.shrunk_along(fitted(length.shrunk_along(x, u, 0.0), 2.0), u, 0.0)
    assert before > 0.1
    assert abs(length.pearson_both_ways(x @ w, lengths)) < 1e-9


def test_nothing_to_take_out_takes_nothing_out() -> None:
    x = np.ones((3, 2))
    u = length.direction(x, np.zeros(3))
    assert not u.any()
    assert (length.shrunk_along(x, u, 0.0) == x).all()
