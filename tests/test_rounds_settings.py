"""The loop's YAML: every setting once, everything that is wrong named at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf import config
from rlhf.errors import BadUsage
from rlhf.policy.settings import PolicySettings
from rlhf.reward.settings import RewardSettings
from rlhf.rounds import LoopSettings
from rlhf.rounds.settings import POLICY_SAID, REWARD_SAID, described, to_yaml

CONFIGS = sorted((Path(__file__).parent.parent / "configs" / "loop").glob("[!g]*.yaml"))


def made(**said: Any) -> LoopSettings:
    return LoopSettings(**{"base": "tiny", **said})


def load(tmp_path: Path, text: str) -> LoopSettings:
    (tmp_path / "loop.yaml").write_text(text)
    return config.load(LoopSettings, tmp_path / "loop.yaml")


def test_a_bad_yaml_is_named_whole(tmp_path: Path) -> None:
    with pytest.raises(BadUsage) as bad:
        load(
            tmp_path,
            "name: hh\nmin_new_judgments: 3\nreplay: -1\nreward: {learning_rate: 7, snapshot: s}\n"
            "policy: {beta: -2}\nphase: explor\nkinds: [humans]\n",
        )
    for part in (
        "unknown setting 'min_new_judgments' (nearest: 'min_new_judgements')",
        "'replay' = -1",
        "'reward.learning_rate' = 7",
        "unknown setting 'reward.snapshot'",
        "'policy.method' is missing",
        "'policy.beta' = -2",
        "'phase' = 'explor'",
        "'kinds[0]' = 'humans'",
        "'base' is missing",
    ):
        assert part in bad.value.message


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("phase: auto\nsources: [web]", "leave sources out, or say phase: exploit"),
        ("min_judged: 3", "min_judged is for judge: people"),
        ("policy: {method: grpo, pairs: human}", "policy: pairs=human is for dpo"),
        ("reward: {kind: head, lora_r: 4}", "reward: lora_r says how LoRA is trained"),
        ("alias: latest", "latest"),
        ("alias: '7'", "reads as a version's number"),
        ("name: a b", "a b"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, more: str, said: str) -> None:
    base = "" if "name" in more else "name: hh\n"
    with pytest.raises(BadUsage, match=said):
        load(tmp_path, f"{base}base: tiny\n{more}\n")


def test_the_written_yaml_reads_back_and_holds_every_setting_with_its_help(tmp_path: Path) -> None:
    written = made(name="hh", base="tiny", policy={"method": "rloo", "learning_rate": 2e-5}, kinds=["human"])
    text = to_yaml(written, "rlhf loop run")
    assert load(tmp_path, text) == written
    assert text.startswith("# rlhf loop run\n")
    for name, _, help_text in described():
        assert help_text in text, name
        assert f"{name.rpartition('.')[2]}:" in text, name


def test_a_section_has_the_trainings_settings_but_those_that_a_round_says() -> None:
    names = {name for name, _, _ in described()}
    for section, kind, own in (("reward", RewardSettings, REWARD_SAID), ("policy", PolicySettings, POLICY_SAID)):
        there = {name.partition(".")[2] for name in names if name.startswith(f"{section}.")}
        assert there == set(kind.model_fields) - set(own)


def test_phases_differ_by_their_sampling_alone() -> None:
    written = made(name="hh", base="tiny", policy={"method": "dpo"})
    explore, exploit = (written.policy_settings("r@1", None, phase) for phase in ("explore", "exploit"))
    assert explore is not None and exploit is not None
    assert (explore.temperature, explore.samples) == (written.explore.temperature, written.explore.samples)
    assert (exploit.temperature, exploit.samples) == (written.exploit.temperature, written.exploit.samples)
    assert explore.temperature > exploit.temperature
    same = {"temperature": 1.0, "samples": 2}
    assert explore.model_copy(update=same) == exploit.model_copy(update=same)


def test_how_it_is_run_is_no_part_of_what_a_round_keeps_to() -> None:
    one = made(name="hh", base="tiny")
    assert one.content() == one.model_copy(update={"poll_seconds": 9.0, "processes": "own"}).content()
    assert one.content() != one.model_copy(update={"replay": 9.0}).content()


@pytest.mark.parametrize("file", CONFIGS, ids=lambda f: f.name)
def test_the_settings_that_come_with_the_project_load(file: Path) -> None:
    assert config.load(LoopSettings, file).content() == LoopSettings(**yaml.safe_load(file.read_text())).content()


def test_an_instant_reward_goes_on_from_no_version() -> None:
    assert made(name="hh").reward_settings("s@1", "hh@1").from_version == "hh@1"
    assert made(name="hh", reward={"kind": "head"}).reward_settings("s@2", "hh@1").from_version is None
    assert made(name="hh", reward={"members": 5}).reward_settings("s@2", "hh@1").from_version is None
    assert made(name="hh").reward_settings("s@2", "hh@1").set_aside == 0
    started = {"head_start": True}
    assert made(name="hh", reward=started).reward_settings("s@1", None).head_start
    assert not made(name="hh", reward=started).reward_settings("s@2", "hh@1").head_start
