"""Bayesian logistic regression on differences: which of two is better, how sure, and what one more answer would tell.

The model: P(first is better) = sigmoid(w . x / scale), x the difference of two feature vectors (D,), w ~ N(0, I / precision), no
intercept, since swapping the two turns the sign of x and the answer. The posterior is Laplace's: normal around the most probable
w, with the inverse Hessian as its covariance (MacKay 1992; Rasmussen & Williams 2006, section 3.4). That covariance is held as
I / precision - U Uᵀ: what the data took off the prior's variance, a form that one more answer extends by one column.

Newton's method works on D x D or on N x N matrices, whichever is smaller; both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve, eigh, solve_triangular
from scipy.optimize import minimize_scalar

from rlhf.measures.ranking import as_probabilities, sigmoid

Floats = NDArray[np.float64]
_TOLERANCE = 1e-8  # of the largest change of a logit in a Newton step, whose error is that squared
_ROUGH = 1e-4  # the same while a precision is looked for
_KEPT = 0.01  # directions whose data are below this share of the prior are left out: variance too large by 1 % at most
_WIDEST = (1e-2, 1e2)  # precision / D is looked for within these


@dataclass(frozen=True, slots=True)
class Posterior:
    """Belief about w after some answers. weight: (D,) its mean, on standardised differences; scale: (D,) what those are
    divided by; precision: of the prior; shrink: (D, K), the U of the module's covariance."""

    weight: Floats
    scale: Floats
    precision: float
    shrink: Floats

    def logits(self, differences_ND: ArrayLike) -> Floats:
        """(N,) most probable logits of the first being better."""
        logits: Floats = self._standard(differences_ND) @ self.weight
        return logits

    def variances(self, differences_ND: ArrayLike) -> Floats:
        """(N,) variances of those logits."""
        x = self._standard(differences_ND)
        found: Floats = np.sum(x**2, axis=1) / self.precision - np.sum((x @ self.shrink) ** 2, axis=1)
        return np.maximum(found, 0.0)

    def _standard(self, differences_ND: ArrayLike) -> Floats:
        x: Floats = np.atleast_2d(np.asarray(differences_ND, dtype=np.float64)) / self.scale
        return x


def fit(
    differences_ND: ArrayLike, targets_N: ArrayLike, weights_N: ArrayLike | None = None, *, precision: float
) -> Posterior:
    """The posterior of these answers. targets: share of the answers for the first, in [0, 1]; weights: of each pair, None = 1.

    Equal to scikit-learn's `LogisticRegression(C=1 / precision, fit_intercept=False)` on the standardised differences, to 1e-6.
    Raises ValueError on no pairs, NaN, or a precision that isn't above 0.
    """
    data = _Data.of(differences_ND, targets_N, weights_N)
    return data.posterior(data.newton(precision))


def choose_precision(
    differences_ND: ArrayLike, targets_N: ArrayLike, weights_N: ArrayLike | None = None, *, groups_N: Sequence[str]
) -> float:
    """The precision with the least log-loss on groups of pairs that were left out, one group at a time.

    Leaving out is approximated by one Newton step from the whole fit (Rad & Maleki 2020), which costs one fit a precision. What
    shares a prompt must share a group, or the prior comes out too weak. Within [D / 100, 100 D], to a factor of 1.4.
    """
    data = _Data.of(differences_ND, targets_N, weights_N)
    blocks = data.blocks(groups_N)
    last: list[_State] = []

    def loss(log_precision: float) -> float:
        state = data.newton(float(np.exp(log_precision)), last[-1] if last else None, _ROUGH)
        last[:] = [state]
        return data.left_out_loss(state, blocks)

    low, high = (np.log(bound * data.x.shape[1]) for bound in _WIDEST)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 0.3})
    return float(np.exp(found.x))


def left_out_loss(
    differences_ND: ArrayLike,
    targets_N: ArrayLike,
    weights_N: ArrayLike | None = None,
    *,
    groups_N: Sequence[str],
    precision: float,
) -> float:
    """What `choose_precision` makes least: the mean log-loss of groups that are left out one at a time, nats."""
    data = _Data.of(differences_ND, targets_N, weights_N)
    return data.left_out_loss(data.newton(precision), data.blocks(groups_N))


def updated(posterior: Posterior, difference_D: ArrayLike, target: float, weight: float = 1.0) -> Posterior:
    """The posterior after one more answer, in time D x K: no refit.

    The mean is the most probable w under the old posterior as a prior and this one answer, exactly (along one direction, by
    Newton); the covariance loses one direction. What it forgets against a refit: the older answers' curvature is not renewed.
    """
    if not 0.0 <= target <= 1.0 or not weight > 0.0:
        raise ValueError(f"target {target} and weight {weight}; wanted within [0, 1] and above 0")
    x = np.asarray(difference_D, dtype=np.float64) / posterior.scale
    moved = x / posterior.precision - posterior.shrink @ (posterior.shrink.T @ x)  # covariance . x
    variance = max(float(x @ moved), 0.0)
    before = float(x @ posterior.weight)
    step = 0.0  # along `moved`: step = weight (target - sigmoid(before + step variance)), increasing against decreasing
    for _ in range(100):
        p = float(sigmoid(np.array(before + step * variance)))
        off = step - weight * (target - p)
        change = off / (1.0 + weight * p * (1.0 - p) * variance)
        step -= change
        if abs(change) < 1e-12:
            break
    p = float(sigmoid(np.array(before + step * variance)))
    curvature = weight * p * (1.0 - p)
    column = moved * np.sqrt(curvature / (1.0 + curvature * variance))
    return replace(
        posterior, weight=posterior.weight + step * moved, shrink=np.column_stack([posterior.shrink, column])
    )


