"""Settings of a policy training: what doesn't fit together is refused, and a version's digest covers what made it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from policies import settings
from pydantic import ValidationError

from rlhf.policy.settings import NOT_CONTENT, PolicySettings


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"reward": ["r@1", "r@2"], "reward_weights": [1.0]}, "1 weights for 2 rewards"),
        ({"reward_weights": [0.0]}, "reward_weights are all 0"),
        ({"reward": ["r@1", "r@1"]}, "names a version twice"),
        ({"reward": []}, "at least 1"),
        ({"method": "grpo", "pairs": "human"}, "pairs=human is for dpo; grpo"),
        ({"method": "rloo", "pairs": "human"}, "pairs=human is for dpo; rloo"),
        ({"pairs": "human", "prompts": "p.jsonl"}, "leave prompts out"),
        ({"guard_length": (0.25, 0.9)}, "guard_length wants two multiples around 1"),
        ({"guard_length": (1.5, 4)}, "guard_length wants two multiples around 1"),
        ({"guard_length": (-1, 4)}, "guard_length wants two multiples around 1"),
        ({"max_new_tokens": 64, "max_length": 64}, "no room for a prompt"),
        ({"method": "ppo"}, "'grpo', 'rloo' or 'dpo'"),
        ({"samples": 1}, "greater than or equal to 2"),
        ({"beta": 0.0}, "dpo learns nothing at beta = 0"),
        ({"learning_rat": 1.0}, "not permitted"),
    ],
)
def test_settings_that_do_not_fit_are_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        settings(**more)


def test_neighbours_of_what_is_refused_are_taken() -> None:
    settings(reward=["r@1", "r@2"], reward_weights=[1.0, -0.5])
    settings(pairs="human")
    settings(method="grpo", beta=0.0)
    settings(method="grpo", prompts="p.jsonl")
    settings(guard_length=(0, 1.01), max_new_tokens=63, max_length=64)


def test_one_reward_may_be_written_without_a_list() -> None:
    assert settings(reward="r@1").reward == ["r@1"]


@pytest.mark.parametrize(("method", "beta"), [("grpo", 0.04), ("rloo", 0.05), ("dpo", 0.1)])
def test_the_kl_has_a_weight_unless_told_otherwise(method: str, beta: float) -> None:
    assert settings(method=method).kl_weight == beta
    assert settings(method=method, beta=0.7).kl_weight == 0.7


OTHER: dict[str, Any] = {
    "name": "q",
    "reward": ["r@7"],
    "base": "large",
    "from_version": "p@3",
    "prompts": "other.jsonl",
    "device": "cpu",
    "save_steps": 7,
    "token_budget": 99,
    "report_to": "tensorboard",
    "log_steps": 5,
    "gradient_checkpointing": True,
    "watch_steps": 3,
    "watch_prompts": 5,
    "guard_kl": 0.3,
    "guard_length": (0.5, 2.0),
    "guard_cut_off": 0.3,
    "guard_doubt": 0.3,
}


def test_what_decides_only_where_and_how_is_no_content() -> None:
    """A rename, another device or checkpoints at other steps give the same version; names are there by their digests."""
    assert set(OTHER) == set(NOT_CONTENT)
    plain = settings()
    for key, value in OTHER.items():
        assert settings(**{key: value}).content() == plain.content(), key


def test_everything_else_is_content() -> None:
    other = {
        "method": "rloo",
        "pairs": "human",
        "reward_weights": [2.0],
        "schedule": "cosine",
        "dtype": "bfloat16",
        "quantize": "nf4",
        "rollouts": "trl",
        "beta": 0.2,
    }
    plain = settings().content()
    for key in set(PolicySettings.model_fields) - set(NOT_CONTENT):
        known = getattr(settings(), key)
        value = other[key] if key in other else known + 1 if isinstance(known, int) else known / 2 + 0.01
        assert settings(**{key: value}).content()[key] != plain[key], key


def test_a_default_that_is_spelt_out_is_the_same_content() -> None:
    assert settings(beta=0.1, reward_weights=[1.0]).content() == settings().content()


def test_every_setting_has_its_help() -> None:
    assert not [key for key, field in PolicySettings.model_fields.items() if not field.description]
