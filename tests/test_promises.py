"""The promises whose test isn't at home in one room's file. The others, by number:

1 test_reward_train::test_head_survives…    2 test_reward_train::test_one_scorer…      3 test_engine_packing::test_packed_equals…
7 test_registry_aliases::test_rollback_is_one_append
8 test_registry_versions, test_snapshots_opening::test_nothing_published_changes…
10 test_reward_train::test_resumed_equals_uninterrupted   11 test_reward_train, test_store_database::test_a_crash_leaves…
12 test_reward_loss (ours = TRL), test_reward_train::test_two_processes_equal_one, test_store_postgres, test_store_s3
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from preferences import write_polite

from rlhf import evaluation, feedback, registry, reward, snapshots
from rlhf.errors import BadInput, Damaged, NotFound, RlhfError
from rlhf.registry import aliases
from rlhf.reward.score import open_reward
from rlhf.store import Workspace


@pytest.fixture
def trained(workspace: Workspace, tiny_base: object, tmp_path: Path) -> reward.Trained:
    feedback.import_files(workspace, [write_polite(tmp_path / "polite.jsonl")])
    snapshots.cut(workspace, "polite", holdout=0.2)
    settings = {
        "name": "polite",
        "snapshot": "polite",
        "base": "tiny",
        "dtype": "float32",
        "lora_r": 4,
        "pairs_per_step": 8,
    }
    return reward.train(workspace, reward.RewardSettings(**settings, max_steps=2))  # type: ignore[arg-type]


def test_no_silent_loss_from_a_file_to_a_figure(workspace: Workspace, tiny_base: object, tmp_path: Path) -> None:
    """Promise 4: every row is accepted, duplicate or rejected; every pair is trained on or counted; accuracy is over all pairs."""
    good = write_polite(tmp_path / "good.jsonl", n=40).read_text()
    endless = {"prompt": "Question about red?", "chosen": "Yes " + "x" * 900, "rejected": "No " + "y" * 900}
    bad = ["not json", json.dumps({"prompt": "p", "chosen": "same", "rejected": "same"}), good.splitlines()[0]]
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text(good + "\n".join([*bad, json.dumps(endless)]) + "\n")
    receipt = feedback.import_files(workspace, [mixed])
    assert (receipt.rows, receipt.accepted, receipt.duplicates, receipt.rejected) == (44, 41, 1, 2)
    assert [error.line for error in receipt.errors] == [41, 42]

    snapshot = snapshots.cut(workspace, "mixed", holdout=0.5, seed=3)
    assert sum(snapshot.splits.values()) == receipt.pairs == 41
    settings = {
        "name": "mixed",
        "snapshot": "mixed",
        "base": "tiny",
        "dtype": "float32",
        "lora_r": 4,
        "max_length": 300,
    }
    trained = reward.train(workspace, reward.RewardSettings(**settings, max_steps=1))  # type: ignore[arg-type]
    rows = registry.open_version(workspace, trained.version).manifest["details"]["rows"]
    parts = ("trained_on", "set_aside", "too_long", "undecided")
    assert sum(rows[part] for part in parts) == rows["pairs"] == snapshot.splits["train"]
    figures = evaluation.evaluate(workspace, [str(trained.version)], "mixed").figures[str(trained.version)]
    assert figures["n"] == snapshot.splits["test"]
    too_long = rows["too_long"] + figures["n_too_long"]
    assert too_long == 1, "the endless pair is counted on whichever side it fell"


def test_no_silent_base_for_an_unknown_version(workspace: Workspace, trained: reward.Trained) -> None:
    """Promise 5: an unknown version is an error, never the base model's answer."""
    for text in ("polite@9", "polite@champion", "nobody@1", "sha256:" + "0" * 12, "polite", "@", "base:tiny"):
        with pytest.raises(RlhfError):
            open_reward(workspace, text)
        with pytest.raises(RlhfError):
            evaluation.evaluate(workspace, [text], "polite")


def test_no_silent_base_for_a_broken_version(workspace: Workspace, trained: reward.Trained) -> None:
    """Promise 5: a missing or changed file is an error that names it, and an adapter that doesn't fit is one too."""
    aliases.move(workspace, "polite@champion", str(trained.version), why="first")
    folder = registry.open_version(workspace, trained.version).folder
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] + b"\x00\x00\x00\x01")
    with pytest.raises(Damaged, match=r"adapter_model\.safetensors"):
        open_reward(workspace, "polite@champion")
    weights.unlink()
    with pytest.raises(Damaged, match=r"adapter_model\.safetensors"):
        open_reward(workspace, "polite@champion")


def test_no_silent_base_when_no_tensor_finds_its_place(
    tiny_folder: Path, trained: reward.Trained, workspace: Workspace, tmp_path: Path
) -> None:
    """PEFT loads nothing and says nothing when an adapter's keys are another model's: `load` compares every tensor."""
    import shutil

    from safetensors.torch import load_file, save_file

    from rlhf.engine import get, rewards
    from rlhf.engine.placement import Placement

    folder = tmp_path / "renamed"
    shutil.copytree(registry.open_version(workspace, trained.version).folder, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name.replace(".layers.", ".h."): t for name, t in tensors.items()}, folder / "adapter_model.safetensors")
    with pytest.raises(BadInput, match="doesn't fit the base"):
        rewards.load(folder, get(workspace, "tiny"), Placement("cpu", "float32", "test"))


def test_every_score_names_the_version_that_gave_it(workspace: Workspace, trained: reward.Trained) -> None:
    """Promise 5: no reply without its version's digest."""
    from rlhf.records import Message
    from rlhf.reward.score import Item

    (row,) = reward.score_items(workspace, trained.version, [Item("x", (Message("user", "Hi"),), "Hello")])
    assert (row["version"], row["digest"]) == (str(trained.version), trained.version.digest)
    with pytest.raises(NotFound):
        list(reward.score_items(workspace, "polite@2", [Item("x", (Message("user", "Hi"),), "Hello")]))
