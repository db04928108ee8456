"""A policy training from its settings to its run folder: resumed equals uninterrupted, the same again is the same version."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from policies import human, lines, log_of, settings, watch_of, weights, without_page

from rlhf import config, policy, registry
from rlhf.errors import BadInput, BadUsage, Conflict, Interrupted, NotFound
from rlhf.policy import training
from rlhf.policy.reply_log import ReplyLog
from rlhf.policy.settings import PolicySettings
from rlhf.store import Workspace, runs
from rlhf.training.progress import MetricsFile

FOUR = {"max_steps": 4, "save_steps": 2, "watch_steps": 2, "watch_prompts": 2, "lora_dropout": 0.1}
WAYS: dict[str, dict[str, Any]] = {
    "dpo on human pairs": {"method": "dpo", "pairs": "human"},
    "dpo on sampled pairs": {"method": "dpo", "samples": 3},
    "grpo": {"method": "grpo", "beta": 0.0},
    "grpo by trl's generation": {"method": "grpo", "rollouts": "trl"},
    "rloo": {"method": "rloo", "from_version": "start@1"},
}


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    without_page(monkeypatch)


class PowerCutError(Exception):
    """Stands for whatever ends a process."""


def cut_at(patch: pytest.MonkeyPatch, step: int, cut: Callable[[], None]) -> None:
    """Do it at the end of a step, before anything notes that step down."""
    end = MetricsFile.on_step_end

    def ended(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == step:
            cut()
        end(self, args, state, control, **kwargs)

    patch.setattr(MetricsFile, "on_step_end", ended)


def power_cut() -> None:
    raise PowerCutError


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def untimed(path: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl without what a clock said."""
    return [{k: v for k, v in row.items() if k != "seconds" and not k.endswith("_per_s")} for row in lines(path)]


def assert_same_run(one: policy.Trained, other: policy.Trained) -> None:
    assert one.version == other.version  # the digest covers every weight
    assert untimed(one.run_folder / "metrics.jsonl") == untimed(other.run_folder / "metrics.jsonl")
    assert log_of(one) == log_of(other)


