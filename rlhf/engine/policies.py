"""Policies on a base: a causal model with a LoRA to train, with a version's LoRA, or bare.

The body computes LoRA in its own dtype (`lora_in_body_dtype`), whoever calls it: TRL's trainers, `generate`, the shared reward.
What a base's generation_config asks for (a temperature, a repetition penalty) is dropped at loading: replies are sampled as the
caller says and not otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel, TaskType
from transformers import AutoModelForCausalLM, GenerationConfig

from rlhf.engine import attention, packing
from rlhf.engine.bases import Base
from rlhf.engine.classifiers import can_pack, lora_in_body_dtype
from rlhf.engine.fused import fuse
from rlhf.engine.heap import keep_freed_memory
from rlhf.engine.placement import Placement
from rlhf.engine.quiet import quiet_loading
from rlhf.engine.rewards import LoraShape, check_loaded, leave_inputs, with_lora
from rlhf.errors import BadInput, BadUsage

Quantize = Literal["none", "nf4"]
# bitsandbytes' 4-bit layers repack their weights at the first forward in eval mode on a CPU with AVX512-BF16, and no gradient
# passes through them from then on, without a word: after one sampling every lower layer would be trained on the wrong gradient.
_REPACKS = "support_avx512bf16_for_cpu"
TRAINED = "default"  # PEFT's and TRL's name of the adapter that is trained


class BodyDtype:
    """Mixed into a decoder's class: its float32 LoRA runs in the body's type, and activations are not copied to float32."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with lora_in_body_dtype(self.dtype, self.device.type):  # type: ignore[attr-defined]
            return super().forward(*args, **kwargs)  # type: ignore[misc]


def bare(base: Base, placement: Placement, *, quantize: Quantize = "none") -> Any:
    """The causal base, frozen, on its device. Raises BadInput where its files lack tensors, BadUsage where it can't be
    quantised."""
    attention.register()
    if placement.device == "cpu":
        keep_freed_memory()
    with quiet_loading():
        model, found = AutoModelForCausalLM.from_pretrained(
            base.folder,
            dtype=placement.torch_dtype,
            trust_remote_code=False,
            output_loading_info=True,
            **_quantised(quantize, placement),
        )
    lacking = [*found["missing_keys"], *(str(entry) for entry in found["mismatched_keys"])]
    if lacking:
        raise BadInput(
            f"base {base.name} lacks {len(lacking)} tensors that its architecture wants, first {sorted(lacking)[0]}",
            fix="restore its weights: missing ones would be drawn at random",
        )
    tokenizer = base.tokenizer()
    ends = model.generation_config.eos_token_id
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends if ends is not None else tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
    )
    body = getattr(model, model.base_model_prefix)
    if model.dtype == torch.bfloat16:
        body.__class__ = type(f"InBodyDtype{type(body).__name__}", (BodyDtype, type(body)), {})
    if can_pack(model):
        model.set_attn_implementation(packing.NAME)  # plain sdpa until a packed batch of the reward comes by
    if quantize == "none":
        model.to(placement.device)
    for module in model.modules():
        if hasattr(module, _REPACKS):
            setattr(module, _REPACKS, False)
    return model.requires_grad_(False).eval()


def fresh(base: Base, placement: Placement, shape: LoraShape, *, seed: int, quantize: Quantize = "none") -> PeftModel:
    """A policy to train: a new LoRA that changes nothing yet. Same seed, same weights."""
    model = bare(base, placement, quantize=quantize)
    return fuse(with_lora(model, shape, TaskType.CAUSAL_LM, seed=seed))


def load(
    folder: Path, base: Base, placement: Placement, *, trainable: bool = False, quantize: Quantize = "none"
) -> PeftModel:
    """The policy of a version's folder on a fresh base. Raises BadInput where a tensor did not find its place."""
    model = bare(base, placement, quantize=quantize)
    try:
        loaded = fuse(leave_inputs(PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)))
    except (RuntimeError, ValueError) as error:
        raise BadInput(
            f"adapter in {folder.name} doesn't fit the base: {' '.join(str(error).split())[:300]}",
            fix="use the base that it was trained on",
        ) from None
    check_loaded(loaded, folder)
    return loaded.eval()


@contextmanager
def switched(model: PeftModel, adapter: str | None) -> Iterator[None]:
    """Run the block with another adapter of the model (None = with the bare base), in eval mode and without training it.

    Afterwards the active adapter, every parameter's requires_grad and every module's mode are as they were found; PEFT's own
    `set_adapter` flips the second, and a trainer that finds its LoRA frozen trains nothing and says nothing.
    """
    active = model.active_adapters
    grads = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        if adapter is None:
            with model.disable_adapter():
                yield
        else:
            model.base_model.set_adapter(adapter, inference_mode=True)
            yield
    finally:
        model.base_model.set_adapter(active if len(active) > 1 else active[0])
        for parameter, wanted in grads:
            parameter.requires_grad_(wanted)
        for module, mode in modes:
            module.training = mode


@contextmanager
def lora_kept(model: PeftModel) -> Iterator[None]:
    """The adapter in training keeps its float32 weights whatever the block does to them.

    On a 4-bit base TRL rounds them to bfloat16, in which a step smaller than 1/256 of a weight is lost, a parent's weights too.
    """
    kept = {name: parameter.data.clone() for name, parameter in model.named_parameters() if f".{TRAINED}." in name}
    yield
    for name, parameter in model.named_parameters():
        if name in kept and parameter.dtype != kept[name].dtype:
            parameter.data = kept[name]


def _quantised(quantize: Quantize, placement: Placement) -> dict[str, Any]:
    """Arguments of from_pretrained for a 4-bit base (QLoRA: NF4 with double quantisation, Dettmers et al. 2023)."""
    if quantize == "none":
        return {}
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        raise BadUsage(
            f"quantize={quantize} needs the package bitsandbytes, which is not installed",
            fix="install it into .venv (pip install 'rlhf[qlora]'), or leave quantize out",
        )
    from transformers import BitsAndBytesConfig

    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantize,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=placement.torch_dtype,
    )
    return {"quantization_config": four_bit, "device_map": {"": placement.device}}
