"""Static checks of an adapter folder: everything that can be refused without running a model.

A folder from somebody else is read here first. Nothing in it is executed, unpickled, or followed out of the folder;
each refusal names the file, key or tensor that was seen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf.errors import BadInput
from rlhf.records import Role
from rlhf.registry import ensembles, heads
from rlhf.registry import folder as folders
from rlhf.registry.folder import LORA_DEFAULTS, AdapterFolder, VersionKind
from rlhf.store.tensors import non_finite

TASK_TYPES: Mapping[str, Role] = {"SEQ_CLS": "reward", "CAUSAL_LM": "policy"}
# What loading would run as code or unpickle. Everything else that a version doesn't know is left behind, not copied.
UNSAFE_SUFFIXES = (
    ".bin",
    ".pt",
    ".pth",
    ".pkl",
    ".pickle",
    ".ckpt",
    ".py",
    ".pyc",
    ".so",
    ".joblib",
    ".dill",
    ".npy",
    ".npz",
    ".h5",
    ".msgpack",
)
_PREFIX = "base_model.model."
_LORA_ENDS = (
    ".lora_A.weight",
    ".lora_B.weight",
    ".lora_B.bias",
    ".lora_embedding_A",
    ".lora_embedding_B",
    ".lora_magnitude_vector",
    ".lora_magnitude_vector.weight",
)


def check_folder(path: Path, *, kind: VersionKind = "lora") -> tuple[AdapterFolder, Role]:
    """A version's folder and its role; refuses what is unsafe, unknown, broken or without its head."""
    check_files(path)
    adapter = folders.read(path, kind)
    if kind == "ensemble":
        ensembles.check(adapter.config)
        return adapter, "reward"
    _check_finite(adapter)
    if kind == "head":
        heads.check(adapter)
        return adapter, "reward"
    role = check_config(adapter.config)
    _check_tensors(adapter)
    _check_ranks(adapter)
    if role == "reward":
        _check_head(adapter)
    return adapter, role


def check_files(path: Path) -> None:
    """Refuse links, names that lead out of the folder, and files whose loading runs code."""
    if not path.is_dir():
        raise BadInput(f"{path} is no folder", fix="name the folder that PEFT's save_pretrained wrote")
    for parent, folder_names, file_names in os.walk(path):
        for name in sorted(folder_names + file_names):
            found = Path(parent) / name
            shown = found.relative_to(path).as_posix()
            if found.is_symlink():
                raise BadInput(
                    f"{shown} is a link; an adapter folder holds its own files", fix="copy what it points to"
                )
            if not found.is_dir() and not found.is_file():
                raise BadInput(f"{shown} is no ordinary file", fix="remove it from the folder")
            if name.lower().endswith(UNSAFE_SUFFIXES):
                raise BadInput(
                    f"{shown} could run code when it is loaded; only safetensors are taken",
                    fix=f"remove {shown}, or save the weights as {folders.WEIGHTS_FILE}",
                )


