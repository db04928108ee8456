"""One meaning of majority."""

import pytest

from rlhf.measures.votes import majority, share_of_a


@pytest.mark.parametrize(
    ("choices", "share", "side"),
    [
        (["a"], 1.0, "a"),
        (["a", "a", "b"], 2 / 3, "a"),
        (["a", "b"], 0.5, "tie"),
        (["b", "tie", "tie"], 1 / 3, "b"),
        (["both_bad"], 0.5, "tie"),
        (["skip"], None, None),
        ([], None, None),
        (["b", "skip"], 0.0, "b"),
    ],
)
def test_ties_are_half_a_vote_and_skips_none(choices: list[str], share: float | None, side: str | None) -> None:
    assert share_of_a(choices) == (pytest.approx(share) if share is not None else None)
    assert majority(choices) == side
