"""Reward: a snapshot in, a reward version out.

Takes: a frozen snapshot, a base, settings. Gives: a published version whose scores were the same before and after a reload;
scores for replies and pairs; a child version whose probabilities are those of the votes. Writes: a run folder, a version through
the registry. Never: publishes a model that lost its head, cuts a reply, counts a pair twice.
"""

from typing import Any

from rlhf.reward.settings import CalibrationSettings, RewardSettings
from rlhf.reward.targets import target_of

__all__ = [
    "Calibrated",
    "CalibrationSettings",
    "PairScore",
    "RewardSettings",
    "Trained",
    "adopt",
    "calibrate",
    "score_items",
    "score_pairs",
    "target_of",
    "train",
]

_LATER = {
    "train": "training",
    "Trained": "training",
    "score_pairs": "score",
    "score_items": "score",
    "PairScore": "score",
    "adopt": "adoption",
    "calibrate": "calibration",
    "Calibrated": "calibration",
}


def __getattr__(name: str) -> Any:
    """Functions that need torch are imported when they are first asked for."""
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(f"rlhf.reward.{_LATER[name]}"), name)
    raise AttributeError(name)
