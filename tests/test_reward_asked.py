"""Lines of `reward score`: replies and pairs in one file, answered in order, a pair with the chance that reply a is preferred."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from command_line import CommandLine

from rlhf.errors import BadInput
from rlhf.reward.asked import PairItem, asked_of, score_asked
from rlhf.reward.score import Item, open_reward
from rlhf.store import Workspace

ONE = {"id": "x", "prompt": "Question 3 about red?", "reply_a": "Yes red thanks", "reply_b": "No"}


def rows_of(workspace: Workspace, *records: dict[str, Any]) -> list[dict[str, Any]]:
    asked = [asked_of(record, number) for number, record in enumerate(records, 1)]
    return [dict(row) for row in score_asked(open_reward(workspace, "r@1"), asked)]


def test_a_pairs_scores_are_its_replies_scores_and_p_a_is_their_sigmoid(policies: Workspace) -> None:
    turned = {**ONE, "id": "y", "reply_a": ONE["reply_b"], "reply_b": ONE["reply_a"]}
    single = {"id": "z", "prompt": ONE["prompt"], "reply": ONE["reply_a"]}
    first, alone, second = rows_of(policies, ONE, single, turned)
    assert [row["id"] for row in (first, alone, second)] == ["x", "z", "y"], "in order, whatever each line is"
    assert first["score_a"] == pytest.approx(alone["score"], abs=1e-4)
    assert first["p_a"] == pytest.approx(1 / (1 + math.exp(first["score_b"] - first["score_a"])))
    assert (second["score_a"], second["score_b"]) == pytest.approx((first["score_b"], first["score_a"]), abs=1e-5)
    assert second["p_a"] == pytest.approx(1 - first["p_a"], abs=1e-5)
    assert first["version"] == "r@1" and len(first["digest"]) == 64 and "score" not in first


def test_equal_replies_are_a_coin_with_one_score(policies: Workspace) -> None:
    (row,) = rows_of(policies, {**ONE, "reply_b": ONE["reply_a"]})
    assert row["score_a"] == row["score_b"] is not None and row["p_a"] == 0.5


def test_a_pair_that_cannot_be_scored_says_why(policies: Workspace) -> None:
    row, other = rows_of(policies, {**ONE, "reply_b": "z" * 2000}, ONE)
    assert (row["score_a"], row["score_b"], row["p_a"], row["unscored"]) == (None, None, None, "too_long")
    assert other["p_a"] is not None


def test_both_replies_of_a_pair_follow_the_same_shortened_prompt(policies: Workspace) -> None:
    turns = [{"role": r, "content": c} for r, c in (("user", "x" * 700), ("assistant", "blue"), ("user", "And now?"))]
    (row,) = rows_of(policies, {**ONE, "prompt": turns, "reply_b": "y" * 300})
    assert row["p_a"] is not None and row["truncated"] is True


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"reply_b": None}, "a reply_b that is None"),
        ({"reply_b": " "}, "an empty reply_b"),
        ({"reply_a": 3}, "a reply_a that is 3"),
        ({"reply": "and another"}, "reply and reply_a and reply_b: it is either"),
    ],
)
def test_a_pair_without_two_replies_is_refused_by_its_line(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=f"f.jsonl line 7 has {said}"):
        asked_of({**ONE, **changed}, 7, "f.jsonl")


def test_a_reply_that_is_missing_or_empty_is_refused_as_that() -> None:
    with pytest.raises(BadInput, match="line 1 has an empty reply; wanted"):
        asked_of({"prompt": "p", "reply": ""}, 1)
    with pytest.raises(BadInput, match="line 1 has no reply_b; wanted"):
        asked_of({"prompt": "p", "reply_a": "x"}, 1)


def test_lines_are_read_as_what_they_are() -> None:
    assert isinstance(asked_of(ONE, 1), PairItem)
    assert isinstance(asked_of({"prompt": "p", "reply": "r"}, 1), Item)
    with pytest.raises(BadInput, match="line 2 has no prompt"):
        asked_of({"reply_a": "a", "reply_b": "b"}, 2)
    with pytest.raises(BadInput, match="line 3 is a list"):
        asked_of([], 3)


def test_the_command_scores_pairs(rlhf: CommandLine) -> None:
    lines = "".join(json.dumps({**ONE, "id": n}) + "\n" for n in (1, 2))
    answer = rlhf("reward", "score", "hh@1", "-", stdin=lines.encode())
    found = [json.loads(line) for line in answer.out.splitlines()]
    assert answer.status == 0 and [row["id"] for row in found] == [1, 2]
    assert all({"score_a", "score_b", "p_a", "version"} <= set(row) and 0 < row["p_a"] < 1 for row in found)
