"""Votes on a pair to one number or one side. Every room that speaks of a majority means this one.

A tie, and `both_bad`, is half a vote for each side; a skip is no vote.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

_WORTH = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}


def share_of_a(choices: Iterable[str]) -> float | None:
    """(votes for a + half the ties) / votes, in [0, 1]; None where nobody voted."""
    worths = [_WORTH[choice] for choice in choices if choice != "skip"]
    return sum(worths) / len(worths) if worths else None


def majority(choices: Iterable[str]) -> Literal["a", "b", "tie"] | None:
    """The side with more votes, 'tie' where they balance, None where nobody voted."""
    share = share_of_a(choices)
    if share is None or share == 0.5:
        return None if share is None else "tie"
    return "a" if share > 0.5 else "b"