def chances(logits_N: ArrayLike, variances_N: ArrayLike) -> Floats:
    """(N,) P(first is better) with the doubt averaged in: E sigmoid(f), f ~ N(logit, variance), by Gauss-Hermite quadrature."""
    return _expected(sigmoid, logits_N, variances_N)


def information(logits_N: ArrayLike, variances_N: ArrayLike) -> Floats:
    """(N,) nats that one answer to this pair is expected to tell of w: H(E p) - E H(p) (Houlsby et al. 2011). In [0, log 2].

    Large where the model is torn and doesn't know; a pair that people themselves would answer either way tells nothing.
    """
    return np.maximum(_entropy(chances(logits_N, variances_N)) - _expected(_of_logit, logits_N, variances_N), 0.0)


@dataclass(frozen=True, slots=True)
class _State:
    """A Newton fit: logits (N,) at the most probable w, their curvature, the precision."""

    precision: float
    logits: Floats
    curvature: Floats
    residual: Floats
    weight: Floats


@dataclass(frozen=True, slots=True)
class _Data:
    """Standardised differences x (N, D) of weight above 0, targets, weights; gram (N, N) where N < D."""

    x: Floats
    targets: Floats
    weights: Floats
    scale: Floats
    gram: Floats | None
    kept: NDArray[np.bool_]

    @classmethod
    def of(cls, differences: ArrayLike, targets: ArrayLike, weights: ArrayLike | None) -> _Data:
        x, t = np.asarray(differences, dtype=np.float64), as_probabilities(targets, "targets")
        w = np.ones(len(t)) if weights is None else np.asarray(weights, dtype=np.float64)
        if x.ndim != 2 or not len(x) == len(t) == len(w):
            raise ValueError(f"differences {x.shape}, targets {t.shape}, weights {w.shape}; wanted (N, D), (N,), (N,)")
        if not (np.isfinite(x).all() and np.isfinite(w).all() and (w >= 0).all() and (w > 0).any()):
            raise ValueError("differences or weights hold NaN or infinity, or no weight is above 0")
        kept = w > 0
        x, t, w = x[kept], t[kept], w[kept]
        scale = np.sqrt(np.average(x**2, axis=0, weights=w))
        scale[scale == 0.0] = 1.0
        x = x / scale
        return cls(x, t, w, scale, x @ x.T if len(x) < x.shape[1] else None, kept)

    def blocks(self, groups_N: Sequence[str]) -> list[NDArray[np.intp]]:
        """Of each group the rows of `x` that are its own. groups: of all pairs, those of weight 0 too."""
        if len(groups_N) != len(self.kept):
            raise ValueError(f"{len(groups_N)} groups for {len(self.kept)} pairs")
        members: dict[str, list[int]] = {}
        for i, at in enumerate(np.flatnonzero(self.kept).tolist()):
            members.setdefault(groups_N[at], []).append(i)
        return [np.array(rows, dtype=np.intp) for rows in members.values()]

    def newton(self, precision: float, start: _State | None = None, tolerance: float = _TOLERANCE) -> _State:
        """The most probable w. The loss is convex; a step that worsens it is halved."""
        if not 0.0 < precision < np.inf:
            raise ValueError(f"a precision of {precision}; wanted above 0")
        weight = np.zeros(self.x.shape[1]) if start is None else start.weight
        logits = np.zeros(len(self.x)) if start is None else start.logits
        loss = self._loss(precision, weight, logits)
        for _ in range(100):
            to_weight = self._step(precision, logits) - weight
            to_logits = self.x @ to_weight
            share, worth = 1.0, self._loss(precision, weight + to_weight, logits + to_logits)
            while worth > loss + 1e-12 * abs(loss) and share > 1e-6:
                share /= 2
                worth = self._loss(precision, weight + share * to_weight, logits + share * to_logits)
            weight, logits, loss = weight + share * to_weight, logits + share * to_logits, worth
            if float(np.abs(to_logits).max()) < tolerance * (1.0 + float(np.abs(logits).max())):
                break
        p = sigmoid(logits)
        return _State(precision, logits, self.weights * p * (1 - p), self.weights * (self.targets - p), weight)

    def _loss(self, precision: float, weight: Floats, logits: Floats) -> float:
        worst = self.targets * np.logaddexp(0, -logits) + (1 - self.targets) * np.logaddexp(0, logits)
        return float(self.weights @ worst + precision / 2 * weight @ weight)

    def _step(self, precision: float, logits: Floats) -> Floats:
        """Where one full Newton step from these logits leads: (precision I + XᵀSX) w = Xᵀ(S f + residual)."""
        p = sigmoid(logits)
        curvature = np.maximum(self.weights * p * (1 - p), 1e-12)
        wanted = curvature * logits + self.weights * (self.targets - p)
        if self.gram is None:
            made: Floats = cho_solve(self._hessian(precision, curvature), self.x.T @ wanted)
            return made
        root = np.sqrt(curvature)
        inner = cho_solve(self._dual(precision, curvature), root * (self.gram @ wanted) / precision)
        stepped: Floats = self.x.T @ (wanted - root * inner) / precision
        return stepped

    def _hessian(self, precision: float, curvature: Floats) -> tuple[Floats, bool]:
        scaled = self.x * np.sqrt(curvature)[:, None]
        hessian = scaled.T @ scaled
        hessian.flat[:: len(hessian) + 1] += precision
        factor: tuple[Floats, bool] = cho_factor(hessian, lower=True, overwrite_a=True, check_finite=False)
        return factor

    def _dual(self, precision: float, curvature: Floats) -> tuple[Floats, bool]:
        """Factor of B = I + S½ K S½ / precision (Rasmussen & Williams 2006, equation 3.26)."""
        assert self.gram is not None
        root = np.sqrt(curvature)
        b = root[:, None] * self.gram * (root / precision)
        b.flat[:: len(b) + 1] += 1.0
        factor: tuple[Floats, bool] = cho_factor(b, lower=True, overwrite_a=True, check_finite=False)
        return factor

    def posterior(self, state: _State) -> Posterior:
        if self.gram is not None:
            factor, _ = self._dual(state.precision, state.curvature)
            rows = np.sqrt(state.curvature)[:, None] * self.x / state.precision
            shrink = solve_triangular(factor, rows, lower=True, check_finite=False).T
            return Posterior(state.weight, self.scale, state.precision, shrink)
        scaled = self.x * np.sqrt(state.curvature)[:, None]
        values, vectors = eigh(scaled.T @ scaled, check_finite=False)
        told = values > _KEPT * state.precision
        if not told.any():
            told[-1] = True
        gain = np.maximum(1 / state.precision - 1 / (state.precision + np.maximum(values[told], 0.0)), 0.0)
        return Posterior(state.weight, self.scale, state.precision, vectors[:, told] * np.sqrt(gain))

    def left_out_loss(self, state: _State, blocks: Sequence[NDArray[np.intp]]) -> float:
        """Mean log-loss of each group under the fit without it. With C the posterior covariance of a group's logits, S their
        curvature and r their residuals, the logits without the group are f - C (I - S C)^-1 r to first order."""
        if self.gram is None:
            factor, _ = self._hessian(state.precision, state.curvature)
            half = solve_triangular(factor, self.x.T, lower=True, check_finite=False)  # C = halfᵀ half
        else:
            factor, _ = self._dual(state.precision, state.curvature)
            half = solve_triangular(
                factor, np.sqrt(state.curvature)[:, None] * self.gram / state.precision, lower=True, check_finite=False
            )  # C = gram / precision - halfᵀ half
        alone = np.array([block[0] for block in blocks if len(block) == 1], dtype=np.intp)
        spread = np.sum(half[:, alone] ** 2, axis=0)
        if self.gram is not None:
            spread = self.gram[alone, alone] / state.precision - spread
        without = state.logits.copy()
        without[alone] -= spread * state.residual[alone] / (1.0 - state.curvature[alone] * spread)
        for block in (block for block in blocks if len(block) > 1):
            c = half[:, block].T @ half[:, block]
            if self.gram is not None:
                c = self.gram[np.ix_(block, block)] / state.precision - c
            inner = np.eye(len(block)) - state.curvature[block][:, None] * c
            without[block] -= c @ np.linalg.solve(inner, state.residual[block])
        losses = self.targets * np.logaddexp(0, -without) + (1 - self.targets) * np.logaddexp(0, without)
        return float(np.average(losses, weights=self.weights))


_NODES, _SHARES = np.polynomial.hermite_e.hermegauss(40)


def _expected(function: object, logits_N: ArrayLike, variances_N: ArrayLike) -> Floats:
    logits, sd = np.asarray(logits_N, dtype=np.float64), np.sqrt(np.asarray(variances_N, dtype=np.float64))
    values: Floats = function(logits[..., None] + sd[..., None] * _NODES)  # type: ignore[operator]
    found: Floats = values @ (_SHARES / _SHARES.sum())
    return found


def _of_logit(logits: Floats) -> Floats:
    """Entropy of sigmoid(logits), nats: log(1 + e^f) - f sigmoid(f)."""
    entropy: Floats = np.logaddexp(0.0, logits) - logits * sigmoid(logits)
    return entropy


def _entropy(p: Floats) -> Floats:
    p = np.clip(p, 1e-300, 1 - 1e-16)
    entropy: Floats = -(p * np.log(p) + (1 - p) * np.log1p(-p))
    return entropy
