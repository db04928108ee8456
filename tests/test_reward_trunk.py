"""Reward training through kept states: same reward, fewer layers computed, and nothing lost by a stop in the middle."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from preferences import cut_polite
from safetensors.torch import load_file
from test_reward_train import QUICK, start_training

from rlhf import registry, reward
from rlhf.engine import trunk as trunks
from rlhf.store import Workspace

WORDS = {"top_layers": 1, "epochs": 2}


def settings(**more: object) -> reward.RewardSettings:
    return reward.RewardSettings(**{"name": "polite", **QUICK, **WORDS, **more})  # type: ignore[arg-type]


@pytest.fixture
def ready(workspace: Workspace, tiny_base: object, tmp_path: Path) -> Workspace:
    cut_polite(workspace, tmp_path)
    return workspace


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[trunks.Trunk]]:
    """The trunks that trainings make, for their counts."""
    made: list[trunks.Trunk] = []
    start = trunks.Trunk.__init__

    def noted(self: trunks.Trunk, *args: object) -> None:
        start(self, *args)  # type: ignore[arg-type]
        made.append(self)

    monkeypatch.setattr(trunks.Trunk, "__init__", noted)
    yield made


def weights(workspace: Workspace, version: object) -> dict[str, torch.Tensor]:
    return load_file(registry.open_version(workspace, version).folder / "adapter_model.safetensors")  # type: ignore[arg-type]


def test_a_reward_trained_through_kept_states_is_the_one_trained_at_full_depth(ready: Workspace) -> None:
    through = weights(ready, reward.train(ready, settings()).version)
    whole = weights(ready, reward.train(ready, settings(name="whole", trunk="off")).version)
    assert through.keys() == whole.keys()
    for (
        name,
        tensor,
    ) in through.items():  # float16 states are off by 5e-4 of their size, and Adam divides by small gradients
        assert (tensor - whole[name]).norm() <= 0.03 * whole[name].norm(), name


def test_a_second_training_reads_what_the_first_one_computed(ready: Workspace, counted: list[trunks.Trunk]) -> None:
    said: list[str] = []
    first = reward.train(ready, settings(), say=said.append)
    again = reward.train(ready, settings(name="again", learning_rate=1e-3))
    assert any("states below layer" in line and "differ by at most" in line for line in said)
    assert counted[0].n_computed > 0 and counted[0].n_read > counted[0].n_computed  # the second epoch
    assert counted[1].n_computed == 0 and counted[1].n_read > 0
    assert again.version.digest != first.version.digest


def test_damaged_and_evicted_states_change_no_weight(ready: Workspace) -> None:
    first = reward.train(ready, settings())
    for number, file in enumerate(sorted((ready.root / trunks.FOLDER).glob("*/*/*"))):
        if number % 2:
            file.unlink()
        else:
            raw = bytearray(file.read_bytes())
            raw[-1] ^= 1
            file.write_bytes(raw)
    assert reward.train(ready, settings(name="again")).version == first.version
    assert reward.train(ready, settings(name="small", trunk_gib=1e-5)).version == first.version


def test_padded_rows_neither_read_nor_write_states(ready: Workspace, counted: list[trunks.Trunk]) -> None:
    """A state computed by a padded forward would be another one, and later trainings would read it."""
    reward.train(ready, settings(packing="off", trunk_gib=1e-6))
    assert not counted and not list((ready.root / trunks.FOLDER).glob("*/*/*"))


def test_a_run_that_ends_before_all_pairs_computes_the_states_of_those_it_reads(
    ready: Workspace, counted: list[trunks.Trunk]
) -> None:
    reward.train(ready, settings(max_steps=1, baseline=False))
    assert 0 < counted[0].n_computed <= QUICK["pairs_per_step"] + 4  # type: ignore[operator]  # four were tried


def killed_at(workspace: Workspace, step: int, *words: str, launcher: list[str] | None = None) -> None:
    """Start a training and kill -9 it, with its children, once a checkpoint of that step or later is there."""
    process = start_training(workspace, *words, launcher=launcher)
    for _ in range(6000):
        there = [int(f.name.split("-")[1]) for f in workspace.root.glob("runs/*/checkpoints/checkpoint-*")]
        if process.poll() is not None or any(number >= step for number in there):
            break
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the training ended before it could be killed"


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, 20])
def test_killed_and_resumed_through_kept_states_equals_uninterrupted(ready: Workspace, step: int) -> None:
    words = ("top_layers=1", "epochs=20", "save_steps=5")
    killed_at(ready, step, *words)
    resumed = start_training(ready, *words, "--resume")
    out, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    whole = start_training(ready, "name=whole", *words)
    out_whole, err = whole.communicate(timeout=120)
    assert whole.returncode == 0, err
    assert json.loads(out_whole)["version"] == json.loads(out)["version"]  # the digest covers every weight


@pytest.mark.slow
def test_two_processes_through_kept_states_equal_one(ready: Workspace) -> None:
    one = reward.train(ready, settings(name="one"))
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    process = start_training(ready, "name=two", "top_layers=1", "epochs=2", launcher=launcher)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    two = registry.resolve(ready, json.loads(out.strip().splitlines()[-1])["version"])
    expected = weights(ready, one.version)
    for name, tensor in weights(ready, two).items():
        assert torch.allclose(tensor, expected[name], atol=1e-5), name
