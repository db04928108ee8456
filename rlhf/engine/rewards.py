"""Reward models: a causal base, a LoRA and a score head, as one classification model whose forward takes explicit ends.

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
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from rlhf.engine import packing
from rlhf.engine.bases import Base
from rlhf.engine.placement import Placement
from rlhf.engine.quiet import quiet_loading
from rlhf.errors import BadInput


class ScoresAtEnds:
    """Mixed into a `...ForSequenceClassification` class: with `ends`, logits are the scores there, in float32.

    It is the model's own forward, so DDP's and FSDP's hooks fire and a PEFT model passes through it. Without `ends` the
    stock forward answers, pad search and all.
    """

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        ends: torch.Tensor | None = None,
        packing: packing.Packing | None = None,
        **kwargs: Any,
    ) -> Any:
        """ends: (R,) positions in a packed row (1, T), or one a row in a padded batch (R, T). Gives logits (R, 1)."""
        if ends is None:
            return super().forward(  # type: ignore[misc]
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, **kwargs
            )
        if packing is not None:
            kwargs["packing"] = packing
        kwargs.pop("labels", None)
        kwargs["use_cache"] = False
        body = getattr(self, self.base_model_prefix)  # type: ignore[attr-defined]
        with lora_in_body_dtype(self.dtype, ends.device.type):  # type: ignore[attr-defined]
            hidden = body(
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, **kwargs
            ).last_hidden_state
        rows = torch.zeros_like(ends) if packing is not None else torch.arange(len(ends), device=ends.device)
        states = hidden[rows, ends].float()  # (R, hidden)
        with torch.autocast(states.device.type, enabled=False):
            return SequenceClassifierOutputWithPast(logits=self.score(states))  # type: ignore[attr-defined]


def lora_in_body_dtype(dtype: torch.dtype, device_type: str) -> Any:
    """Autocast for a bfloat16 body: the float32 LoRA weights are cast (they are small), not the activations (they are not)."""
    return torch.autocast(device_type, dtype=dtype, enabled=dtype == torch.bfloat16)


def _leave_inputs(model: PeftModel) -> PeftModel:
    """PEFT casts every LoRA's input to float32; under `lora_in_body_dtype` that is a copy of all activations for nothing."""
    if model.get_base_model().dtype == torch.bfloat16:
        for module in model.modules():
            if isinstance(module, BaseTunerLayer):
                module.cast_input_dtype_enabled = False
    return model


@dataclass(frozen=True)
class LoraShape:
    """Where the LoRA sits. top_layers: how many layers from the top carry it; 0 = all."""

    r: int
    alpha: int
    dropout: float
    top_layers: int
    target_modules: str | Sequence[str] = "all-linear"


def classifier(base: Base, placement: Placement, *, seed: int) -> Any:
    """The base with a fresh float32 score head (one label), frozen, on its device, with packed attention where it can."""
    packing.register()
    config = AutoConfig.from_pretrained(base.folder, num_labels=1, trust_remote_code=False)
    with torch.random.fork_rng(devices=[]), quiet_loading():
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(
            base.folder, config=config, dtype=placement.torch_dtype, trust_remote_code=False, attn_implementation="sdpa"
        )
        head = model.score
        torch.nn.init.normal_(head.weight.data, std=1.0 / (head.weight.shape[1] + 1))
    model.score.float()
    model.__class__ = type(f"Scoring{type(model).__name__}", (ScoresAtEnds, type(model)), {})
    model.config.pad_token_id = base.tokenizer().pad_token_id
    model.to(placement.device)
    if can_pack(model):
        model.set_attn_implementation(packing.NAME)
    return model.requires_grad_(False)


def can_pack(model: Any) -> bool:
    """Whether the model's attention goes through transformers' interface, with full attention in every layer."""
    config = model.config
    layers = getattr(config, "layer_types", None) or []
    sliding = any(kind != "full_attention" for kind in layers) if layers else getattr(config, "sliding_window", None)
    softcap = getattr(config, "attn_logit_softcapping", None)
    return bool(getattr(model, "_supports_attention_backend", False)) and not sliding and not softcap


def fresh(base: Base, placement: Placement, shape: LoraShape, *, seed: int) -> PeftModel:
    """A reward model to train: LoRA and head trainable, everything else frozen. Same seed, same weights."""
    model = classifier(base, placement, seed=seed)
    n_layers = model.config.num_hidden_layers
    targets = linear_names(model) if shape.target_modules == "all-linear" else list(shape.target_modules)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=shape.r,
        lora_alpha=shape.alpha,
        lora_dropout=shape.dropout,
        target_modules=targets,
        layers_to_transform=list(range(n_layers - shape.top_layers, n_layers))
        if 0 < shape.top_layers < n_layers
        else None,
        modules_to_save=["score"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _leave_inputs(get_peft_model(model, config))


def linear_names(model: Any) -> list[str]:
    """Last names of the linear layers inside the decoder; `all-linear` itself would take the score head for one (and freeze it)."""
    body = getattr(model, model.base_model_prefix)
    return sorted(
        {name.rsplit(".", 1)[-1] for name, module in body.named_modules() if isinstance(module, torch.nn.Linear)}
    )


def load(folder: Path, base: Base, placement: Placement, *, trainable: bool = False) -> PeftModel:
    """The reward model of a version's folder on a fresh base. Raises BadInput where a tensor did not find its place."""
    model = classifier(base, placement, seed=0)
    try:
        loaded = _leave_inputs(PeftModel.from_pretrained(model, str(folder), is_trainable=trainable))
    except (RuntimeError, ValueError) as error:  # shapes of another base, or layers that it doesn't have
        raise BadInput(
            f"adapter in {folder.name} doesn't fit the base: {' '.join(str(error).split())[:300]}",
            fix="use the base that it was trained on",
        ) from None
    _check_loaded(loaded, folder)
    loaded.eval()
    return loaded


def _check_loaded(model: PeftModel, folder: Path) -> None:
    """Every tensor of the file is in the model, equal to what the file says: a key that fits nothing is silent in PEFT."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    saved = load_file(folder / "adapter_model.safetensors")
    live = get_peft_model_state_dict(model)
    missing = sorted(saved.keys() ^ live.keys())
    wrong = [
        name for name in saved.keys() & live.keys() if not torch.equal(saved[name].to(live[name]), live[name].cpu())
    ]
    if missing or wrong:
        raise BadInput(
            f"adapter in {folder.name} doesn't fit the base: {', '.join((missing + wrong)[:3])}",
            fix="use the base that it was trained on, saved for a ...ForSequenceClassification model",
        )
