"""How judgements become a training target. A setting of the training, recorded in the version, never of the snapshot.

A tie and `both_bad` say neither; a skip says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rlhf.measures.votes import majority, share_of_a
from rlhf.records import Judgement


def target_of(judgements: Sequence[Judgement], how: Literal["soft", "majority"] = "majority") -> float | None:
    """P(reply a is better) in [0, 1]; None where nothing but skips was said.

    soft: (votes for a + half the ties) / votes. majority: 1, 0, or 0.5 where neither side has more votes.
    """
    choices = [judgement.choice for judgement in judgements]
    if how == "soft":
        return share_of_a(choices)
    return {"a": 1.0, "b": 0.0, "tie": 0.5, None: None}[majority(choices)]


def strength_of(judgements: Sequence[Judgement]) -> float:
    """Mean strength (1 slightly to 3 much) of the judgements that chose a side; 1 where none says."""
    said = [j.strength for j in judgements if j.choice in ("a", "b") and j.strength is not None]
    return sum(said) / len(said) if said else 1.0
