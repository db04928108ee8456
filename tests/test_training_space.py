"""A disk that fills up: at a checkpoint and at publication, one error with its fix, no half version, and the run goes on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import FAST, CommandLine
from test_cli_surroundings import full_disk
from test_reward_train import QUICK, settings

from rlhf import registry, reward
from rlhf.store import Workspace
from rlhf.training.space import NoSpace, reason_of, room_for


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x.pt"), "No space left on device (x.pt)"),
        (OSError(errno.EFBIG, "File too large"), "File too large"),
        (
            RuntimeError("I/O error: No space left on device (os error 28)\nmore"),
            "I/O error: No space left on device (os error 28)",
        ),
        (
            RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
            "PytorchStreamWriter failed",
        ),
        (OSError(errno.EACCES, "Permission denied"), None),
        (ValueError("no"), None),
    ],
)
def test_a_full_disk_is_told_from_other_errors(error: Exception, reason: str | None, tmp_path: Path) -> None:
    found = reason_of(error)
    assert found is None if reason is None else found is not None and found.startswith(reason)
    with pytest.raises(NoSpace if reason else type(error)), room_for(tmp_path):
        raise error


def test_a_full_disk_behind_another_error_is_found(tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match="MiB are free where") as full, room_for(tmp_path):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("it could not be saved") from None
    assert full.value.fix.endswith("goes on from the start, for no checkpoint was whole")


def test_a_checkpoint_that_does_not_fit_is_exit_1_and_the_same_command_resumes(rlhf: CommandLine) -> None:
    """The limit is above what the database needs and below an optimiser's state."""
    assert rlhf.root is not None
    words = (
        "reward",
        "train",
        "big",
        "--snapshot",
        "polite@1",
        "--base",
        "tiny",
        *FAST,
        "lora_r=512",
        "baseline=false",
    )
    before = list(rlhf.root.glob("artifacts/versions/*/*"))
    with full_disk(4_000_000):
        refused = rlhf(*words, "--json")
    assert refused.status == 1 and refused.error["code"] == "no_space", refused
    assert "the disk is full" in refused.error["message"] and "make room" in refused.error["fix"]
    (row,) = [row for row in rlhf.json("run", "list")["runs"] if row["name"] == "big"]
    assert row["state"] == "failed" and not list((rlhf.root / row["folder"] / "checkpoints").glob("checkpoint-*"))
    assert list(rlhf.root.glob("artifacts/versions/*/*")) == before and not list(rlhf.root.glob("cache/staging/*"))
    assert rlhf.json(*words, "--resume")["version"] == "big@1"


# Trains in a workspace on a small disk of its own. A file of zeros takes all room but a few KiB when `where` comes, and goes again.
ON_A_SMALL_DISK = """
import json, os, sys
from pathlib import Path
from rlhf import config, registry, reward
from rlhf.errors import RlhfError
from rlhf.reward import lora_training, trainer
from rlhf.store import Workspace

where, root = sys.argv[1], Path(sys.argv[2])
settings = config.load(reward.RewardSettings, None, sys.argv[3:])
filler = root / "zeros"

def fill():
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65536))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - 300_000))  # the database and its log go on

def filled(function):
    def call(*args, **kwargs):
        fill()
        return function(*args, **kwargs)
    return call

kind = trainer.PackedRewardTrainer
if where == "checkpoint":
    save = kind._save_checkpoint
    kind._save_checkpoint = lambda self, *a: (fill() if self.state.global_step == 4 else None, save(self, *a))[1]
else:
    lora_training.publish = filled(lora_training.publish)
workspace = Workspace.open(root)
try:
    reward.train(workspace, settings)
    sys.exit("the disk never filled")
except RlhfError as error:
    said = error.as_json()["error"]
left = {
    "versions": [str(row.ref) for row in registry.list_versions(workspace)],
    "published": [str(f) for f in root.glob("artifacts/versions/*/*")],
    "staged": [str(f) for f in root.glob("cache/staging/*")],
    "checkpoints": sorted(f.name for f in root.glob("runs/*/checkpoints/*")),
}
filler.unlink()
if where == "checkpoint":
    kind._save_checkpoint = save
else:
    lora_training.publish = lora_training.publish.__closure__[0].cell_contents
trained = reward.train(workspace, settings, resume=True)
print(json.dumps({**said, **left, "digest": trained.version.digest}))
"""
MOUNT = 'mount -t tmpfs -o size=24m tmpfs {disk} && cp -r {root}/. {disk} && exec {python} -c "$CODE" {where} {disk} {words}'


@pytest.mark.parametrize("where", ["checkpoint", "publication"])
def test_a_full_disk_leaves_no_half_version_and_room_is_enough_to_go_on(
    workspace: Workspace, tiny_base: object, tmp_path: Path, where: str
) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("no disk of one's own can be mounted here (unshare -rm)")
    from preferences import cut_polite

    cut_polite(workspace, tmp_path)
    more: dict[str, Any] = {"max_steps": 6, "save_steps": 2, "lora_r": 64, "test_pairs": 0, "baseline": False}
    whole = reward.train(workspace, settings(name="whole", **more)).version
    workspace.close()
    shutil.rmtree(workspace.root / "runs")
    (workspace.root / "runs").mkdir()
    words = " ".join(f"{k}={v}" for k, v in {**QUICK, **more, "name": "cut", "epochs": 1}.items())
    disk = tmp_path / "disk"
    disk.mkdir()
    script = MOUNT.format(disk=disk, root=workspace.root, python=sys.executable, where=where, words=words)
    environment = {**os.environ, "CODE": ON_A_SMALL_DISK}  # as many threads as here: another number, other last bits
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["code"] == "no_space" and "the disk is full" in told["message"]
    kept = ["checkpoint-2"] if where == "checkpoint" else ["checkpoint-4", "checkpoint-6"]
    assert told["checkpoints"] == kept and told["fix"].endswith(f"goes on from {kept[-1]}")
    assert told["versions"] == [str(whole)] and len(told["published"]) == 1 and told["staged"] == []
    assert told["digest"] == whole.digest  # every weight is the uninterrupted run's
    assert registry.show(Workspace.open(workspace.root), whole)
