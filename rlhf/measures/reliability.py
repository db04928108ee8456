"""How far each labeler's votes can be trusted, told from the votes alone: where others voted too, who agrees with them?

Dawid and Skene's model (1979; crowd-kit's EM) gives each pair a chance for every verdict and each labeler a table of how they
vote under each. Its tables for labelers with a handful of votes are noise (one vote, always "right"), and would pull the
verdicts of their pairs after them. So labelers with few votes, and unknown ones, share one table, and each labeler's accuracy
is drawn to the pool's by `PRIOR_VOTES` votes.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

FEW = 10  # votes below which a labeler has no table of their own in the fit
PRIOR_VOTES = 10.0  # votes at the pool's accuracy that each labeler's own are mixed with
LEAST = 0.05  # of a perfect labeler's weight: nobody is silenced, for the fit may be wrong about a minority
_POOLED = "few or unknown"  # labelers of a fit are numbers otherwise
Vote = tuple[str, str | None, str]  # pair, labeler (None = unknown), choice: a, b, tie, both_bad; skips are passed over


@dataclass(frozen=True, slots=True)
class Reliability:
    """weights: labeler -> weight of one vote, scaled so that the mean over all votes is 1. pool: of anybody else.
    accuracy: labeler -> chance that a vote is the pair's verdict, drawn to `pool_accuracy`. n_shared: pairs that two or more
    voted on, which is all that it was told from."""

    weights: Mapping[str, float]
    pool: float
    accuracy: Mapping[str, float]
    pool_accuracy: float | None
    n_votes: int
    n_shared: int

    def weight(self, labeler: str | None) -> float:
        return self.pool if labeler is None else self.weights.get(labeler, self.pool)

    @property
    def told(self) -> str:
        """In a sentence."""
        if self.pool_accuracy is None:
            return f"no pair has two votes that differ in anything, so all {self.n_votes} votes weigh alike"
        most, least = max(self.weights.values(), default=1.0), min(self.weights.values(), default=1.0)
        return (
            f"{len(self.weights)} labelers, told from {self.n_shared} pairs with two votes or more; a vote is the pair's "
            f"verdict in {self.pool_accuracy:.0%}, and weighs {least:.2f} to {most:.2f}"
        )

    def as_json(self) -> dict[str, Any]:
        """What a version's manifest keeps: counts and quantiles, and nobody's name."""
        spread = sorted(self.accuracy.values())
        return {
            "labelers": len(spread),
            "votes": self.n_votes,
            "shared_pairs": self.n_shared,
            "accuracy_pool": self.pool_accuracy,
            "accuracy_p10_p50_p90": [float(q) for q in np.quantile(spread, (0.1, 0.5, 0.9))] if spread else None,
        }


def estimate(votes: Iterable[Vote]) -> Reliability:
    """The weight of each labeler's votes.

    With p_l = (sum over l's votes of P(verdict = vote) + 10 p) / (n_l + 10), p the same over everybody, and K verdicts that
    occur (2, or 3 with ties), a vote weighs max(0.05, (p_l - 1/K) / (1 - 1/K)): 1 for who is always right, least for who
    guesses. Only votes on pairs with two votes or more are counted; where there are none everybody weighs 1. A vote is part of
    the verdict that it is held against, so accuracies are some points too high, most of all with two votes a pair; the order
    of labelers and the weights' ratios suffer little.
    """
    kept = [(pair, who, "tie" if what == "both_bad" else what) for pair, who, what in votes if what != "skip"]
    on_pair = Counter(pair for pair, _, _ in kept)
    shared = [vote for vote in kept if on_pair[vote[0]] > 1]
    names = sorted({who for _, who, _ in kept if who is not None})
    n_shared = len({pair for pair, _, _ in shared})
    if not shared or len({what for _, _, what in shared}) < 2:
        return Reliability(dict.fromkeys(names, 1.0), 1.0, {}, None, len(kept), n_shared)
    right = _chances_of_votes(shared)
    chance = 1.0 / len({what for _, _, what in shared})
    pool = sum(right) / len(right)
    hit, n = Counter[str](), Counter[str]()
    for (_, who, _), p in zip(shared, right, strict=True):
        if who is not None:
            hit[who] += p  # type: ignore[assignment]
            n[who] += 1
    accuracy = {who: (hit[who] + PRIOR_VOTES * pool) / (n[who] + PRIOR_VOTES) for who in names}
    raw = {who: max(LEAST, (p - chance) / (1 - chance)) for who, p in accuracy.items()}
    raw_pool = max(LEAST, (pool - chance) / (1 - chance))
    mean = sum(raw_pool if who is None else raw[who] for _, who, _ in kept) / len(kept)
    weights = {who: weight / mean for who, weight in raw.items()}
    return Reliability(weights, raw_pool / mean, accuracy, pool, len(kept), n_shared)


def _chances_of_votes(votes: list[Vote]) -> list[float]:
    """P(the pair's verdict is this vote) of each, by Dawid and Skene's model."""
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    many = {who for who, n in Counter(who for _, who, _ in votes).items() if who is not None and n >= FEW}
    number = {who: str(i) for i, who in enumerate(sorted(many))}
    told = pd.DataFrame(
        [(pair, number.get(who, _POOLED) if who is not None else _POOLED, what) for pair, who, what in votes],
        columns=["task", "worker", "label"],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # crowd-kit 1.4 writes pandas 2's spelling
        verdicts = DawidSkene(n_iter=50).fit_predict_proba(told)
    rows, columns = verdicts.index.get_indexer(told["task"]), verdicts.columns.get_indexer(told["label"])
    return [float(p) for p in verdicts.to_numpy()[rows, columns]]
