"""kill -9 at every place of a reward training, in one process and in two: what is resumed has the uninterrupted run's last bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from preferences import cut_polite
from test_reward_train import PROJECT, QUICK

from rlhf import registry
from rlhf.store import Workspace, runs

pytestmark = pytest.mark.slow
STEPS: dict[str, Any] = {
    "max_steps": 6,
    "save_steps": 2,
    "lora_dropout": 0.1,
    "schedule": "constant",  # a step too many would show
    "test_pairs": 0,
    "baseline": False,
}
WORDS = [f"{key}={value}" for key, value in {**QUICK, **STEPS}.items()]
# The checkpoint that is whole when the kill comes, by place.
PLACES = {
    "first step": None,
    "a step": "checkpoint-2",
    "a checkpoint": "checkpoint-2",
    "after a checkpoint": "checkpoint-4",
    "last step": "checkpoint-4",
    "publication": "checkpoint-6",
    "after publication": "checkpoint-6",
}

# Loads torch and TRL once, then forks a process for each training. A child kills itself with -9 at its place.
DRIVER = """
import json, os, signal, sys
from pathlib import Path
from rlhf import config, reward
from rlhf.reward import publication, trainer, training
from rlhf.store import Workspace

root, words, places = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
kind = trainer.PackedRewardTrainer

def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def killed_at(where):
    loss, save = kind.compute_loss, kind._save_checkpoint
    step = {"first step": 0, "a step": 3, "last step": 5}.get(where)
    if step is not None:
        parts = []
        def in_a_step(self, *args, **kwargs):
            if self.state.global_step == step and parts:  # after the first micro-batch
                kill()
            parts.extend([1] if self.state.global_step == step else [])
            return loss(self, *args, **kwargs)
        kind.compute_loss = in_a_step
    elif where == "a checkpoint":
        mark = trainer.mark_whole
        trainer.mark_whole = lambda folder: kill() if folder.name == "checkpoint-4" else mark(folder)
    elif where == "after a checkpoint":
        def saved(self, *args, **kwargs):
            save(self, *args, **kwargs)
            self.state.global_step == 4 and kill()
        kind._save_checkpoint = saved
    elif where == "publication":
        publication.registry.publish = kill
    elif where == "after publication":
        publication.runs.finish = kill

def child(name, where=None, resume=False):
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)
    killed_at(where)
    settings = config.load(reward.RewardSettings, None, [*words, f"name={name}"])
    trained = reward.train(Workspace.open(root), settings, resume=resume)
    (Path(root) / f"{name}.json").write_text(json.dumps(trained.as_json()))
    os._exit(0)

ended = {}
for where in places:
    name = where.replace(" ", "-")
    killed = child(name, where)
    folder = max(Path(root).glob("runs/*/config.yaml"), key=lambda file: file.parent.name).parent
    whole = [f.parent.name for f in folder.glob("checkpoints/*/whole")]
    last = max(whole, key=lambda name: int(name.rpartition("-")[2]), default=None)
    ended[where] = {"killed": killed, "from": last, "resumed": child(name, resume=True)}
ended["whole"] = {"resumed": child("whole")}
print(json.dumps(ended))
"""


@pytest.fixture
def ready(workspace: Workspace, tiny_base: object, tmp_path: Path) -> Workspace:
    cut_polite(workspace, tmp_path)
    return workspace


def test_a_training_killed_at_any_place_resumes_to_the_uninterrupted_one(ready: Workspace) -> None:
    words = json.dumps([*WORDS, "token_budget=256"])
    command = [sys.executable, "-c", DRIVER, str(ready.root), words, json.dumps(list(PLACES))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    ended = json.loads(done.stdout.splitlines()[-1])
    whole = json.loads((ready.root / "whole.json").read_text("utf-8"))
    for where in PLACES:
        assert ended[where] == {"killed": -9, "from": PLACES[where], "resumed": 0}, (where, done.stderr)
        resumed = json.loads((ready.root / f"{where.replace(' ', '-')}.json").read_text("utf-8"))
        assert resumed["digest"] == whole["digest"], where  # the digest covers every weight
        folder = ready.root / "runs" / resumed["run"]
        steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
        assert steps == [1, 2, 3, 4, 5, 6], where
    assert {row.state for row in runs.list_runs(ready)} == {"done"}
    assert len(registry.list_versions(ready)) == 1 and len(list(ready.root.glob("artifacts/versions/*/*"))) == 1


# Under accelerate: the processes named in the environment kill themselves in step 4, after the checkpoint of step 2.
KILLED_IN_TWO = """
import os, signal, sys
from rlhf.cli import launching

launching.start_processes_asked_for()
from rlhf.reward import trainer
loss = trainer.PackedRewardTrainer.compute_loss

def killed(self, *args, **kwargs):
    if self.state.global_step == 3 and os.environ["RANK"] in os.environ["KILLED"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(self, *args, **kwargs)

trainer.PackedRewardTrainer.compute_loss = killed
sys.exit(launching.launched("reward", None))
"""


def test_two_processes_killed_and_resumed_equal_two_that_were_not(ready: Workspace, tmp_path: Path) -> None:
    """All of them at once, and the second alone, which takes the first with it."""
    script = tmp_path / "train.py"
    script.write_text(KILLED_IN_TWO, "utf-8")

    def launched(name: str, killed: str, *more: str) -> subprocess.CompletedProcess[str]:
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", str(script)]
        command = [*launcher, "--workspace", str(ready.root), "--json", f"name={name}", *WORDS, *more]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT), "KILLED": killed}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)

    whole = launched("whole", "")
    assert whole.returncode == 0, whole.stderr
    for name, killed in (("both", "01"), ("second", "1")):
        assert launched(name, killed).returncode != 0
        folder = ready.root / runs.list_runs(ready)[-1].folder
        assert [f.parent.name for f in folder.glob("checkpoints/*/whole")] == ["checkpoint-2"]
        resumed = launched(name, "", "--resume")
        assert resumed.returncode == 0 and "going on from checkpoint-2" in resumed.stderr, resumed.stderr
        expected, found = (json.loads(one.stdout.splitlines()[-1])["digest"] for one in (whole, resumed))
        assert found == expected  # every weight
