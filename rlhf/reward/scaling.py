"""A version's folder with every score divided by a temperature: what calibration publishes.

Each kind keeps its scale in one place: an adapter in its head, a head in its weights and posterior, an ensemble in `scale`. So P(a
beats b) = sigmoid(score a - score b) holds wherever the child is scored, and nothing else has to know of temperatures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from rlhf.registry.folder import FILES, VersionKind

_HEAD = ".score."  # the module that an adapter's folder saves as its head


def write_scaled(folder: Path, kind: VersionKind, temperature: float, to: Path) -> None:
    """Copy what makes a version of `folder` into `to`, with its scores (and its doubt, their standard deviation) divided by T.

    Weights are divided in float64 and stored in the type that they had.
    """
    config_name, weights_name = FILES[kind]
    config: dict[str, Any] = json.loads((folder / config_name).read_text("utf-8"))
    if kind == "ensemble":
        config["scale"] = config["scale"] / temperature
    (to / config_name).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    if weights_name is not None:
        tensors = load_file(folder / weights_name)
        scaled = {name: _divided(tensor, _power(kind, name), temperature) for name, tensor in tensors.items()}
        save_file(scaled, to / weights_name, metadata={"format": "pt"})


def _power(kind: VersionKind, name: str) -> int:
    """By which power of T a tensor is divided. A head's posterior variance goes with T squared, what the data took off it
    (`shrink`, a root of it) with T."""
    if kind == "lora":
        return 1 if _HEAD in name else 0
    return {"weight": 1, "shrink": 1, "prior_variance": 2}.get(name, 0)


def _divided(tensor: torch.Tensor, power: int, temperature: float) -> torch.Tensor:
    return tensor if power == 0 else (tensor.double() / temperature**power).to(tensor.dtype)
