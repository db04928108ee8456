"""Reward training: settings in, a published version out, whatever its kind.

`train` is the whole road. The same function runs under `accelerate launch`.
"""

from __future__ import annotations

from accelerate import PartialState

from rlhf.engine import placement
from rlhf.reward.ensemble import train_members
from rlhf.reward.head import check_alone
from rlhf.reward.head_training import train_head
from rlhf.reward.lora_training import train_one
from rlhf.reward.material import Say, open_material
from rlhf.reward.settings import RewardSettings
from rlhf.store import Workspace
from rlhf.training import WAIT, Trained


def train(workspace: Workspace, settings: RewardSettings, *, resume: bool = False, say: Say | None = None) -> Trained:
    """Train a reward on a snapshot and publish it as the next version of `settings.name`.

    Raises BadInput where nothing can be trained on, NotFound for an unknown snapshot, base or version, Interrupted after
    Ctrl-C (a checkpoint is kept; `resume` goes on from it), and the registry's refusal where the head did not survive.
    """
    state = PartialState(cpu=placement.wants_cpu(settings.device), timeout=WAIT)
    say = say if say and state.is_main_process else _silent
    if settings.kind == "head":
        check_alone(state.num_processes)
    if settings.members > 1:
        return train_members(workspace, settings, state, resume=resume, say=say)
    material = open_material(workspace, settings, state.num_processes, say)
    train_kind = train_head if settings.kind == "head" else train_one
    return train_kind(workspace, material, state, resume=resume, say=say)


def _silent(_text: str) -> None:
    """Only the first process speaks."""