def check_config(config: Mapping[str, Any]) -> Role:
    """Refuse a configuration that isn't a plain LoRA on a known task; returns the role that its task means."""
    unknown = sorted(config.keys() - LORA_DEFAULTS.keys())
    if unknown:
        raise BadInput(
            f"{folders.CONFIG_FILE} has keys that LoRA doesn't know: {', '.join(unknown)}",
            fix="save the adapter with the PEFT release that this project pins",
        )
    if config.get("peft_type") != "LORA":
        raise BadInput(
            f"peft_type is {config.get('peft_type')!r}, wanted 'LORA'", fix="only LoRA adapters can be versions"
        )
    if config.get("auto_mapping"):
        raise BadInput(
            "auto_mapping is filled: it names classes to import", fix="save the adapter with a task_type instead"
        )
    if config.get("megatron_config") or config.get("megatron_core") not in (None, LORA_DEFAULTS["megatron_core"]):
        raise BadInput("megatron_config or megatron_core names a module to import", fix="save the adapter without them")
    start = config.get("init_lora_weights", True)
    if not isinstance(start, bool) and start not in ("gaussian", "orthogonal", None):
        raise BadInput(
            f"init_lora_weights is {start!r}: loading it changes the base's own weights",
            fix="convert it: save_pretrained(..., path_initial_model_for_weight_conversion=...)",
        )
    if config.get("layer_replication"):
        raise BadInput("layer_replication changes the base's layers", fix="train the adapter on the base as it is")
    _check_types(config)
    task = config.get("task_type")
    if not isinstance(task, str) or task not in TASK_TYPES:
        raise BadInput(
            f"task_type is {task!r}; a reward is 'SEQ_CLS', a policy 'CAUSAL_LM'", fix="set it and save again"
        )
    if task == "SEQ_CLS" and "score" not in (config.get("modules_to_save") or ()):
        raise BadInput(
            "modules_to_save doesn't hold 'score': the head would be lost on reload",
            fix="train with modules_to_save=['score']",
        )
    return TASK_TYPES[task]


def _check_types(config: Mapping[str, Any]) -> None:
    """The values that we or PEFT build on have the types that PEFT writes."""
    for key in ("modules_to_save", "target_modules", "exclude_modules", "layers_to_transform"):
        value = config.get(key)
        single = str if key in ("target_modules", "exclude_modules") else int if key == "layers_to_transform" else ()
        of = int if key == "layers_to_transform" else str
        if value is not None and not isinstance(value, single) and not _list_of(value, of):
            raise BadInput(
                f"{key} is {value!r}, wanted a list of names or numbers", fix="save the adapter again with PEFT"
            )
    for key in ("rank_pattern", "alpha_pattern"):
        value = config.get(key)
        if value is not None and not (isinstance(value, dict) and _list_of(list(value.values()), int | float)):
            raise BadInput(f"{key} is {value!r}, wanted numbers by module", fix="save the adapter again with PEFT")
    for key, kinds in (("r", int), ("lora_alpha", int | float), ("lora_dropout", int | float)):
        value = config.get(key, LORA_DEFAULTS[key])
        if not _list_of([value], kinds) or value < 0 or (key == "r" and value < 1):
            raise BadInput(f"{key} is {value!r}, wanted a number", fix="save the adapter again with PEFT")


def _list_of(value: Any, kinds: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, kinds) and not isinstance(one, bool) for one in value)


def hidden_size(adapter: AdapterFolder) -> int | None:
    """Width of the base's states that a reward's head expects; None for a policy and an ensemble."""
    if adapter.kind == "head":
        return int(adapter.config["hidden"])
    head = next((t for t in adapter.tensors.values() if t.name.endswith(".score.weight")), None)
    return head.shape[-1] if head else None


def check_base(adapter: AdapterFolder, details: Mapping[str, Any]) -> None:
    """Refuse shapes that don't fit the base with these details (`hidden_size`, `layers`; absent = unknown)."""
    hidden, layers = details.get("hidden_size"), details.get("layers", details.get("num_hidden_layers"))
    wanted = hidden_size(adapter)
    if isinstance(hidden, int) and wanted is not None and wanted != hidden:
        raise BadInput(
            f"the head reads {wanted} numbers, the base gives {hidden}", fix="name the base it was trained on"
        )
    if adapter.kind == "head" and isinstance(layers, int) and max(adapter.config["layers"]) > layers:
        raise BadInput(
            f"the head reads the states after layer {max(adapter.config['layers'])}, the base has {layers}",
            fix="name the base it was trained on",
        )
    for tensor in adapter.tensors.values():
        parts = tensor.name.split(".")
        into_hidden = ".self_attn." in tensor.name and parts[-3] in ("q_proj", "k_proj", "v_proj")
        if (
            isinstance(hidden, int)
            and into_hidden
            and tensor.name.endswith("lora_A.weight")
            and tensor.shape[1] != hidden
        ):
            raise BadInput(
                f"tensor {tensor.name} reads {tensor.shape[1]} numbers, the base gives {hidden}",
                fix="name the base it was trained on",
            )
        at = parts.index("layers") + 1 if "layers" in parts[:-1] else None
        if isinstance(layers, int) and at is not None and parts[at].isdigit() and int(parts[at]) >= layers:
            raise BadInput(
                f"tensor {tensor.name} is for layer {parts[at]}, the base has {layers}",
                fix="name the base it was trained on",
            )


