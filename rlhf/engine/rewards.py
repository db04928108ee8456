"""Reward models: a classifier over a causal base, a LoRA and a trained score head.

`fresh` makes one to train, `load` reads a version's folder onto a base and checks that every tensor found its place (PEFT
loads nothing and says nothing when keys differ). The head is float32 whatever the body's dtype: a bfloat16 head rounds
margins to steps of 1/128.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers.pytorch_utils import Conv1D

from rlhf.engine.bases import Base
from rlhf.engine.classifiers import classifier
from rlhf.engine.fused import fuse
from rlhf.engine.placement import Placement
from rlhf.errors import BadInput


def leave_inputs(model: PeftModel) -> PeftModel:
    """PEFT casts every LoRA's input to float32; under `lora_in_body_dtype` that is a copy of all activations for nothing."""
    if model.get_base_model().dtype == torch.bfloat16:
        for module in model.modules():
            if isinstance(module, BaseTunerLayer):
                module.cast_input_dtype_enabled = False
    return model


_FOUR_BIT = "Linear4bit"  # the class of bitsandbytes, which may not be installed


@dataclass(frozen=True)
class LoraShape:
    """Where the LoRA sits. top_layers: how many layers from the top carry it; 0 = all."""

    r: int
    alpha: int
    dropout: float
    top_layers: int
    target_modules: str | Sequence[str] = "all-linear"


def fresh(base: Base, placement: Placement, shape: LoraShape, *, seed: int) -> PeftModel:
    """A reward model to train: LoRA and head trainable, everything else frozen. Same seed, same weights."""
    model = classifier(base, placement, seed=seed)
    return fuse(with_lora(model, shape, TaskType.SEQ_CLS, seed=seed, modules_to_save=["score"]))


def head_of(model: PeftModel) -> torch.nn.Parameter:
    """The trained score head, (1, hidden). Its data may be exchanged: training goes on from there."""
    heads = [p for name, p in model.named_parameters() if name.endswith("score.modules_to_save.default.weight")]
    assert len(heads) == 1, "a reward has one head"
    return heads[0]


def with_lora(
    model: Any, shape: LoraShape, task: TaskType, *, seed: int, modules_to_save: list[str] | None = None
) -> PeftModel:
    """A model with a new LoRA of that shape, which changes nothing yet. Same seed, same weights."""
    n_layers = model.config.num_hidden_layers
    targets = linear_names(model) if shape.target_modules == "all-linear" else list(shape.target_modules)
    config = LoraConfig(
        task_type=task,
        r=shape.r,
        lora_alpha=shape.alpha,
        lora_dropout=shape.dropout,
        target_modules=targets,
        layers_to_transform=list(range(n_layers - shape.top_layers, n_layers))
        if 0 < shape.top_layers < n_layers
        else None,
        modules_to_save=modules_to_save,
        fan_in_fan_out=any(
            isinstance(module, Conv1D) for module in model.modules()
        ),  # GPT-2 keeps its weights transposed
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return leave_inputs(get_peft_model(model, config))


def linear_names(model: Any) -> list[str]:
    """Last names of the linear layers inside the decoder; `all-linear` itself would take the score head for one (and freeze it)."""
    body = getattr(model, model.base_model_prefix)
    kinds = (torch.nn.Linear, Conv1D)  # not their subclasses: a router that is a Linear gives more than one tensor
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in body.named_modules()
            if type(module) in kinds or type(module).__name__ == _FOUR_BIT
        }
    )


def load(
    folder: Path, base: Base, placement: Placement, *, trainable: bool = False, seed: int = 0, adapter: str = "default"
) -> PeftModel:
    """The reward model of a version's folder on a fresh base. Raises BadInput where a tensor did not find its place.

    seed: of the head that the folder's replaces; with another one than in training, a lost head can't look right.
    """
    model = classifier(base, placement, seed=seed)
    try:
        loaded = PeftModel.from_pretrained(model, str(folder), adapter_name=adapter, is_trainable=trainable)
    except (RuntimeError, ValueError) as error:  # shapes of another base, or layers that it doesn't have
        raise _unfit(folder, error) from None
    check_loaded(fuse(leave_inputs(loaded)), folder, adapter)
    loaded.eval()
    return loaded


def load_beside(model: PeftModel, folder: Path, adapter: str) -> None:
    """One more reward on a loaded one's base, with its own LoRA and head, under the name `adapter`. Raises as `load`."""
    try:
        model.load_adapter(str(folder), adapter)
    except (RuntimeError, ValueError) as error:
        raise _unfit(folder, error) from None
    check_loaded(fuse(leave_inputs(model)), folder, adapter)
    model.eval()


def _unfit(folder: Path, error: Exception) -> BadInput:
    return BadInput(
        f"adapter in {folder.name} doesn't fit the base: {' '.join(str(error).split())[:300]}",
        fix="use the base that it was trained on",
    )


def merged(model: Any) -> Any:
    """The same model with its LoRA added into the body's weights: a forward costs what the bare base's costs.

    A float32 body only, where the scores stay within 1e-5: in bfloat16 a sum would lose what is smaller than 1/256 of a weight,
    and 4-bit weights would be rounded anew. Other models are left as they are.
    """
    if isinstance(model, PeftModel) and {p.dtype for p in model.parameters()} == {torch.float32}:
        model.merge_adapter()
    return model


def check_loaded(model: PeftModel, folder: Path, adapter: str = "default") -> None:
    """Every tensor of the file is in the model, equal to what the file says: a key that fits nothing is silent in PEFT."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    saved = load_file(folder / "adapter_model.safetensors")
    live = get_peft_model_state_dict(model, adapter_name=adapter)
    missing = sorted(saved.keys() ^ live.keys())
    wrong = [n for n in saved.keys() & live.keys() if not torch.equal(saved[n].to(live[n].dtype), live[n].cpu())]
    if missing or wrong:
        raise BadInput(
            f"adapter in {folder.name} doesn't fit the base: {', '.join((missing + wrong)[:3])}",
            fix="use the base that it was trained on, saved for a ...ForSequenceClassification model",
        )


def lost_in(trained: PeftModel, reloaded: PeftModel) -> list[str]:
    """Names of trained parameters that the reloaded model lacks or has otherwise, read off the modules without PEFT's help."""
    there = dict(reloaded.named_parameters())
    return [
        name
        for name, parameter in trained.named_parameters()
        if parameter.requires_grad
        and (name not in there or not torch.equal(parameter.detach().cpu(), there[name].detach().cpu()))
    ]


def widen(trained: PeftModel, base: Base) -> PeftModel:
    """Give a trained model's frozen body the base's float32 weights, on the CPU; LoRA and head stay the objects they are."""
    body = dict(classifier(base, Placement("cpu", "float32", "widened"), seed=0).named_parameters())
    model = trained.cpu().get_base_model()
    for name, parameter in model.named_parameters():
        plain = name.replace(".base_layer.", ".")
        if plain in body and not plain.startswith("score"):
            parameter.data = body[plain].data
    for module in trained.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = True
    return trained
