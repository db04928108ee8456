"""`scripts/train_policy.py` under `accelerate launch`: as many processes as were asked for train what one trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from policies import QUICK, human, lines, settings, weights, without_page

from rlhf import policy, registry
from rlhf.cli.launching import processes_in
from rlhf.errors import BadUsage
from rlhf.store import Workspace

PROJECT = Path(__file__).parent.parent
SCRIPT = str(PROJECT / "scripts" / "train_policy.py")
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch"]
TWO_ON_CPU = [*LAUNCH, "--cpu", "--num_processes", "2"]
BY_FILE = [*LAUNCH, "--config_file", str(PROJECT / "configs" / "accelerate" / "cpu.yaml")]


def launch(workspace: Workspace, launcher: list[str], *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [*launcher, SCRIPT, "--workspace", str(workspace.root), "--json", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def as_words(chosen: dict[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in chosen.items()]


def answer_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    assert isinstance(answer, dict)
    return answer


@pytest.mark.slow
def test_two_processes_train_what_one_does(policies: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """DPO on human pairs; 5 pairs a step, so that the shares differ in size."""
    without_page(monkeypatch)
    more = {"pairs_per_step": 5, "max_steps": 2, "device": "cpu"}
    one = policy.train(policies, human(name="one", **more))
    words = as_words({**QUICK, **more, "name": "two", "method": "dpo", "pairs": "human"})
    done = launch(policies, TWO_ON_CPU, *words)
    answer = answer_of(done)
    assert "starting the 2 processes that were asked for" in done.stderr
    found = weights(policies, registry.resolve(policies, answer["version"]))
    expected = weights(policies, one.version)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert (tensor - expected[name]).abs().max() < 1e-5, name


@pytest.mark.slow
def test_grpo_on_two_processes_keeps_the_replies_of_both(policies: Workspace) -> None:
    """4 prompts of 2 replies a step: 8 replies, 4 written by each process."""
    words = as_words({**QUICK, "name": "group", "method": "grpo", "max_steps": 2, "device": "cpu"})
    answer = answer_of(launch(policies, BY_FILE, *words))
    assert answer["metrics"]["steps"] == 2
    rows = lines(policies.root / "runs" / answer["run"] / "replies.jsonl")
    for step in (0, 1):
        own = [row for row in rows if row["step"] == step]
        assert len(own) == 8
        assert len({row["prompt"] for row in own}) == 4
        assert len({row["adapter"] for row in own}) == 1  # the processes' weights are the same
    assert {row["adapter"] for row in rows if row["step"] == 0} != {row["adapter"] for row in rows if row["step"] == 1}


@pytest.mark.slow
def test_a_refusal_is_said_once_by_two_processes_and_exits_1(policies: Workspace) -> None:
    words = as_words({**QUICK, "name": "none", "method": "dpo", "reward": "absent@1", "device": "cpu"})
    done = launch(policies, TWO_ON_CPU, *words)
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert json.loads(line)["error"]["code"] == "not_found"


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_a_policy_is_not_trained_in_shards(policies: Workspace, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(BadUsage, match=f"{name} was asked for"):
        policy.train(policies, settings())


@pytest.mark.parametrize(
    ("command", "n"),
    [
        ("accelerate launch --cpu --num_processes 3 scripts/train_policy.py name=x", 3),
        ("accelerate launch --cpu --num-processes=2 scripts/train_policy.py", 2),
        ("accelerate launch --cpu scripts/train_policy.py", 1),
        ("bash", 1),
    ],
)
def test_the_number_of_processes_is_read_where_accelerate_leaves_it(command: str, n: int) -> None:
    assert processes_in(command.split()) == n
