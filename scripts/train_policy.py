"""Train a policy adapter, also over several processes:

    accelerate launch --cpu --num_processes 2 scripts/train_policy.py --config FILE name=demo reward=hh@1
    accelerate launch --config_file configs/accelerate/ddp.yaml scripts/train_policy.py --config FILE name=demo reward=hh@1

It is `rlhf policy train` with the name among the settings; every process samples and trains, the first one writes and publishes.
"""

import sys

from rlhf.cli.launching import launched

if __name__ == "__main__":
    sys.exit(launched("policy", __doc__))
