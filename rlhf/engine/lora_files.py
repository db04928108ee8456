"""A version's LoRA as its folder holds it: pairs of matrices by layer, their scalings, and a reward's head.

PEFT isn't asked to build it, so what it would do beyond W + s B A is refused by name: a setting that isn't known to be harmless,
or a tensor that is no A, no B and no head, is never passed over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft.utils.other import get_pattern_key
from safetensors.torch import load_file
from torch import Tensor

from rlhf.errors import BadInput
from rlhf.registry.folder import CONFIG_FILE, LORA_DEFAULTS, VOLATILE_KEYS, WEIGHTS_FILE, read_json

HEAD = "base_model.model.score.weight"
_A, _B = ".lora_A.weight", ".lora_B.weight"
# Settings that only say which matrices there are, how they are scaled, or how they were trained.
_HARMLESS = VOLATILE_KEYS | {
    "task_type",
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "modules_to_save",
    "fan_in_fan_out",
    "auto_mapping",
    "megatron_core",
    "init_lora_weights",
}
_PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal")  # the others change the base's weights too


@dataclass(frozen=True, slots=True)
class Lora:
    """One layer's: a (r, in), b (out, r); the layer's weight grows by scaling * b @ a."""

    a: Tensor
    b: Tensor
    scaling: float


@dataclass(frozen=True, slots=True)
class LoraWeights:
    """A version's LoRA by its layers' names in the file, and the score head (1, hidden) of a reward."""

    pairs: Mapping[str, Lora]
    head: Tensor | None = None

    @property
    def rank(self) -> int:
        return max((len(lora.a) for lora in self.pairs.values()), default=0)


def read(folder: Path) -> LoraWeights:
    """The LoRA in a version's folder. Raises BadInput where there is more to it than a LoRA and a head."""
    return weights_of(read_json(folder / CONFIG_FILE), load_file(folder / WEIGHTS_FILE), folder.name)


def weights_of(config: Mapping[str, Any], tensors: dict[str, Tensor], name: str) -> LoraWeights:
    """The LoRA that PEFT's configuration and tensors make. name: the adapter's, for what is refused; see `read`."""
    odd = sorted(key for key, value in config.items() if key not in _HARMLESS and value != LORA_DEFAULTS.get(key))
    if config.get("init_lora_weights", True) not in _PLAIN_STARTS:
        odd.append("init_lora_weights")
    if odd:
        raise BadInput(
            f"adapter in {name} sets {', '.join(odd)}, which is more than a LoRA",
            fix="serve a plain LoRA, or use the adapter with PEFT",
        )
    head = tensors.pop(HEAD, None)
    pairs: dict[str, Lora] = {}
    for key in [tensor.removesuffix(_A) for tensor in tensors if tensor.endswith(_A)]:
        if key + _B in tensors:
            a, b = tensors.pop(key + _A), tensors.pop(key + _B)
            pairs[key] = Lora(a, b, scaling_of(config, key, len(a)))
    if tensors or not pairs:
        raise BadInput(
            f"adapter in {name} holds {', '.join(sorted(tensors)[:3]) or 'no LoRA'}: no pair of LoRA matrices",
            fix="serve a plain LoRA on the decoder's linear layers",
        )
    return LoraWeights(pairs, head)


def scaling_of(config: Mapping[str, Any], key: str, rank: int) -> float:
    """What PEFT multiplies B A by in the layer that the file calls `key`."""
    name = key.removeprefix("base_model.model.")
    patterns = config.get("alpha_pattern") or {}
    alpha = patterns.get(get_pattern_key(patterns.keys(), name), config["lora_alpha"])
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
