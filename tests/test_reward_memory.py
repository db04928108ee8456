"""Memory that runs out in a step: half the budget, the step from its start, the same gradients; a second time is an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from preferences import cut_polite
from safetensors.torch import load_file
from test_reward_train import PROJECT, QUICK, settings, weights

from rlhf import registry, reward
from rlhf.errors import RlhfError
from rlhf.reward import lora_training
from rlhf.reward.memory import OutOfMemory
from rlhf.store import Workspace, runs

BUDGET = 256
STEPS: dict[str, Any] = {"max_steps": 4, "save_steps": 2, "token_budget": BUDGET, "test_pairs": 0, "baseline": False}


@pytest.fixture
def ready(workspace: Workspace, tiny_base: object, tmp_path: Path) -> Workspace:
    cut_polite(workspace, tmp_path)
    return workspace


def run_out(monkeypatch: pytest.MonkeyPatch, *forwards: int, error: Callable[[], Exception]) -> list[int]:
    """The model runs out of memory in these forwards of its training. Returns a list that grows by one a forward."""
    seen: list[int] = []
    build = lora_training._model

    def built(*args: Any, **kwargs: Any) -> Any:
        model = build(*args, **kwargs)

        def hook(module: Any, inputs: Any) -> None:
            if not module.training:  # what is proved and measured afterwards
                return
            seen.append(len(seen) + 1)
            if len(seen) in forwards:
                raise error()

        model.register_forward_pre_hook(hook)
        return model

    monkeypatch.setattr(lora_training, "_model", built)
    return seen


def cuda_error() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def cpu_error() -> Exception:
    return RuntimeError(
        "[enforce fail at alloc_cpu.cpp:128] . DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    )


@pytest.mark.parametrize("error", [cuda_error, cpu_error, MemoryError])
def test_out_of_memory_halves_the_budget_once_and_equals_the_run_with_the_smaller_one(
    ready: Workspace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Callable[[], Exception]
) -> None:
    """In the first step's second micro-batch, where gradients of the first are there already; with dropout, which draws."""
    more = {**STEPS, "lora_dropout": 0.25}
    small = reward.train(ready, settings(name="small", **{**more, "token_budget": BUDGET // 2}))
    with monkeypatch.context() as patch:
        seen = run_out(patch, 2, error=error)
        halved = reward.train(ready, settings(name="halved", **more))
    assert len(seen) > 8  # more than one micro-batch a step
    assert halved.version == small.version  # the digest covers every weight
    said = capfd.readouterr().err
    assert said.count("out of memory at step 1") == 1 and f"token_budget {BUDGET // 2}, half of the {BUDGET}" in said
    lines = [json.loads(line) for line in (halved.run_folder / "metrics.jsonl").read_text().splitlines()]
    small_lines = [json.loads(line) for line in (small.run_folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == [line["loss"] for line in small_lines]  # no pair is counted twice


def test_a_later_step_goes_on_with_the_same_gradients(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weights(ready, reward.train(ready, settings(name="whole", **STEPS)).version)
    with monkeypatch.context() as patch:
        seen = run_out(patch, 7, error=cuda_error)
        halved = weights(ready, reward.train(ready, settings(name="halved", **STEPS)).version)
    assert len(seen) > 8
    for name, tensor in halved.items():
        assert torch.allclose(tensor, whole[name], atol=1e-5), name


def test_a_second_time_is_refused_with_the_fix_and_the_run_goes_on_where_there_is_more(
    ready: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        seen = run_out(patch, error=cuda_error)
        small = reward.train(ready, settings(name="small", **{**STEPS, "token_budget": BUDGET // 2}))
    with monkeypatch.context() as patch, pytest.raises(OutOfMemory) as refused:
        run_out(patch, 1, len(seen), error=cuda_error)  # in the last of the four steps
        reward.train(ready, settings(name="cut", **STEPS))
    assert f"out of memory again, at token_budget {BUDGET // 2} after {BUDGET}, at step" in refused.value.message
    assert "gradient_checkpointing=true" in refused.value.fix and "--resume" in refused.value.fix
    assert runs.list_runs(ready)[-1].state == "failed"
    resumed = reward.train(ready, settings(name="cut", **STEPS), resume=True)
    assert resumed.version == small.version  # it keeps to the halved budget that its checkpoint has


def test_another_error_is_no_want_of_memory(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    run_out(monkeypatch, 2, error=lambda: RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        reward.train(ready, settings(**STEPS))


def test_a_training_that_explodes_stops_with_the_pairs_of_its_step(ready: Workspace) -> None:
    exploding = {"learning_rate": 0.99, "centring": 1e37, "schedule": "constant", "warmup": 0.0, "max_grad_norm": 1e6}
    with pytest.raises(RlhfError, match=r"the loss is \S+ and its gradient (inf|nan) at step [1-9]") as stopped:
        reward.train(ready, settings(**{**STEPS, **exploding, "max_steps": 30}))
    pairs = stopped.value.message.partition("on pairs ")[2].split(", ")
    snapshot_ids = {row.pair.id[:12] for row in _rows(ready)}
    assert len(pairs) == QUICK["pairs_per_step"] and set(pairs) <= snapshot_ids
    assert "learning_rate" in stopped.value.fix and not registry.list_versions(ready)


def _rows(workspace: Workspace) -> list[Any]:
    from rlhf import snapshots

    return list(snapshots.open_snapshot(workspace, "polite").rows("train"))


# A process whose memory ends: what the whole budget needs in one micro-batch is more than there is, half of it fits.
SMALL_MACHINE = """
import resource, sys
from pathlib import Path
from rlhf import config, reward
from rlhf.reward import trainer
from rlhf.store import Workspace

used = lambda: int(next(x for x in open("/proc/self/status") if x.startswith("VmSize")).split()[1]) * 1024
step, loss_of = trainer.PackedRewardTrainer.training_step, trainer.PackedRewardTrainer.compute_loss
held = []

def measured_loss(self, *args, **kwargs):
    loss = loss_of(self, *args, **kwargs)
    held.append(used())  # the most that a micro-batch holds, but for what a layer's backward adds
    return loss

def needed(self, model, inputs, tokens):
    held.clear()
    self._gradients(model, inputs, tokens)
    return max(held), len(held)

def measured(self, model, inputs, n=None):
    asked = self.budget.tokens
    trainer.PackedRewardTrainer.compute_loss = measured_loss
    needed(self, model, inputs, asked // 2)
    (half, parts), (whole, part) = (needed(self, model, inputs, tokens) for tokens in (asked // 2, asked))
    print("MiB", used() >> 20, half >> 20, whole >> 20, "parts", parts, part, file=sys.stderr)
    model.zero_grad()
    self._metrics["train"].clear()
    trainer.PackedRewardTrainer.training_step, trainer.PackedRewardTrainer.compute_loss = step, loss_of
    resource.setrlimit(resource.RLIMIT_AS, ((half + whole) // 2,) * 2)
    return step(self, model, inputs, n)

if sys.argv[1] == "small":
    trainer.PackedRewardTrainer.training_step = measured
settings = config.load(reward.RewardSettings, None, sys.argv[3:])
trained = reward.train(Workspace.open(sys.argv[2]), settings)
print(trained.version)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_machine_whose_memory_ends_goes_on_at_half_the_budget(ready: Workspace, tmp_path: Path) -> None:
    _long_pairs(ready, tmp_path)
    words = [f"{k}={v}" for k, v in {**QUICK, "snapshot": "long", "pairs_per_step": 32, "max_length": 1024}.items()]
    words += ["max_steps=1", "test_pairs=0", "save_steps=9", "baseline=false"]

    def trained(machine: str, name: str, budget: int) -> subprocess.CompletedProcess[str]:
        more = [f"name={name}", f"token_budget={budget}"]
        command = [sys.executable, "-c", SMALL_MACHINE, machine, str(ready.root), *words, *more]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done

    halved = trained("small", "halved", 20_000)
    assert "out of memory at step 1" in halved.stderr and "going on with token_budget 10000" in halved.stderr
    assert trained("large", "half", 10_000).stdout == halved.stdout  # the same version: the digest covers every weight


def _long_pairs(workspace: Workspace, folder: Path) -> None:
    from rlhf import feedback, snapshots

    rows = [
        {"prompt": f"Question {i}? " + "tell me more " * 12, "chosen": "yes thanks " * 18, "rejected": "no " * 50}
        for i in range(40)
    ]
    file = folder / "long.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    feedback.import_files(workspace, [file], source="long")
    snapshots.cut(workspace, "long", sources=["long"], holdout=0.2)


# The second process alone runs out of memory, in the first step's second micro-batch.
IN_ONE_PROCESS = """
import os, sys
import torch
from rlhf.cli import launching
from rlhf.cli.launching import launched

launching.start_processes_asked_for()
from rlhf.reward import lora_training
build, seen = lora_training._model, []

def built(*args, **kwargs):
    model = build(*args, **kwargs)

    def hook(module, inputs):
        seen.append(1)
        if os.environ["RANK"] == "1" and len(seen) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.register_forward_pre_hook(hook)
    return model

lora_training._model = built
sys.exit(launched("reward", None))
"""


@pytest.mark.slow
def test_one_process_of_two_that_runs_out_of_memory_halves_both(ready: Workspace, tmp_path: Path) -> None:
    one = reward.train(ready, settings(name="one", **STEPS))
    script = tmp_path / "train.py"
    script.write_text(IN_ONE_PROCESS, "utf-8")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", str(script)]
    words = [f"{k}={v}" for k, v in {**QUICK, **STEPS, "name": "two"}.items()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    command = [*launcher, "--workspace", str(ready.root), "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "out of memory at step 1 (in another process): going on with token_budget 128" in done.stderr
    two = load_file(
        registry.open_version(ready, json.loads(done.stdout.splitlines()[-1])["version"]).folder
        / "adapter_model.safetensors"
    )
    for name, tensor in weights(ready, one.version).items():
        assert torch.allclose(tensor, two[name], atol=1e-5), name
