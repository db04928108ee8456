"""Training to a published version: the head survives, the budget changes nothing, an interrupted run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from preferences import cut_polite
from safetensors.torch import load_file
from transformers import AutoTokenizer

from rlhf import registry, reward
from rlhf.engine import scoring
from rlhf.errors import BadInput, Conflict, NotFound
from rlhf.records import Message
from rlhf.reward.score import Item, open_reward
from rlhf.store import Workspace, runs

PROJECT = Path(__file__).parent.parent
QUICK = {
    "base": "tiny",
    "snapshot": "polite",
    "dtype": "float32",
    "learning_rate": 3e-3,
    "pairs_per_step": 8,
    "lora_r": 4,
    "lora_alpha": 8,
}


def settings(**more: object) -> reward.RewardSettings:
    return reward.RewardSettings(**{"name": "polite", "epochs": 1, **QUICK, **more})  # type: ignore[arg-type]


@pytest.fixture
def ready(workspace: Workspace, tiny_base: object, tmp_path: Path) -> Workspace:
    cut_polite(workspace, tmp_path)
    return workspace


def weights(workspace: Workspace, version: object) -> dict[str, torch.Tensor]:
    return load_file(registry.open_version(workspace, version).folder / "adapter_model.safetensors")  # type: ignore[arg-type]


def test_a_reward_learns_what_the_labelers_prefer(ready: Workspace) -> None:
    trained = reward.train(ready, settings(epochs=3))
    assert trained.metrics["accuracy"] > 0.9
    assert {"config.yaml", "metrics.jsonl", "report.json", "report.html"} <= {
        f.name for f in trained.run_folder.iterdir()
    }
    assert runs.show(ready, trained.run_id).state == "done"


def test_head_survives_reload_and_export_to_plain_peft(ready: Workspace, tmp_path: Path) -> None:
    """Promise 1: a fresh base with the folder, and stock PEFT with the export, give the published probe scores."""
    trained = reward.train(ready, settings())
    items = [
        Item(1, (Message("user", "Question 3 about red?"),), "Yes blue thanks"),
        Item(2, (Message("user", "q"),), "No"),
    ]
    ours = [row["score"] for row in reward.score_items(ready, trained.version, items)]
    base = ready.root / "bases" / "tiny"
    registry.export_folder(ready, trained.version, tmp_path / "out", base_path=str(base))
    stock = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "out", num_labels=1).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    for item, score in zip(items, ours, strict=True):
        chat = [m.as_json() for m in item.prompt] + [{"role": "assistant", "content": item.reply}]
        ids = tokenizer(
            tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False, return_tensors="pt"
        )
        with torch.no_grad():
            assert stock(**ids).logits.item() == pytest.approx(score, abs=1e-4)


def test_token_budget_does_not_change_the_weights(ready: Workspace) -> None:
    one = reward.train(ready, settings(token_budget=100_000))
    many = reward.train(ready, settings(name="cut", token_budget=16))
    padded = reward.train(ready, settings(name="padded", packing="off"))
    expected = weights(ready, one.version)
    for other in (many, padded):
        for name, tensor in weights(ready, other.version).items():
            assert torch.allclose(tensor, expected[name], atol=1e-4), name


def test_same_seeds_same_version(ready: Workspace) -> None:
    """Publishing what is there already gives the version that it is."""
    first, again = reward.train(ready, settings()), reward.train(ready, settings())
    assert first.version == again.version
    assert reward.train(ready, settings(seed=1)).version.digest != first.version.digest


def test_resumed_equals_uninterrupted(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 10, with the stop at step 3 of 12 and a checkpoint every 2: the last good state is used."""
    whole = reward.train(ready, settings(name="whole", epochs=2, save_steps=2))
    from rlhf.reward import trainer

    step = trainer.PackedRewardTrainer.training_step

    def broken(self: object, *args: object, **kwargs: object) -> torch.Tensor:
        if self.state.global_step == 5:  # type: ignore[attr-defined]
            raise RuntimeError("power cut")
        return step(self, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(trainer.PackedRewardTrainer, "training_step", broken)
        reward.train(ready, settings(name="cut", epochs=2, save_steps=2))
    resumed = reward.train(ready, settings(name="cut", epochs=2, save_steps=2), resume=True)
    assert resumed.version == whole.version  # the digest covers every weight
    steps = [json.loads(line)["step"] for line in (resumed.run_folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))


def test_resume_without_an_interrupted_run_is_refused(ready: Workspace) -> None:
    with pytest.raises(NotFound, match="no run of 'polite'"):
        reward.train(ready, settings(), resume=True)
    reward.train(ready, settings())
    with pytest.raises(Conflict, match="is done"):
        reward.train(ready, settings(), resume=True)


def test_training_from_a_version_goes_on_from_its_weights(ready: Workspace) -> None:
    first = reward.train(ready, settings())
    second = reward.train(ready, settings(from_version=str(first.version), max_steps=1, learning_rate=1e-9))
    before, after = weights(ready, first.version), weights(ready, second.version)
    assert max((before[n] - after[n]).abs().max() for n in before) < 1e-6
    assert [parent for _, parent in registry.open_version(ready, second.version).manifest["parents"]] == [
        first.version.digest
    ]


def test_nothing_to_train_on_is_refused_before_a_run_starts(ready: Workspace) -> None:
    with pytest.raises(BadInput, match="none is left to train on"):
        reward.train(ready, settings(max_length=16))
    with pytest.raises(NotFound, match="no base 'huge'"):
        reward.train(ready, settings(base="huge"))
    assert runs.list_runs(ready) == () or list(runs.list_runs(ready)) == []


def test_one_scorer_gives_training_and_scoring_the_same_numbers(ready: Workspace) -> None:
    """Promise 2: pairs, single replies and the trainer's forward agree on the published version."""
    trained = reward.train(ready, settings())
    opened = open_reward(ready, trained.version)
    from rlhf import snapshots

    pairs = [row.pair for row in snapshots.open_snapshot(ready, "polite").rows("test")]
    for pair, scored in zip(pairs, reward.score_pairs(ready, trained.version, pairs), strict=True):
        singles = [
            row["score"]
            for row in reward.score_items(
                ready, trained.version, [Item(0, pair.prompt, pair.reply_a), Item(1, pair.prompt, pair.reply_b)]
            )
        ]
        rendered = opened.renderer.pair(pair)
        assert rendered is not None
        from rlhf.engine.packing import Group

        grad_path = scoring.scores_of(opened.model, [Group(rendered.prefix, (rendered.a, rendered.b))]).tolist()
        assert [scored.score_a, scored.score_b] == pytest.approx(singles, abs=1e-4)
        assert grad_path == pytest.approx(singles, abs=1e-4)


def start_training(workspace: Workspace, *words: str, launcher: list[str] | None = None) -> subprocess.Popen[str]:
    command = [
        *(launcher or [sys.executable]),
        str(PROJECT / "scripts" / "train_reward.py"),
        "--workspace",
        str(workspace.root),
        "--json",
        "name=polite",
        *(f"{k}={v}" for k, v in QUICK.items()),
        *words,
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def wait_for_steps(workspace: Workspace, n: int, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        written = [f for f in workspace.root.glob("runs/*/metrics.jsonl") if len(f.read_text().splitlines()) >= n]
        if written:
            return
        time.sleep(0.05)
    raise AssertionError(process.communicate()[1])


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_resume(ready: Workspace) -> None:
    process = start_training(ready, "epochs=400", "save_steps=1000")
    wait_for_steps(ready, 3, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "--resume" in json.loads(out)["error"]["fix"], err
    assert list(ready.root.glob("runs/*/checkpoints/checkpoint-*"))
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_crash_leaves_the_last_good_state(ready: Workspace) -> None:
    """Promise 11: kill -9 in the middle, then --resume publishes the uninterrupted run's weights."""
    words = ("epochs=30", "save_steps=5")
    process = start_training(ready, *words)
    for _ in range(3000):
        if list(ready.root.glob("runs/*/checkpoints/checkpoint-[1-9][0-9]")) or process.poll() is not None:
            break
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the training ended before it could be killed"
    assert not registry.list_versions(ready)
    resumed = start_training(ready, *words, "--resume")
    out, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    whole = start_training(ready, "name=whole", *words)
    out_whole, err = whole.communicate(timeout=120)
    assert whole.returncode == 0, err
    # The digest covers every weight, so equal training gives the version that is there already.
    assert json.loads(out_whole)["version"] == json.loads(out)["version"]


@pytest.mark.slow
def test_two_processes_equal_one(ready: Workspace) -> None:
    """Promise 12: `accelerate launch --num_processes 2` gives one process's weights to 1e-5."""
    one = reward.train(ready, settings(name="one"))
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    process = start_training(ready, "name=two", "epochs=1", launcher=launcher)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "starting the 2 processes that were asked for" in err
    two = registry.resolve(ready, json.loads(out.strip().splitlines()[-1])["version"])
    expected = weights(ready, one.version)
    for name, tensor in weights(ready, two).items():
        assert torch.allclose(tensor, expected[name], atol=1e-5), name
