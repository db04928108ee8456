"""Which pairs of a train side a training leaves for calibration: a hash of the opening turn, like the split.

No training sees a group whose number lies below its `set_aside`, whatever the snapshot, its seed or the training's own: so two
versions with the same setting leave the same pairs, a larger share holds every pair of a smaller one, and a later cut moves none.
"""

from __future__ import annotations

from rlhf.ids import unit_interval

_SEED, _PURPOSE = 0, "set aside for calibration"


def is_aside(group: str, share: float) -> bool:
    """Whether a train-side group is left out of training. group: `Pair.group`. share: `set_aside`, 0 = none.

    The purpose is hashed with the group: under the split's own number, whose low end is the test side, a share below the holdout
    would leave nothing.
    """
    return unit_interval(_SEED, f"{_PURPOSE}\x00{group}") < share
