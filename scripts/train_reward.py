"""Train a reward adapter, also over several processes:

    accelerate launch --cpu --num_processes 2 scripts/train_reward.py \\
        --config configs/reward/smollm2-135m.yaml name=hh snapshot=hh

It is `rlhf reward train` with the name among the settings; every process trains, the first one writes and publishes.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from rlhf.cli.boundary import answer_for, quiet_libraries


def main() -> int:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="YAML file of settings")
    parser.add_argument("--workspace", type=Path, default=Path(os.environ.get("RLHF_WORKSPACE", "workspace")))
    parser.add_argument("--resume", action="store_true", help="go on where this run was interrupted")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("settings", nargs="*", help="settings as key=value")
    words = parser.parse_args()
    try:
        from accelerate import PartialState

        from rlhf import config, reward
        from rlhf.store import Workspace

        settings = config.load(reward.RewardSettings, words.config, words.settings)
        trained = reward.train(
            Workspace.open(words.workspace),
            settings,
            resume=words.resume,
            say=lambda text: print(text, file=sys.stderr),
        )
        if PartialState().is_main_process:
            print(json.dumps(trained.as_json()) if words.json else f"published {trained.version}  {trained.run_folder}")
    except (Exception, KeyboardInterrupt) as error:
        return answer_for(error, sys.argv[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
