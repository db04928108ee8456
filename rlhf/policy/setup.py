"""The live parts of a run on one base: the adapter in training, the reference, the rewards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel

from rlhf.engine import policies
from rlhf.engine.policies import TRAINED
from rlhf.engine.rendering import Renderer
from rlhf.engine.rewards import LoraShape
from rlhf.engine.sampling import Sampling
from rlhf.policy.material import Material
from rlhf.policy.reply_log import ReplyLog
from rlhf.policy.scored import Points, Rewards
from rlhf.reward.opening import shared_on
from rlhf.store import Workspace

REFERENCE = "ref"  # TRL's name of the adapter that it measures KL to


@dataclass(frozen=True)
class Setup:
    """The live parts of a run, made once and shared by whatever samples, trains and measures."""

    model: PeftModel
    rewards: Rewards
    reference: str | None
    decode: Callable[..., str]
    log: ReplyLog
    sampling: Sampling


def set_up(workspace: Workspace, material: Material, folder: Path) -> Setup:
    """One base in memory; on it the adapter to train, the reference where it isn't the base, and the rewards."""
    settings = material.settings
    if material.parent is not None:
        model = policies.load(
            material.parent.folder, material.base, material.place, trainable=True, quantize=settings.quantize
        )
    else:
        shape = LoraShape(settings.lora_r, settings.lora_alpha, settings.lora_dropout, settings.top_layers)
        model = policies.fresh(material.base, material.place, shape, seed=settings.seed, quantize=settings.quantize)
    tokenizer = material.base.tokenizer()
    rewards = [
        (
            shared_on(model, workspace, reward, f"reward{i}"),
            Renderer(tokenizer, int(reward.manifest["settings"].get("max_length", 1024))),
        )
        for i, reward in enumerate(material.rewards)
    ]
    points = Points(tuple(settings.weights), settings.length_penalty, settings.cut_off_penalty)
    sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p, settings.seed)
    reference = REFERENCE if material.parent is not None else None
    return Setup(
        model, Rewards(rewards, points, settings.token_budget), reference, tokenizer.decode, ReplyLog(folder), sampling
    )


def freeze_others(model: PeftModel) -> None:
    """Only the adapter in training has gradients: TRL's copy for the reference and the rewards have none."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(f".{TRAINED}." in name)
