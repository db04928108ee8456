"""`rlhf backup`, `rlhf restore` and `rlhf gc` on a workspace in which the main job was done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import FAST, Answer, CommandLine


@pytest.mark.parametrize("name", ["monday", "monday.tar"])
def test_a_restored_workspace_verifies_and_scores_as_before(rlhf: CommandLine, tmp_path: Path, name: str) -> None:
    replies = b'{"id": "x", "prompt": "Question?", "reply": "Yes thanks"}\n'
    before, versions = rlhf("reward", "score", "hh@1", "-", stdin=replies), rlhf.json("adapter", "list")
    made = rlhf.json("backup", tmp_path / name)
    back = rlhf.at(tmp_path / "back")
    said = back.json("restore", tmp_path / name)
    assert said["backup"] == made["digest"] and said["files"] == made["files"]
    assert back.json("adapter", "verify")["ok"]
    assert back.json("adapter", "list") == versions
    assert before.status == 0 and back("reward", "score", "hh@1", "-", stdin=replies).out == before.out
    again = back("restore", tmp_path / name, "--json")
    assert again.status == 1 and again.error["code"] == "conflict"


def test_an_interrupted_training_goes_on_in_a_restored_workspace(
    rlhf: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past gc, backup and restore: from its checkpoint, to the weights of a training that nothing interrupted."""
    from rlhf.reward.trainer import PackedRewardTrainer

    def train(at: CommandLine, name: str, *more: str) -> Answer:
        words = ("reward", "train", name, "--snapshot", "polite@1", "--base", "tiny", *FAST)
        return at(*words, "max_steps=4", "save_steps=2", "seed=7", *more, "--json")

    step = PackedRewardTrainer.training_step

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 3:
            raise RuntimeError("power cut")
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(PackedRewardTrainer, "training_step", broken)
        assert train(rlhf, "cut").status == 1
    rlhf.json("gc")
    rlhf.json("backup", tmp_path / "monday")
    back = rlhf.at(tmp_path / "back")
    back.json("restore", tmp_path / "monday")
    resumed = train(back, "cut", "--resume").value
    figures = Path("runs", resumed["run"], "metrics.jsonl")
    assert rlhf.root is not None and back.root is not None
    before, after = ((root / figures).read_text("utf-8").splitlines() for root in (rlhf.root, back.root))
    assert after[:2] == before[:2] and len(after) == 4  # times in them, too: those steps were not made again
    assert resumed["digest"] == train(rlhf, "whole").value["digest"]


def test_the_commands_say_what_comes_back_with_a_backup(rlhf: CommandLine, tmp_path: Path) -> None:
    said = rlhf("backup", tmp_path / "monday")
    assert "is still in this backup" in said.err and "left out: cache/" in said.out
    assert "erase it again" in rlhf.at(tmp_path / "back")("restore", tmp_path / "monday").err


def test_an_erasure_names_the_backups_that_still_hold_the_words(rlhf: CommandLine, tmp_path: Path) -> None:
    rlhf("backup", tmp_path / "monday")
    pair = rlhf.json("feedback", "list", "--limit", "1")["pairs"][0]["id"]
    said = rlhf.json("feedback", "erase", "--pair", pair, "--why", "asked")
    assert any(copy.startswith("monday (") for copy in said["copies"])


def test_a_dry_run_says_what_gc_then_does(rlhf: CommandLine, tmp_path: Path) -> None:
    assert rlhf.root is not None
    dry = rlhf.json("gc", "--dry-run")
    checkpoints = dry["kinds"]["checkpoints"]["paths"]
    assert checkpoints
    assert all((rlhf.root / path).is_dir() for path in checkpoints)
    done = rlhf.json("gc")
    before, after = dry.pop("room"), done.pop("room")
    assert {**done, "dry_run": True} == dry
    assert before["used"] - after["used"] >= 0.9 * done["n_bytes"] > 0
    assert not any((rlhf.root / path).exists() for path in checkpoints)
    assert rlhf.json("gc")["n_bytes"] == 0
    assert rlhf.json("adapter", "verify")["ok"]
    assert "gone" in rlhf("gc").out and "would go" in rlhf("gc", "--dry-run").out


def test_a_training_that_passes_the_budget_is_refused_and_leaves_no_run(rlhf: CommandLine) -> None:
    before = rlhf.json("run", "list")
    set_to = rlhf.json("gc", "--budget", "600KiB", "--dry-run")["room"]
    assert set_to["budget"] == 600 * 1024 < set_to["used"]
    words = ("reward", "train", "new", "--snapshot", "polite@1", "--base", "tiny", *FAST, "--json")
    refused = rlhf(*words)
    assert (refused.status, refused.error["code"]) == (1, "no_space")
    assert "the training of new needs about" in refused.error["message"]
    assert rlhf.json("run", "list") == before
    assert rlhf.json("doctor")["disk_budget_gib"] == 0.001
    said = rlhf("gc", "--to-budget", "--dry-run").out
    assert "of 600.0 KiB used" in said and "over the budget" in said
    rlhf.json("gc", "--budget", "1GiB", "--dry-run")
    assert rlhf(*words).status == 0


def test_a_size_that_is_none_is_wrong_usage(rlhf: CommandLine) -> None:
    answer = rlhf("gc", "--budget", "plenty", "--json")
    assert (answer.status, answer.error["code"]) == (2, "bad_usage")
    bare = rlhf("gc", "--to-budget", "--json")
    assert (bare.status, bare.error["code"]) == (2, "bad_usage")
