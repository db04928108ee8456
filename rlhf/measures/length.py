"""How much of a score is length, and how to take it out of a linear score.

All correlations here are within prompts. A pair's two replies answer one prompt, so differences of scores and of lengths are
compared, and each pair is taken both ways round: the figure then depends on no label and on no draw of who comes first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

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


def direction(differences_ND: ArrayLike, lengths_N: ArrayLike) -> Floats:
    """(D,) unit vector u along X' l: a linear score w has no covariance with length on these pairs exactly where u·w = 0.

    differences: the pairs' feature differences X; lengths: their length differences, or `signed_ranks` of them. Zeros where
    nothing covaries with length.
    """
    u = np.asarray(differences_ND, dtype=np.float64).T @ as_numbers(lengths_N, "lengths")
    norm = float(np.linalg.norm(u))
    return u / norm if norm > 0 else u


def shrunk_along(vectors: ArrayLike, u_D: Floats, keep: float) -> Floats:
    """Vectors (..., D) with their part along the unit vector u times `keep`.

    The exact length penalty of a ridge fit. For any convex loss L of scores Xw, the minimum of L(Xw) + r/2 |w|² +
    k/2 (u·w)² is w = S w', where S = I + (keep - 1) u u', keep = sqrt(r / (r + k)), and w' is the plain ridge fit on X S: so
    fit on `shrunk_along(X, u, keep)` and bring the weights back by the same call. keep = 1 is no penalty; keep = 0 the
    constraint u·w = 0, no correlation at all on the pairs that u was computed from. A posterior covariance C' goes back as
    S C' S: the call on its rows, then on its columns.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors + (keep - 1.0) * (vectors @ u_D)[..., None] * u_D
