"""How unsure rewards are of their own ranking of replies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlhf.measures.ranking import sigmoid


def doubt(scores_RK: NDArray[np.float64], groups_R: Sequence[str], weights_K: Sequence[float] | None = None) -> float:
    """Chance that the rewards rank two replies to one prompt wrongly, by their own account: in [0, 0.5].

    For replies i, j of a group, P(i better) is the weighted mean over the K rewards of sigma(score_i - score_j) (Bradley-Terry);
    the smaller of P and 1 - P is the chance of an error, averaged over all pairs within groups. One reward: its margins alone.
    Several: where they disagree the mean comes near 1/2, however sure each of them is. 0.5 where no group has two replies.
    """
    scores = np.asarray(scores_RK, dtype=np.float64)
    if scores.ndim != 2 or len(scores) != len(groups_R):
        raise ValueError(f"{scores.shape} scores for {len(groups_R)} replies")
    weights = np.ones(scores.shape[1]) if weights_K is None else np.asarray(weights_K, dtype=np.float64)
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups_R):
        members.setdefault(group, []).append(row)
    errors: list[float] = []
    for rows in members.values():
        one, other = np.triu_indices(len(rows), k=1)
        own = scores[rows]
        p = np.average(sigmoid(own[one] - own[other]), axis=1, weights=weights)
        errors.extend(np.minimum(p, 1.0 - p).tolist())
    return float(np.mean(errors)) if errors else 0.5
