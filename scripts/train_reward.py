"""Train a reward adapter, also over several processes:

    accelerate launch --cpu --num_processes 2 scripts/train_reward.py --config FILE name=hh snapshot=hh
    accelerate launch --config_file configs/accelerate/ddp.yaml scripts/train_reward.py --config FILE name=hh snapshot=hh

It is `rlhf reward train` with the name among the settings; every process trains, the first one writes and publishes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from rlhf.cli.boundary import answer_for, quiet_libraries


def main() -> int:
    quiet_libraries()
    start_processes_asked_for()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="YAML file of settings")
    parser.add_argument("--workspace", type=Path, default=Path(os.environ.get("RLHF_WORKSPACE", "workspace")))
    parser.add_argument("--resume", action="store_true", help="go on where this run was interrupted")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("settings", nargs="*", help="settings as key=value")
    words = parser.parse_args()
    is_first = os.environ.get("RANK", "0") == "0"
    try:
        from rlhf import config, reward
        from rlhf.store import Workspace

        settings = config.load(reward.RewardSettings, words.config, words.settings)
        trained = reward.train(Workspace.open(words.workspace), settings, resume=words.resume, say=remark)
    except (Exception, KeyboardInterrupt) as error:
        if not is_first:
            return 1  # the first process says it, once
        return answer_for(error, sys.argv[1:])
    if is_first:
        answer = f"published {trained.version}  {trained.run_folder}"
        print(json.dumps(trained.as_json()) if words.json else answer)
    return 0


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
    words = [word for part in (launcher.cmdline() if launcher else []) for word in part.split("=", 1)]
    n = next((words[i + 1] for i, word in enumerate(words[:-1]) if word in ("--num_processes", "--num-processes")), "1")
    if n.isdigit() and int(n) > 1:
        remark(f"starting the {n} processes that were asked for")
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            del os.environ[name]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}", *sys.argv]
        os.execv(sys.executable, command)


if __name__ == "__main__":
    sys.exit(main())
