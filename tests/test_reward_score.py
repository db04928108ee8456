"""Replies to one prompt share its tokens, and each scores what it scores alone, in the order given."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from rlhf import reward
from rlhf.engine import scoring
from rlhf.engine.packing import Group, share
from rlhf.records import Message
from rlhf.reward.score import Item, open_reward
from rlhf.store import Workspace

PROMPTS = [
    (Message("user", "Question 3 about red?"),),
    (Message("system", "Be short."), Message("user", "Which?")),
    # longer than the limit with an answer behind it, so that its first turns go
    (Message("user", "x" * 700), Message("assistant", "blue"), Message("user", "And now?")),
]
TEXTS = ["Yes red thanks", "No", "Yes", "Yes red", "No red blue é", "Yes red thanks", "y" * 300, "z" * 2000]


def shuffled() -> list[Item]:
    items = [Item(f"{p}:{t}", prompt, text) for p, prompt in enumerate(PROMPTS) for t, text in enumerate(TEXTS)]
    random.Random(0).shuffle(items)
    return items


def test_every_reply_scores_what_it_scores_alone_in_the_order_given(policies: Workspace) -> None:
    items = shuffled()
    together = list(reward.score_items(policies, "r@1", items))
    assert [row["id"] for row in together] == [item.id for item in items]
    opened = open_reward(policies, "r@1")
    n_shortened = 0
    for item, row in zip(items, together, strict=True):
        rendered = opened.renderer.reply(item.prompt, item.reply)
        if isinstance(rendered, str):
            assert row["score"] is None and row["unscored"] == rendered == "too_long"
            continue
        (alone,) = opened.score([Group((), (tuple(rendered[0]),))])
        assert row["score"] == pytest.approx(alone[0], abs=1e-4)
        assert row.get("dropped_turns", 0) == rendered[1]
        n_shortened += rendered[1] > 0
    assert n_shortened and len({round(row["score"], 3) for row in together if row["score"] is not None}) > 5


def test_equal_replies_to_one_prompt_have_the_very_same_score(policies: Workspace) -> None:
    scores: dict[tuple[object, str], set[float]] = {}
    items = shuffled()
    for item, row in zip(items, reward.score_items(policies, "r@1", items), strict=True):
        scores.setdefault((item.prompt, item.reply), set()).add(row["score"])
    assert all(len(found) == 1 for found in scores.values())


def test_a_prompt_is_computed_once_for_its_replies(policies: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever in the file they stand."""
    seen: list[int] = []
    real = scoring.logits_of

    def counted(model: Any, groups: list[Group], *rest: Any) -> torch.Tensor:
        seen.append(sum(group.n_tokens for group in groups))
        return real(model, groups, *rest)

    monkeypatch.setattr(scoring, "logits_of", counted)
    others = [Item(f"other {i}", (Message("user", f"another {i}"),), "No") for i in range(100)]
    long = (Message("user", "w" * 400),)
    items = [Item("first", long, "Yes"), *others, Item("last", long, "No")]
    list(reward.score_items(policies, "r@1", items))
    renderer = open_reward(policies, "r@1").renderer
    apart = sum(len(renderer.reply(item.prompt, item.reply)[0]) for item in items)
    assert sum(seen) <= apart - 400


def test_a_group_keeps_to_the_budget_and_loses_no_reply() -> None:
    chance = random.Random(3)
    prompts = [chance.randrange(3) for _ in range(60)]
    openings = [[p] * chance.randrange(1, 30) for p in range(3)]
    renderings = [openings[p] + [chance.randrange(9) for _ in range(chance.randrange(1, 40))] for p in prompts]
    for budget in (1, 64, 200, 10_000):
        shared = share(prompts, renderings, budget)
        owned = sorted(i for _, owners in shared for own in owners for i in own)
        assert owned == list(range(60))
        for group, owners in shared:
            assert len(group.replies) == 1 or group.n_tokens <= budget
            assert all(group.replies), "a reply needs a token of its own to be scored at"
            for reply, own in zip(group.replies, owners, strict=True):
                assert all([*group.prefix, *reply] == renderings[i] for i in own)
                assert len({prompts[i] for i in own}) == 1
    assert len(share(prompts, renderings, 10_000)) == 3


def test_a_model_that_pads_gets_single_replies() -> None:
    """A padded group would hold its prefix once a reply, far beyond the token budget."""
    rows: list[int] = []

    class Padding:
        training = False
        config = type("Config", (), {"_attn_implementation": "sdpa", "pad_token_id": 0})()

        def parameters(self) -> Any:
            return iter([torch.zeros(1)])

        def eval(self) -> Any:
            return self

        train = lambda self, mode: self  # noqa: E731

        def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, ends: torch.Tensor) -> Any:
            rows.append(int(attention_mask.sum()))
            sums = (input_ids * attention_mask).sum(1, keepdim=True).float()
            return type("Out", (), {"logits": sums})()

    groups = [Group(tuple(range(50)), ((1,), (2, 3), (4,))), Group((), ((7,),))]
    assert scoring.score(Padding(), groups, token_budget=60) == [[1226.0, 1230.0, 1229.0], [7.0]]
    assert max(rows) <= 60
