"""A version's LoRA as the plainest folder that PEFT's format knows, so that nothing is left to vLLM's reading of settings.

The scaling is multiplied into B, matrices of a smaller rank get rows of zeros, and a reward's head stays here: vLLM's pooling
model has no place for one, and refuses an adapter that brings it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import pad

from rlhf.engine.lora_files import LoraWeights
from rlhf.errors import BadInput
from rlhf.registry.folder import CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE, read_json


def name_of(folder: Path, digest: str, kind: str) -> str:
    """`name-<12 hex of its digest>`: one name a digest, for ever, since vLLM keeps computed prompts by it."""
    name = kind
    if (folder / MANIFEST_FILE).is_file():
        name = str(read_json(folder / MANIFEST_FILE).get("name", kind))
    return f"{name}-{digest[:12]}"


def write(folder: Path, weights: LoraWeights) -> Path:
    """Write the LoRA without its head into a new folder. Raises BadInput where a number is not finite."""
    rank = weights.rank
    tensors: dict[str, Tensor] = {}
    for key, lora in weights.pairs.items():
        a, b = lora.a.float(), lora.b.float() * lora.scaling
        if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
            raise BadInput(f"{key} holds numbers that are not finite", fix="train the version anew")
        missing = rank - len(a)
        tensors[f"{key}.lora_A.weight"] = pad(a, (0, 0, 0, missing)).contiguous()
        tensors[f"{key}.lora_B.weight"] = pad(b, (0, missing)).contiguous()
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({key.rpartition(".")[2] for key in weights.pairs}),
    }
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    return folder
