"""Train a reward adapter, also over several processes:

    accelerate launch --cpu --num_processes 2 scripts/train_reward.py --config FILE name=hh snapshot=hh
    accelerate launch --config_file configs/accelerate/ddp.yaml scripts/train_reward.py --config FILE name=hh snapshot=hh

It is `rlhf reward train` with the name among the settings; every process trains, the first one writes and publishes.
"""

import sys

from rlhf.cli.launching import launched

if __name__ == "__main__":
    sys.exit(launched("reward", __doc__))
