"""Versions for the live engine on the tiny base: drawn LoRAs that change what the base says, saved as PEFT saves them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rlhf.engine import add_from_dir, policies, rewards
from rlhf.engine.bases import Base
from rlhf.engine.live import LiveEngine
from rlhf.engine.placement import Placement
from rlhf.engine.rewards import LoraShape
from rlhf.store import Workspace

CPU = Placement("cpu", "float32", "tests")


def drawn(model: Any, seed: int, std: float = 0.3) -> Any:
    """Give a LoRA weights that change the replies."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    return model


def base_in(root: Path, tiny_folder: Path) -> Base:
    """The tiny base in a workspace of its own, for a whole module."""
    workspace = Workspace.create(root / "ws", actor="tester")
    base = add_from_dir(workspace, "tiny", tiny_folder)
    workspace.close()
    return base


def policy_folder(base: Base, folder: Path, seed: int, *, r: int = 4, top_layers: int = 0, std: float = 0.3) -> Path:
    drawn(policies.fresh(base, CPU, LoraShape(r, 2 * r, 0.0, top_layers), seed=seed), seed, std).save_pretrained(folder)
    return folder


def reward_folder(base: Base, folder: Path, seed: int, *, top_layers: int = 0) -> Path:
    drawn(rewards.fresh(base, CPU, LoraShape(4, 8, 0.0, top_layers), seed=seed), seed, 0.1).save_pretrained(folder)
    return folder


def digest(i: int) -> str:
    return f"{i:064x}"


@contextmanager
def engine_on(base: Base, **settings: Any) -> Iterator[LiveEngine]:
    engine = LiveEngine(base, CPU, **{"slots": 8, "max_rank": 8, "rows": 16, **settings})
    try:
        yield engine
    finally:
        engine.close()
