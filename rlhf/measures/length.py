"""How much of a score is length, and how to take it out of a linear score.

All correlations here are within prompts. A pair's two replies answer one prompt, so differences of scores and of lengths are
compared, and each pair is taken both ways round: the figure then depends on no label and on no draw of who comes first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.measures.bayes_logistic import Posterior
from rlhf.measures.ranking import as_numbers, check_same_length

Floats = NDArray[np.float64]


def signed_ranks(differences_N: ArrayLike) -> Floats:
    """(N,) in [-1, 1]: sign(x) (rank of |x| - 1/2) / N, equal |x| sharing their mean rank; 0 stays 0. N may be 0.

    They are the centred ranks of x in the sample of all x and -x, so the cosine of two such columns is Spearman's correlation
    of the pairs taken both ways round.
    """
    from scipy.stats import rankdata

    x = np.asarray(differences_N, dtype=np.float64)
    return np.sign(x) * (rankdata(np.abs(x)) - 0.5) / max(x.size, 1)


def spearman_both_ways(gaps_N: ArrayLike, lengths_N: ArrayLike) -> float:
    """Rank correlation of score and length differences, each pair both ways round; 0 where either never differs."""
    return pearson_both_ways(signed_ranks(as_numbers(gaps_N, "gaps")), signed_ranks(as_numbers(lengths_N, "lengths")))


def pearson_both_ways(gaps_N: ArrayLike, lengths_N: ArrayLike) -> float:
    """Linear correlation of score and length differences, each pair both ways round: sum g l / sqrt(sum g² sum l²), the
    cosine, for both means are 0. 0 where either never differs."""
    gaps, lengths = as_numbers(gaps_N, "gaps"), as_numbers(lengths_N, "lengths")
    check_same_length(gaps, lengths)
    norm = float(np.linalg.norm(gaps) * np.linalg.norm(lengths))
    return float(np.clip(gaps @ lengths / norm, -1.0, 1.0)) if norm > 0 else 0.0


def within_prompts(scores_R: ArrayLike, lengths_R: ArrayLike, prompts_R: Sequence[str]) -> tuple[float, int] | None:
    """Rank correlation of scores with lengths within prompts, and the number of prompts that it is of; None where no prompt
    has two replies of unequal length.

    With several replies a prompt: ranks are taken within the prompt, centred there, and correlated over all of its replies,
    so that a prompt which draws long replies and high scores counts for nothing.
    """
    from scipy.stats import rankdata

    scores, lengths = as_numbers(scores_R, "scores"), as_numbers(lengths_R, "lengths")
    check_same_length(scores, lengths)
    if len(prompts_R) != scores.size:
        raise ValueError(f"{len(prompts_R)} prompts for {scores.size} scores")
    own: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts_R):
        own.setdefault(prompt, []).append(i)
    told = [rows for rows in own.values() if len(set(lengths[rows].tolist())) > 1]
    if not told:
        return None
    centred = [
        np.stack([rankdata(x[rows]) - (len(rows) + 1) / 2 for x in (scores, lengths)]) / len(rows) for rows in told
    ]
    both = np.concatenate(centred, axis=1)
    return pearson_both_ways(both[0], both[1]), len(told)


def without_length(posterior: Posterior, differences_ND: ArrayLike, lengths_N: ArrayLike, penalty: float) -> Posterior:
    """A linear score's posterior after a length penalty: `penalty` N corr² added to its negative log-likelihood over N pairs.

    corr = m·w / sqrt(B C), m = X'l / N, is the correlation of score differences Xw with `lengths` (length differences or their
    `signed_ranks`), each pair both ways round; B = E[(Xw)²] stands still at what it was. So the penalty is quadratic in w, and the
    posterior is conditioned on it as on one more answer (Rasmussen & Williams 2006, A.6): exact for the Laplace posterior, one
    Newton step from the old mode. It costs one column, no refit. penalty = inf: corr = 0 on these pairs, and `updated` answers
    later leave m·w = 0 as it is. The same weight as the training's length_penalty, whose loss is a mean over pairs.
    """
    if not penalty >= 0.0:
        raise ValueError(f"penalty = {penalty}; wanted 0 or more")
    lengths = as_numbers(lengths_N, "lengths")
    x = np.asarray(differences_ND, dtype=np.float64) / posterior.scale
    m = x.T @ lengths / lengths.size
    spread = float(np.mean((x @ posterior.weight) ** 2) * np.mean(lengths**2))
    moved = m / posterior.precision - posterior.shrink @ (posterior.shrink.T @ m)  # covariance . m
    noise = 0.0 if math.isinf(penalty) else spread / (2 * lengths.size * penalty) if penalty else math.inf
    variance = float(m @ moved) + noise
    if not 0.0 < variance < math.inf or spread == 0.0:
        return posterior
    weight = posterior.weight - moved * (float(m @ posterior.weight) / variance)
    column = moved / math.sqrt(variance)
    return replace(posterior, weight=weight, shrink=np.column_stack([posterior.shrink, column]))