@pytest.mark.parametrize("way", WAYS)
def test_resumed_equals_uninterrupted(policies: Workspace, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 10, bit for bit, with what was measured and logged: cut in step 3 of 4, a checkpoint every 2, dropout on."""
    more = {**FOUR, **WAYS[way]}
    whole = policy.train(policies, settings(name="whole", **more))
    with monkeypatch.context() as patch, pytest.raises(PowerCutError):
        cut_at(patch, 3, power_cut)
        policy.train(policies, settings(name="cut", **more))
    said: list[str] = []
    resumed = policy.train(policies, settings(name="cut", **more), resume=True, say=said.append)
    assert "going on from checkpoint-2" in said
    assert_same_run(resumed, whole)
    assert [row["step"] for row in watch_of(resumed)] == [0, 2, 4]


def test_a_run_cut_before_its_first_checkpoint_starts_over(
    policies: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {**FOUR, "method": "grpo", "save_steps": 100, "max_steps": 2}
    whole = policy.train(policies, settings(name="whole", **more))
    with monkeypatch.context() as patch, pytest.raises(PowerCutError):
        cut_at(patch, 2, power_cut)
        policy.train(policies, settings(name="cut", **more))
    said: list[str] = []
    resumed = policy.train(policies, settings(name="cut", **more), resume=True, say=said.append)
    assert "no checkpoint yet: starting over" in said
    assert_same_run(resumed, whole)


@pytest.mark.parametrize("way", ["dpo on human pairs", "grpo"])
def test_a_run_cut_after_its_last_step_takes_no_step_too_many(
    policies: Workspace, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a constant learning rate, where a fifth step would move the weights."""
    more = {**FOUR, **WAYS[way], "schedule": "constant"}
    whole = policy.train(policies, settings(name="whole", **more))
    with monkeypatch.context() as patch, pytest.raises(PowerCutError):
        patch.setattr(training, "publish", lambda *_: power_cut())
        policy.train(policies, settings(name="cut", **more))
    resumed = policy.train(policies, settings(name="cut", **more), resume=True)
    assert_same_run(resumed, whole)
    assert [row["step"] for row in watch_of(resumed)] == [0, 2, 4]


@pytest.mark.parametrize("way", ["dpo on human pairs", "grpo"])
def test_ctrl_c_keeps_a_checkpoint_to_go_on_from(
    policies: Workspace, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {**FOUR, **WAYS[way], "save_steps": 100}
    whole = policy.train(policies, settings(name="whole", **more))
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="stopped at step 3 of 4") as stopped:
        cut_at(patch, 3, ctrl_c)
        policy.train(policies, settings(name="cut", **more))
    assert "--resume" in (stopped.value.fix or "")
    assert [run.state for run in runs.list_runs(policies) if run.name == "cut"] == ["interrupted"]
    assert_same_run(policy.train(policies, settings(name="cut", **more), resume=True), whole)


SAMPLED = {"max_steps": 6, "samples": 2, "max_new_tokens": 4}  # 24 prompts, in two parts


def cut_in_sampling(patch: pytest.MonkeyPatch, part: int, cut: Callable[[], None], n_rows: float) -> None:
    """Write some rows of a part, the last of them not whole, and do it."""
    append, count = ReplyLog.append, iter(range(1, 100))

    def appended(self: ReplyLog, rows: Any) -> None:
        if next(count) == part:
            append(self, rows[: int(n_rows)])
            if n_rows % 1:
                text = json.dumps(rows[int(n_rows)], ensure_ascii=False)
                with open(self.path, "a", encoding="utf-8") as file:
                    file.write(text[: len(text) // 2])
            cut()
        else:
            append(self, rows)

    patch.setattr(ReplyLog, "append", appended)


def test_a_cut_in_the_middle_of_the_sampling_changes_nothing(
    policies: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice, each time within one prompt's replies: what is whole is kept, what isn't is sampled again, nothing stands twice."""
    whole = policy.train(policies, settings(name="whole", **SAMPLED))
    for n_rows, resume in ((5, False), (3.5, True)):
        with monkeypatch.context() as patch, pytest.raises(PowerCutError):
            cut_in_sampling(patch, 1 + (not resume), power_cut, n_rows)
            policy.train(policies, settings(name="cut", **SAMPLED), resume=resume)
    said: list[str] = []
    resumed = policy.train(policies, settings(name="cut", **SAMPLED), resume=True, say=said.append)
    assert [line for line in said if line.startswith("sampled")] == [
        "sampled and scored 2 replies to 24 of 24 prompts"
    ], "two parts would have been sampled anew"
    assert_same_run(resumed, whole)
    assert len(log_of(whole)) == 48


def test_ctrl_c_in_the_sampling_is_an_interruption(policies: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = policy.train(policies, settings(name="whole", **SAMPLED))
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="16 of 24 prompts have their replies"):
        cut_in_sampling(patch, 1, ctrl_c, 100)
        policy.train(policies, settings(name="cut", **SAMPLED))
    resumed = policy.train(policies, settings(name="cut", **SAMPLED), resume=True)
    assert_same_run(resumed, whole)


def test_resume_wants_a_run_with_these_settings_that_is_not_done(policies: Workspace) -> None:
    with pytest.raises(NotFound, match="no run of 'p'"):
        policy.train(policies, human(), resume=True)
    policy.train(policies, human())
    with pytest.raises(Conflict, match="is done"):
        policy.train(policies, human(), resume=True)
    with pytest.raises(NotFound, match="no run of 'p'"):
        policy.train(policies, human(seed=1), resume=True)


def test_the_same_training_again_is_the_same_version(policies: Workspace) -> None:
    first, again = policy.train(policies, human()), policy.train(policies, human(name="q", save_steps=2))
    assert first.is_new and not again.is_new and first.version == again.version
    assert again.run_id != first.run_id and again.as_json()["new"] is False
    other = policy.train(policies, human(seed=1))
    assert other.is_new and other.version.digest != first.version.digest


def test_the_run_s_config_trains_the_same_again(policies: Workspace) -> None:
    """Every resolved setting is in it, so its file alone is the command."""
    first = policy.train(policies, settings(method="dpo", beta=0.3, reward=["r@1", "r@2"], reward_weights=[1, 2]))
    path = first.run_folder / "config.yaml"
    assert set(yaml.safe_load(path.read_text("utf-8"))) == set(PolicySettings.model_fields)
    again = policy.train(policies, config.load(PolicySettings, path, ()))
    assert again.version == first.version and not again.is_new


def test_going_on_from_a_version_starts_at_its_weights_and_shape(policies: Workspace) -> None:
    """--from takes the parent's LoRA shape whatever is asked for, and its weights."""
    start = registry.resolve(policies, "start@1")
    next_one = policy.train(policies, human(from_version="start@1", max_steps=1, learning_rate=1e-9, lora_r=16))
    before, after = weights(policies, start), weights(policies, next_one.version)
    assert before.keys() == after.keys()
    assert 0 < max(float((before[n] - after[n]).abs().max()) for n in before) < 1e-6


def test_prompts_of_a_file_are_trained_on(policies: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"Is it {i}?", "id": i}) + "\n" for i in range(5)))
    trained = policy.train(
        policies, settings(prompts=file, max_steps=2, pairs_per_step=2, watch_steps=1, watch_prompts=2)
    )
    assert {row["prompt"] for row in log_of(trained, "ranked")} < {"0", "1", "2", "3", "4"}
    assert len(log_of(trained, "ranked")) == 8, "no more prompts are sampled than max_steps needs"
    kept = registry.show(policies, trained.version).manifest
    assert kept["snapshot_digest"] is None
    assert {row["prompt"] for row in log_of(trained, "watch")} < {"0", "1", "2", "3", "4"}


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"reward": "nobody@1"}, NotFound, "nobody"),
        ({"reward": "start@1"}, BadInput, "reward"),
        ({"base": "huge"}, NotFound, "no base 'huge'"),
        ({"from_version": "r@1"}, BadInput, "policy"),
        ({"from_version": "start@9"}, NotFound, "start@9"),
        ({"prompts": "none.jsonl"}, BadInput, "no prompts file"),
        ({"max_length": 40, "max_new_tokens": 8}, BadInput, "nothing to train on"),
        ({"top_layers": 9}, BadUsage, "top_layers=9, but tiny has 3 layers"),
        ({"report_to": "wonderboard"}, BadUsage, "wonderboard"),
        ({"name": "a b"}, BadInput, "a b"),
        ({"min_margin": 1e6}, BadInput, "none of 12 prompts has two replies"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    policies: Workspace, more: dict[str, Any], error: type[Exception], words: str
) -> None:
    before = len(list(runs.list_runs(policies)))
    with pytest.raises(error, match=words):
        policy.train(policies, settings(**more))
    started = len(list(runs.list_runs(policies))) - before
    assert started == (1 if "min_margin" in more else 0), "a run starts only once its material is sound"
    assert [v for v in registry.list_versions(policies) if str(v).startswith("p@")] == []
