"""The door for `accelerate launch`: what `scripts/train_reward.py` and `scripts/train_policy.py` do alike.

Every process comes through here, trains, and agrees with the others on how it ends; the first one speaks and writes. Nothing
heavy is imported before the processes that were asked for are there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from rlhf.cli.boundary import answer_for, as_refusal, quiet_libraries
from rlhf.errors import RlhfError

Room = Literal["reward", "policy"]
Train = Callable[..., Any]


def launched(room: Room, about: str | None) -> int:
    """Train as the command line says; returns the exit status. about: the script's own help."""
    quiet_libraries()
    start_processes_asked_for()
    words = _words(about)
    is_first = os.environ.get("RANK", "0") == "0"
    try:
        from rlhf import config
        from rlhf.store import Workspace

        kind, train = _of(room)
        settings = config.load(kind, words.config, words.settings)
        trained = train(Workspace.open(words.workspace), settings, resume=words.resume, say=remark)
    except (Exception, KeyboardInterrupt) as error:
        if is_first:
            return answer_for(error, sys.argv[1:])
        if not isinstance(error, RlhfError | KeyboardInterrupt):  # what all of them meet, the first says, once
            remark(f"process {os.environ['RANK']}: {as_refusal(error).message}")
        return 1
    if is_first:
        stopped = getattr(trained, "stopped", None)
        answer = f"published {trained.version}  {trained.run_folder}"
        print(json.dumps(trained.as_json()) if words.json else f"{stopped}\n{answer}" if stopped else answer)
    return 0


def _words(about: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="YAML file of settings")
    parser.add_argument("--workspace", type=Path, default=Path(os.environ.get("RLHF_WORKSPACE", "workspace")))
    parser.add_argument("--resume", action="store_true", help="go on where this run was interrupted")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("settings", nargs="*", help="settings as key=value")
    return parser.parse_args()


def _of(room: Room) -> tuple[Any, Train]:
    """Settings record and training of a room."""
    if room == "reward":
        from rlhf import reward

        return reward.RewardSettings, reward.train
    from rlhf import policy

    return policy.PolicySettings, policy.train


def remark(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def start_processes_asked_for() -> None:
    """Do what `accelerate launch --cpu --num_processes N` says.

    accelerate 1.15 starts one process then, without a word, leaving only a port in its environment. N stands on its own
    command line; the processes are started with torchrun in place of this one.
    """
    asked_on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    if not asked_on_cpu or "MASTER_PORT" not in os.environ or "WORLD_SIZE" in os.environ:
        return
    import psutil

    launcher = psutil.Process().parent()
    n = processes_in(launcher.cmdline() if launcher else [])
    if n > 1:
        remark(f"starting the {n} processes that were asked for")
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}", *sys.argv]
        os.execv(sys.executable, command)


def processes_in(command: Sequence[str]) -> int:
    """N of `--num_processes N` in accelerate's command line, before the script's own words; 1 where it isn't there."""
    words = [word for part in command for word in (part.split("=", 1) if part.startswith("--num") else [part])]
    for name, value in itertools.pairwise(words):
        if name in ("--num_processes", "--num-processes") and value.isdigit():
            return int(value)
    return 1