def _check_finite(adapter: AdapterFolder) -> None:
    if adapter.weights_file is not None and (bad := non_finite(adapter.weights_file)):
        raise BadInput(
            f"tensor {bad[0]} holds NaN or infinite weights" + (f", and {len(bad) - 1} more do" if bad[1:] else ""),
            fix="train again; this training diverged",
        )


def _check_tensors(adapter: AdapterFolder) -> None:
    saved = tuple(f".{module}." for module in adapter.config.get("modules_to_save") or ())
    for tensor in adapter.tensors.values():
        if tensor.name.startswith(f"{_PREFIX}layers."):
            raise BadInput(
                f"tensor {tensor.name} was trained on a bare AutoModel: on a whole model it would load nothing",
                fix="train on AutoModelForSequenceClassification or AutoModelForCausalLM",
            )
        known = tensor.name.endswith(_LORA_ENDS) or any(module in tensor.name for module in saved)
        if not tensor.name.startswith(_PREFIX) or not known:
            raise BadInput(
                f"tensor {tensor.name} is neither LoRA nor a module to save: PEFT would drop it in silence",
                fix="save the adapter again with PEFT's save_pretrained",
            )


def _check_ranks(adapter: AdapterFolder) -> None:
    """Each A has its B, and both have a rank that the configuration names."""
    ranks = {adapter.config.get("r", LORA_DEFAULTS["r"]), *(adapter.config.get("rank_pattern") or {}).values()}
    downs = [name for name in adapter.tensors if name.endswith(".lora_A.weight")]
    ups = [name for name in adapter.tensors if name.endswith(".lora_B.weight")]
    if not downs and not any("lora_embedding_A" in name for name in adapter.tensors):
        raise BadInput(f"{folders.WEIGHTS_FILE} holds no LoRA weights", fix="save the adapter again with PEFT")
    for name in downs:
        partner = name.replace(".lora_A.", ".lora_B.")
        if partner not in adapter.tensors:
            raise BadInput(f"tensor {partner} is missing beside its lora_A", fix="save the adapter again with PEFT")
        down, up = adapter.tensors[name].shape, adapter.tensors[partner].shape
        if len(down) < 2 or len(up) < 2 or down[0] != up[1] or down[0] not in ranks:
            raise BadInput(
                f"tensor {name} has shape {list(down)} beside {list(up)}; the rank is {sorted(ranks)}",
                fix="save weights and configuration of one adapter together",
            )
    lonely = sorted(set(ups) - {name.replace(".lora_A.", ".lora_B.") for name in downs})
    if lonely:
        raise BadInput(f"tensor {lonely[0]} has no lora_A", fix="save the adapter again with PEFT")


def _check_head(adapter: AdapterFolder) -> None:
    """A reward carries its score head, one label wide; without it stock PEFT would start a new random one in silence."""
    heads = [t for t in adapter.tensors.values() if t.name.endswith(".score.weight")]
    if len(heads) != 1:
        raise BadInput(
            f"{folders.WEIGHTS_FILE} holds {len(heads)} tensors named score.weight, wanted the one head",
            fix="train with modules_to_save=['score'] and save with PEFT's save_pretrained",
        )
    if len(heads[0].shape) != 2 or heads[0].shape[0] != 1:
        raise BadInput(
            f"the head {heads[0].name} has shape {list(heads[0].shape)}, wanted [1, hidden]: one label",
            fix="train with num_labels=1",
        )
