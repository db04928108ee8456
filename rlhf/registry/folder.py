"""One version's folder, read without torch: its configuration and its tensors, each named by the digest of its bytes.

A version of kind `lora` is a stock PEFT folder; `head` is a linear head on a base's inner states; `ensemble` names its members
and has no weights of its own.

The digest is over tensors, not over the file: writers order a safetensors file and fill its metadata as they like,
and the same weights must have the same digest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlhf.errors import BadInput
from rlhf.ids import digest_of
from rlhf.store.tensors import FLOATS, Tensor, tensors_digest, tensors_in, values_of

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MANIFEST_FILE = "manifest.json"
README_FILE = "README.md"
CURVES_FILE = "curves.json"

VersionKind = Literal["lora", "head", "ensemble"]
# Configuration and weights of each kind; None = it has no weights of its own.
FILES: Mapping[VersionKind, tuple[str, str | None]] = {
    "lora": (CONFIG_FILE, WEIGHTS_FILE),
    "head": ("head.json", "head.safetensors"),
    "ensemble": ("ensemble.json", None),
}

# What a training may save beside an adapter without changing what the adapter does; only these travel into a version.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """What a version's folder holds: its configuration as written, its tensors by name, and both digests."""

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    weights_digest: str
    config_digest: str
    kind: VersionKind = "lora"

    @property
    def content(self) -> dict[str, Any]:
        """The part of the configuration that a version's digest covers."""
        return canonical_config(self.config) if self.kind == "lora" else dict(self.config)

    @property
    def weights_file(self) -> Path | None:
        name = FILES[self.kind][1]
        return None if name is None else self.path / name


def read(path: Path, kind: VersionKind = "lora") -> AdapterFolder:
    """Read a folder. Raises BadInput naming the file that is missing or can't be read."""
    config_name, weights_name = FILES[kind]
    config = read_json(path / config_name)
    tensors = {} if weights_name is None else _tensors(path / weights_name)
    weights_digest = tensors_digest([] if weights_name is None else [path / weights_name])
    found = AdapterFolder(path, config, tensors, weights_digest, "", kind)
    try:
        return replace(found, config_digest=digest_of(found.content))
    except ValueError as error:  # 1e999 reads as infinity, "\\ud800" as half a character: no JSON can hold either
        raise BadInput(f"{config_name} holds what JSON can't: {error}", fix="save it again") from None


def kind_of(path: Path) -> VersionKind:
    """The kind that the folder's files make it; `lora` where there is none of them, whose reader then names what is missing."""
    return next((kind for kind, (name, _) in FILES.items() if (path / name).is_file()), "lora")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; no NaN, no key twice (two readers could take different ones)."""
    try:
        value = json.loads(file.read_text("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_twice)
    except FileNotFoundError:
        raise BadInput(
            f"{file.name} is missing in {file.parent.name}", fix="name a folder that PEFT has saved"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(
            f"{file.name} can't be read: {error}", fix="save the adapter again with PEFT's save_pretrained"
        ) from None
    if not isinstance(value, dict):
        raise BadInput(
            f"{file.name} holds a {type(value).__name__}, not an object", fix="save the adapter again with PEFT"
        )
    return value


def canonical_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an adapter's configuration that is content: what differs from PEFT's defaults, sets sorted.

    Left out: where the base lies, which PEFT wrote the file, whether it was saved for inference. PEFT writes
    `target_modules` in the order of a Python set, another one in each process, and lists modules to save twice.
    """
    content = {
        key: value for key, value in config.items() if key not in VOLATILE_KEYS and value != LORA_DEFAULTS.get(key)
    }
    for key in ("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "target_parameters"):
        listed = content.get(key)
        if isinstance(listed, list) and len({type(one) for one in listed}) == 1 and isinstance(listed[0], str | int):
            content[key] = sorted(set(listed))
    return content


def values(folder: AdapterFolder) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """(name, values as float32) of every tensor, by name, one in memory at a time."""
    for tensor in folder.tensors.values():
        assert folder.weights_file is not None
        yield tensor.name, values_of(folder.weights_file, tensor)


def stored_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as a version keeps it: without the base's place, which is written at export."""
    return {**config, "base_model_name_or_path": None, "revision": None}


def _tensors(file: Path) -> dict[str, Tensor]:
    """The tensors by name. safetensors' own reader checks header, offsets and sizes first: ours only trusts them."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise BadInput(
            f"{file.name} is missing in {file.parent.name}",
            fix="save the adapter with safetensors (PEFT's default); pickled weights are never read",
        )
    try:
        with safe_open(str(file), framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise BadInput(
            f"{file.name} is no whole safetensors file: {error}", fix="save or copy the adapter again"
        ) from None
    tensors = {tensor.name: tensor for tensor in tensors_in(file)}
    for tensor in tensors.values():
        if tensor.dtype not in FLOATS:
            raise BadInput(
                f"tensor {tensor.name} is {tensor.dtype}; an adapter's weights are floating point",
                fix="save the adapter in float32, float16 or bfloat16",
            )
        if not all(tensor.shape):
            raise BadInput(
                f"tensor {tensor.name} is empty: shape {list(tensor.shape)}", fix="save the adapter again with PEFT"
            )
    return tensors


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(keys) != len(set(keys)):
        raise ValueError(f"the key '{next(k for k in keys if keys.count(k) > 1)}' stands there twice")
    return dict(pairs)


VOLATILE_KEYS = frozenset({"base_model_name_or_path", "revision", "peft_version", "inference_mode", "runtime_config"})

# LoraConfig's fields and defaults in the PEFT that is pinned; importing peft would import torch, so they stand here
# and a contract test compares them with the installed one.
LORA_DEFAULTS: dict[str, Any] = {
    "task_type": None,
    "peft_type": "LORA",
    "auto_mapping": None,
    "peft_version": None,
    "base_model_name_or_path": None,
    "revision": None,
    "inference_mode": False,
    "r": 8,
    "target_modules": None,
    "exclude_modules": None,
    "lora_alpha": 8,
    "lora_dropout": 0.0,
    "fan_in_fan_out": False,
    "bias": "none",
    "use_rslora": False,
    "modules_to_save": None,
    "init_lora_weights": True,
    "layers_to_transform": None,
    "layers_pattern": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "trainable_token_indices": None,
    "loftq_config": {},
    "eva_config": None,
    "corda_config": None,
    "lora_ga_config": None,
    "use_dora": False,
    "velora_config": None,
    "alora_invocation_tokens": None,
    "use_qalora": False,
    "qalora_group_size": 16,
    "monteclora_config": None,
    "layer_replication": None,
    "runtime_config": None,
    "lora_bias": False,
    "target_parameters": None,
    "use_bdlora": None,
    "arrow_config": None,
    "kasa_config": None,
    "ensure_weight_tying": False,
}
