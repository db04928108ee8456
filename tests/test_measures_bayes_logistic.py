"""Bayesian logistic regression on differences: scikit-learn's solution, both forms alike, one more answer near a refit."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from rlhf.measures import bayes_logistic, ranking
from rlhf.measures.ranking import sigmoid


def made(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences of unlike scale, soft targets and weights that a linear rule gives."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, d)) * np.exp(draw.normal(size=d))
    rule = draw.normal(size=d) / np.sqrt(d)
    votes = draw.integers(1, 6, size=n)
    p = sigmoid(2 * (x / x.std(axis=0)) @ rule)
    return x, draw.binomial(votes, p) / votes, votes.astype(float)


@pytest.mark.parametrize(("n", "d"), [(120, 7), (40, 90)], ids=["primal", "dual"])
@pytest.mark.parametrize("precision", [0.3, 30.0])
def test_the_mean_is_scikit_learns_solution(n: int, d: int, precision: float) -> None:
    """A soft target is two rows of scikit-learn's, one a side, weighted by their shares."""
    x, t, w = made(n, d)
    found = bayes_logistic.fit(x, t, w, precision=precision)
    standard = x / found.scale
    peer = LogisticRegression(C=1 / precision, fit_intercept=False, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    peer.fit(
        np.vstack([standard, standard]),
        np.repeat([1, 0], n),
        sample_weight=np.concatenate([w * t, w * (1 - t)]),
    )
    assert np.allclose(found.weight, peer.coef_[0], atol=1e-6)


@pytest.mark.parametrize(("n", "d"), [(120, 7), (40, 90)], ids=["primal", "dual"])
def test_the_covariance_is_the_inverse_hessian(n: int, d: int) -> None:
    x, t, w = made(n, d)
    found = bayes_logistic.fit(x, t, w, precision=2.0)
    standard = x / found.scale
    p = sigmoid(standard @ found.weight)
    hessian = standard.T @ ((w * p * (1 - p))[:, None] * standard) + 2.0 * np.eye(d)
    assert np.allclose(np.eye(d) / 2.0 - found.shrink @ found.shrink.T, np.linalg.inv(hessian), rtol=0.01, atol=1e-3)
    probe = np.random.default_rng(1).normal(size=(20, d)) * found.scale
    exact = np.einsum("nd,de,ne->n", probe / found.scale, np.linalg.inv(hessian), probe / found.scale)
    variances = found.variances(probe)
    assert (variances > exact * (1 - 1e-6)).all() and (variances < exact * 1.011).all()


def test_swapping_the_two_sides_turns_the_answer() -> None:
    x, t, w = made(60, 5)
    one = bayes_logistic.fit(x, t, w, precision=1.0)
    turn = np.where(np.arange(60) % 2, 1.0, -1.0)
    other = bayes_logistic.fit(turn[:, None] * x, np.where(turn > 0, t, 1 - t), w, precision=1.0)
    assert np.allclose(one.weight, other.weight, atol=1e-9)


def test_a_pair_of_weight_two_is_the_pair_twice() -> None:
    x, t, _ = made(30, 4)
    twice = bayes_logistic.fit(np.vstack([x, x]), np.concatenate([t, t]), precision=1.0)
    heavy = bayes_logistic.fit(x, t, np.full(30, 2.0), precision=1.0)
    assert np.allclose(twice.weight, heavy.weight, atol=1e-8)


def test_a_pair_of_weight_zero_says_nothing() -> None:
    x, t, w = made(30, 4)
    w[:5] = 0
    groups = [str(i) for i in range(30)]
    assert np.allclose(
        bayes_logistic.fit(x, t, w, precision=1.0).weight, bayes_logistic.fit(x[5:], t[5:], w[5:], precision=1.0).weight
    )
    assert bayes_logistic.choose_precision(x, t, w, groups_N=groups) == pytest.approx(
        bayes_logistic.choose_precision(x[5:], t[5:], w[5:], groups_N=groups[5:])
    )


@pytest.mark.parametrize(("n", "d"), [(80, 10), (60, 100)], ids=["primal", "dual"])
def test_leaving_out_by_one_newton_step_is_near_a_refit_without_the_group(n: int, d: int) -> None:
    x, t, w = made(n, d)
    groups = np.arange(n) // 2
    precision = 0.5 * d
    quick = bayes_logistic.left_out_loss(x, t, w, groups_N=[str(g) for g in groups], precision=precision)
    scale = bayes_logistic.fit(x, t, w, precision=precision).scale
    logits = np.zeros(n)
    for g in set(groups):
        rest = groups != g
        scaled = x / scale  # the scale is the whole's on both sides
        posterior = bayes_logistic.fit(scaled[rest], t[rest], w[rest], precision=precision)
        weight = posterior.weight / posterior.scale
        logits[~rest] = scaled[~rest] @ weight
    slow = np.average(ranking.log_losses(logits, t), weights=w)
    assert quick == pytest.approx(slow, abs=0.01)


def test_the_chosen_prior_is_near_the_best_on_pairs_never_seen() -> None:
    x, t, w = made(400, 40, seed=3)
    groups = [str(i // 2) for i in range(120)]
    chosen = bayes_logistic.choose_precision(x[:120], t[:120], w[:120], groups_N=groups)

    def loss(precision: float) -> float:
        found = bayes_logistic.fit(x[:120], t[:120], w[:120], precision=precision)
        return float(np.average(ranking.log_losses(found.logits(x[120:]), t[120:]), weights=w[120:]))

    best = min(loss(precision) for precision in np.geomspace(0.04, 4e4, 25))
    assert loss(chosen) < best + 0.02
    assert loss(chosen) < min(loss(0.04), loss(4e4))


def test_pairs_of_one_prompt_in_one_group_make_the_prior_stronger() -> None:
    """Copies of a pair in groups of their own would tell each other's answers."""
    x, t, _ = made(40, 30)
    x, t = np.repeat(x, 5, axis=0), np.repeat(t, 5)
    together = bayes_logistic.choose_precision(x, t, groups_N=[str(i // 5) for i in range(200)])
    apart = bayes_logistic.choose_precision(x, t, groups_N=[str(i) for i in range(200)])
    assert together > 2 * apart


def test_one_more_answer_is_near_a_refit() -> None:
    x, t, w = made(200, 20)
    posterior = bayes_logistic.fit(x[:150], t[:150], w[:150], precision=10.0)
    for i in range(150, 200):
        posterior = bayes_logistic.updated(posterior, x[i], t[i], w[i])
    refit = bayes_logistic.fit(x, t, w, precision=10.0)
    stale = bayes_logistic.fit(x[:150], t[:150], w[:150], precision=10.0)
    probe = made(100, 20, seed=9)[0]
    off = np.abs(posterior.logits(probe) - refit.logits(probe)).mean()
    assert off < 0.1 * np.abs(stale.logits(probe) - refit.logits(probe)).mean()
    assert np.allclose(posterior.variances(probe), refit.variances(probe), rtol=0.1)


def test_the_same_answer_again_and_again_is_believed_and_its_doubt_falls() -> None:
    x, t, w = made(50, 6)
    posterior = bayes_logistic.fit(x, t, w, precision=5.0)
    seen = [(posterior.logits(x[0])[0], posterior.variances(x[0])[0])]
    for _ in range(30):
        posterior = bayes_logistic.updated(posterior, x[0], 1.0)
        seen.append((posterior.logits(x[0])[0], posterior.variances(x[0])[0]))
    logits, variances = zip(*seen, strict=True)
    assert all(a < b for a, b in itertools.pairwise(logits))
    assert all(a > b for a, b in itertools.pairwise(variances))


def test_one_more_answer_takes_less_than_50_ms() -> None:
    draw = np.random.default_rng(0)
    d = 1152
    posterior = bayes_logistic.Posterior(
        draw.normal(size=d), np.ones(d), 1000.0, np.linalg.qr(draw.normal(size=(d, d)))[0] * 0.01
    )
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        posterior = bayes_logistic.updated(posterior, draw.normal(size=d), 1.0)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05


def test_an_answer_tells_most_where_the_model_does_not_know() -> None:
    """Torn and unsure tells; torn for good (no variance) tells nothing, nor does what is settled."""
    torn, settled, far = bayes_logistic.information([0.0, 0.0, 8.0], [4.0, 0.0, 1.0])
    assert torn > 0.2
    assert settled == pytest.approx(0.0, abs=1e-9)
    assert 0 <= far < 0.01
    assert (bayes_logistic.information(np.zeros(5), np.arange(5.0)) <= np.log(2)).all()


def test_doubt_draws_a_chance_towards_one_half() -> None:
    sure, unsure = bayes_logistic.chances([2.0, 2.0], [0.0, 9.0])
    assert sure == pytest.approx(sigmoid(np.array(2.0)))
    draw = np.random.default_rng(0).normal(2.0, 3.0, size=400_000)
    assert unsure == pytest.approx(sigmoid(draw).mean(), abs=2e-3)


@pytest.mark.parametrize(
    ("x", "t", "w", "precision"),
    [
        ([[1.0], [np.nan]], [1, 0], None, 1.0),
        ([[1.0], [2.0]], [1, 1.5], None, 1.0),
        ([[1.0], [2.0]], [1, 0], [0, 0], 1.0),
        ([[1.0], [2.0]], [1, 0, 1], None, 1.0),
        ([[1.0], [2.0]], [1, 0], None, 0.0),
        (np.zeros((0, 2)), [], None, 1.0),
    ],
)
def test_what_cannot_be_fitted_is_refused(x: object, t: object, w: object, precision: float) -> None:
    with pytest.raises(ValueError, match=r"wanted|hold|holds"):
        bayes_logistic.fit(x, t, w, precision=precision)


def test_a_feature_that_never_differs_changes_nothing() -> None:
    x, t, w = made(30, 3)
    with_zero = np.column_stack([x, np.zeros(30)])
    found = bayes_logistic.fit(with_zero, t, w, precision=1.0)
    assert found.weight[3] == 0.0
    assert np.allclose(found.weight[:3], bayes_logistic.fit(x, t, w, precision=1.0).weight)
