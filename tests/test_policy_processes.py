"""Policy trainings as real processes: killed with -9 and resumed; two side by side in one workspace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import copy_of
from policies import lines, log_of, settings, without_page

from rlhf import policy, registry
from rlhf.store import Workspace, runs
from rlhf.training.progress import METRICS

pytestmark = pytest.mark.slow
MORE = {"max_steps": 4, "save_steps": 2, "watch_steps": 2, "watch_prompts": 2}
KILLED: dict[str, dict[str, Any]] = {
    "human": {"method": "dpo", "pairs": "human"},
    "sampled": {"method": "dpo"},
    "sampling": {"method": "dpo", "max_steps": 6},
    "grpo": {"method": "grpo"},
    "rloo": {"method": "rloo", "from_version": "start@1"},
}
BESIDE: dict[str, dict[str, Any]] = {
    "left": {"method": "grpo", "seed": 1, "max_steps": 6},
    "right": {"method": "dpo", "reward": "r@2", "max_steps": 6},
}

# Loads torch and TRL once, then forks a process for each training. A child kills itself with -9 at its place: in the middle
# of a step, or with half a reply written to the log.
DRIVER = """
import json, os, signal, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
from test_policy_processes import BESIDE, KILLED, chosen
from rlhf import policy
from rlhf.policy import training
from rlhf.policy.reply_log import ReplyLog
from rlhf.store import Workspace
from rlhf.training.progress import MetricsFile

def kill(*args):
    os.kill(os.getpid(), signal.SIGKILL)

def child(name, more, where=None):
    pid = os.fork()
    if pid:
        return pid
    if where == "sampling":
        append, parts = ReplyLog.append, iter(range(9))
        def torn(self, rows):
            append(self, rows if next(parts) == 0 else rows[:3])
            if len(self.path.read_text("utf-8").split("\\n")) > 33:
                with open(self.path, "a") as file:
                    file.write('{"step": 0, "phase": "ran')
                kill()
        ReplyLog.append = torn
    elif where:
        ended = MetricsFile.on_step_end
        MetricsFile.on_step_end = lambda self, a, s, *r, **k: kill() if s.global_step == 3 else ended(self, a, s, *r, **k)
    try:
        policy.train(Workspace.open(sys.argv[2], actor=name), chosen(name, more))
    except BaseException as error:
        print(name, repr(error), file=sys.stderr, flush=True)
        os._exit(3)
    os._exit(0)

ends = {name: os.waitpid(child(name, more, name), 0)[1] for name, more in KILLED.items()}
os.environ["RLHF_HEAVY_JOBS"] = "2"
both = {name: child(name, more) for name, more in BESIDE.items()}
ends |= {name: os.waitpid(pid, 0)[1] for name, pid in both.items()}
print(json.dumps({name: os.waitstatus_to_exitcode(end) for name, end in ends.items()}))
"""


def chosen(name: str, more: dict[str, Any]) -> policy.PolicySettings:
    return settings(**{"name": name, **MORE, **more})


@pytest.fixture(scope="module")
def driven(policy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int], str]:
    """A workspace in which the trainings were killed, and two ran side by side; how each process ended."""
    folder = tmp_path_factory.mktemp("driven")
    root = copy_of(policy_root, folder / "ws")
    (folder / "driver.py").write_text(DRIVER)
    done = subprocess.run(
        [sys.executable, str(folder / "driver.py"), str(Path(__file__).parent), str(root)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return root, json.loads(done.stdout.strip().split("\n")[-1]), done.stderr


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in the driver's processes: another number of threads adds in another order."""
    without_page(monkeypatch)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def untimed(trained: policy.Trained) -> list[dict[str, Any]]:
    rows = lines(trained.run_folder / METRICS)
    return [{k: v for k, v in row.items() if k != "seconds" and not k.endswith("_per_s")} for row in rows]


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_training_resumes_to_the_uninterrupted_one(
    driven: tuple[Path, dict[str, int], str], policies: Workspace, name: str
) -> None:
    """Promises 10 and 11: kill -9, then --resume: every weight to the last bit, every figure, every logged reply once."""
    root, ends, said_there = driven
    assert ends[name] == -signal.SIGKILL, said_there
    killed = Workspace.open(root, actor="tester")
    (run,) = [run for run in runs.list_runs(killed) if run.name == name]
    assert run.state == "running", "nobody was left to say how it ended"
    said: list[str] = []
    resumed = policy.train(killed, chosen(name, KILLED[name]), resume=True, say=said.append)
    assert ("no checkpoint yet: starting over" if name == "sampling" else "going on from checkpoint-2") in said
    whole = policy.train(policies, chosen(name, KILLED[name]))
    assert resumed.version.digest == whole.version.digest
    assert untimed(resumed) == untimed(whole)
    assert log_of(resumed) == log_of(whole)
    assert runs.show(killed, resumed.run_id).state == "done"
    killed.close()


@pytest.mark.parametrize("name", BESIDE)
def test_two_runs_side_by_side_give_what_each_gives_alone(
    driven: tuple[Path, dict[str, int], str], policies: Workspace, name: str
) -> None:
    root, ends, said_there = driven
    assert ends[name] == 0, said_there
    both = Workspace.open(root, actor="tester")
    version = registry.resolve(both, f"{name}@1")
    beside = policy.Trained(version, "", root / "runs" / registry.show(both, version).manifest["run_id"], {})
    alone = policy.train(policies, chosen(name, BESIDE[name]))
    assert version.digest == alone.version.digest
    assert untimed(beside) == untimed(alone) and log_of(beside) == log_of(alone)
    both.close()
