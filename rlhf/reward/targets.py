"""How judgements become a training target. A setting of the training, recorded in the version, never of the snapshot.

A tie and `both_bad` say neither; a skip says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rlhf.measures.reliability import Reliability, estimate
from rlhf.measures.votes import majority, share_of_a
from rlhf.records import Judgement, SnapshotRow

Labels = Literal["soft", "majority", "reliability"]
Ties = Literal["half", "davidson", "rao_kupper", "drop"]
_WORTH = {"a": 1.0, "b": 0.0}


@dataclass(frozen=True, slots=True)
class Target:
    """What a pair's judgements say: p_a = share for a, ties half, in [0, 1]; tie = share of ties; weight = the mean weight of
    the votes, 1 where all count alike. The shares for a and b are p_a - tie / 2 and 1 - p_a - tie / 2."""

    p_a: float
    tie: float = 0.0
    weight: float = 1.0


def target_of(judgements: Sequence[Judgement], how: Literal["soft", "majority"] = "majority") -> float | None:
    """P(reply a is better) in [0, 1]; None where nothing but skips was said.

    soft: (votes for a + half the ties) / votes. majority: 1, 0, or 0.5 where neither side has more votes.
    """
    choices = [judgement.choice for judgement in judgements]
    if how == "soft":
        return share_of_a(choices)
    return {"a": 1.0, "b": 0.0, "tie": 0.5, None: None}[majority(choices)]


def training_target(
    judgements: Sequence[Judgement], labels: Labels, ties: Ties = "half", trust: Reliability | None = None
) -> Target | Literal["undecided", "dropped"]:
    """The target as the training's settings want it, or why there is none: nobody voted, or `ties=drop` left no vote.

    majority: all for the side with more votes, a tie where they balance. soft: each vote alike. reliability: each vote by its
    labeler's weight in `trust`; the pair then counts by its votes' mean weight. Under `drop` ties are no votes.
    """
    votes = [j for j in judgements if j.choice != "skip"]
    if not votes:
        return "undecided"
    if labels == "majority":
        side = majority(j.choice for j in votes)
        if side == "tie" or side is None:
            return "dropped" if ties == "drop" else Target(0.5, 1.0)
        return Target(_WORTH[side])
    if ties == "drop":
        votes = [j for j in votes if j.choice in _WORTH]
    if not votes:
        return "dropped"
    weights = [1.0 if labels == "soft" or trust is None else trust.weight(voter(j)) for j in votes]
    total = sum(weights)
    tie = sum(w for w, j in zip(weights, votes, strict=True) if j.choice not in _WORTH) / total
    p_a = sum(w * _WORTH.get(j.choice, 0.5) for w, j in zip(weights, votes, strict=True)) / total
    return Target(p_a, tie, total / len(votes))


def smoothed(p_a: float, smoothing: float) -> float:
    """p_a with the share `smoothing` of the votes for a side given to both sides alike (Szegedy et al. 2016): 0.5 stays."""
    return p_a + smoothing * (0.5 - p_a)


def trust_in(rows: Iterable[SnapshotRow]) -> Reliability:
    """How far each labeler of these rows can be trusted. Give it the train side alone: the test side must stay unseen."""
    return estimate((row.pair.id, voter(j), j.choice) for row in rows for j in row.judgements)


def voter(judgement: Judgement) -> str | None:
    """A labeler's name over all sources; None = unknown. A pseudonym means somebody else in another source."""
    return None if judgement.labeler is None else f"{judgement.source}\n{judgement.labeler}"


def strength_of(judgements: Sequence[Judgement]) -> float:
    """Mean strength (1 slightly to 3 much) of the judgements that chose a side; 1 where none says."""
    said = [j.strength for j in judgements if j.choice in ("a", "b") and j.strength is not None]
    return sum(said) / len(said) if said else 1.0
