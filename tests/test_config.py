"""Settings: whatever is wrong is named at once, as it was spelled, beside what may have been meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhf import config
from rlhf.errors import BadUsage
from rlhf.policy.settings import PolicySettings
from rlhf.registry import GateRules
from rlhf.reward.settings import RewardSettings
from rlhf.rounds import LoopSettings

NAMED = {"name": "hh", "snapshot": "hh", "base": "tiny"}
LOOP = {"name": "hh", "base": "tiny"}


def refused(
    kind: type[config.Settings], words: tuple[str, ...] = (), text: str | None = None, **flags: Any
) -> BadUsage:
    file = None
    if text is not None:
        file = Path("given.yaml")
        file.write_text(text, "utf-8")
    with pytest.raises(BadUsage) as error:
        config.load(kind, file, words, **flags)
    return error.value


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_words_file_and_flags_are_refused_together_each_as_it_was_spelled() -> None:
    error = refused(
        RewardSettings,
        ("epochs", "lerning_rate=1", "epochs=many", "margin=[1"),
        "lora_r: 0\npackng: off\n",
        name="hh",
    )
    assert error.message.split("; ") == [
        "'epochs' is no setting (wanted key=value)",
        "'margin=[1' has a value that is not YAML (quote it, for instance 'margin=\"a: b\"')",
        "'snapshot' is missing",
        "'base' is missing",
        "'epochs' = 'many': wanted a valid number",
        "'lora_r' = 0: wanted greater than or equal to 1",
        "unknown setting 'packng' (nearest: 'packing')",
        "unknown setting 'lerning_rate' (nearest: 'learning_rate')",
    ]
    assert error.fix == "correct them; every setting: rlhf reward settings"


def test_an_unknown_setting_is_told_at_most_three_near_ones_and_no_others() -> None:
    error = refused(PolicySettings, ("max_step=4",), **{**NAMED, "snapshot": None}, reward=["r@1"], method="dpo")
    near = error.message.partition("nearest: ")[2]
    assert "'max_steps'" in near and near.count("'") <= 6
    assert "gradient_checkpointing" not in f"{error.message}{error.fix}"
    assert refused(RewardSettings, ("zzzz=1",), **NAMED).message == "unknown setting 'zzzz'"


def test_a_setting_of_a_section_is_a_word_with_a_dot_and_leaves_the_sections_others() -> None:
    Path("loop.yaml").write_text("policy: {method: dpo, beta: 0.5}\nreward: {epochs: 3}\n", "utf-8")
    words = ("reward.learning_rate=3e-4", "policy.max_steps=4", "explore.pairs=7")
    settings = config.load(LoopSettings, Path("loop.yaml"), words, **LOOP)
    reward = settings.reward_settings("s", None)
    policy = settings.policy_settings("r@1", None, "exploit")
    assert policy is not None
    assert (reward.learning_rate, reward.epochs, policy.max_steps, policy.beta) == (3e-4, 3.0, 4, 0.5)
    assert settings.explore.pairs == 7


def test_a_section_that_the_file_leaves_out_is_made_by_its_words() -> None:
    assert config.load(LoopSettings, None, ("policy.method=rloo",), **LOOP).policy_settings("r@1", None, "explore")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("reward.lerning_rate=1e-4",), "unknown setting 'reward.lerning_rate' (nearest: 'reward.learning_rate'"),
        (("max_steps=4",), "unknown setting 'max_steps' (nearest: 'reward.max_steps', 'policy.max_steps')"),
        (
            ("rewards.max_steps=4",),
            "unknown setting 'rewards.max_steps' (nearest: 'reward.max_steps', 'policy.max_steps')",
        ),
        (("reward.max_steps=x",), "'reward.max_steps' = 'x': wanted a valid integer"),
        (("name.x=1",), "unknown setting 'name.x'"),
        (("policy=5",), "'policy' = 5: wanted settings, as key: value"),
        (("policy=5", "policy.beta=1"), "'policy' = 5: wanted settings, of which 'policy.beta' is one"),
        (("policy.beta=-1",), "'policy.method' is missing; 'policy.beta' = -1: wanted greater than or equal to 0"),
    ],
)
def test_a_wrong_word_of_a_section_is_refused_as_it_was_spelled(words: tuple[str, ...], said: str) -> None:
    assert said in refused(LoopSettings, words, **LOOP).message


def test_settings_that_do_not_go_together_are_named_at_once() -> None:
    words = ("policy.method=grpo", "policy.pairs=human", "policy.max_length=32", "min_judged=3", "alias=7x y")
    message = refused(LoopSettings, words, **LOOP).message
    for part in ("pairs=human is for dpo", "leaves no room for a prompt", "min_judged is for judge: people", "7x y"):
        assert part in message


def test_what_does_not_go_together_is_named_beside_values_that_cannot_be() -> None:
    message = refused(
        RewardSettings, ("epochs=-1", "zork=2", "combine=min", "kind=head", "learning_rate=0.1"), **NAMED
    ).message
    for part in ("'epochs' = -1", "unknown setting 'zork'", "combine says how members", "learning_rate says how LoRA"):
        assert part in message
    assert message.count("combine says how") == 1


def test_a_place_in_a_list_is_named() -> None:
    error = refused(GateRules, text="rules: [{figure: kl, below: 1}, {figur: kl, below: 1}]\n")
    assert "'rules[1].figure' is missing" in error.message
    assert "unknown setting 'rules[1].figur' (nearest: 'rules.figure'" in error.message
    assert error.fix.startswith("correct them; the settings are report, against")


@pytest.mark.parametrize("text", ["packing: off\ntrunk: off\n", "packing: 'off'\ntrunk: \"off\"\n"])
def test_off_is_a_word_where_a_setting_knows_it(text: str) -> None:
    file = Path("off.yaml")
    file.write_text(text, "utf-8")
    written = config.load(RewardSettings, file, **NAMED)
    said = config.load(RewardSettings, None, ("packing=off", "trunk=off"), **NAMED)
    assert (written.packing, written.trunk) == (said.packing, said.trunk) == ("off", "off")
    assert config.load(LoopSettings, None, ("reward.trunk=off",), **LOOP).reward.trunk == "off"
    assert config.load(RewardSettings, None, ("baseline=off",), **NAMED).baseline is False
