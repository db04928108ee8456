"""A causal base as a classification model with one label, whose forward takes explicit ends.

What a base can't do is found out when it is loaded, not after a training: tensors that its files lack, an architecture without
a score head, an attention that does not read the packing (then batches are padded).
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from rlhf.engine import attention, packing
from rlhf.engine.bases import Base
from rlhf.engine.heap import keep_freed_memory
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
            with lora_in_body_dtype(self.dtype, self.device.type):  # type: ignore[attr-defined]
                return super().forward(  # type: ignore[misc]
                    input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, **kwargs
                )
        kwargs.pop("labels", None)
        body = getattr(self, self.base_model_prefix)  # type: ignore[attr-defined]
        return scores_at_ends(
            body,
            self.score,  # type: ignore[attr-defined]
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            ends=ends,
            packing=packing,
            **kwargs,
        )


def scores_at_ends(
    body: Any, head: torch.nn.Module, *, ends: torch.Tensor, packing: packing.Packing | None = None, **inputs: Any
) -> SequenceClassifierOutputWithPast:
    """A decoder's states at the ends through a float32 head. ends: see `ScoresAtEnds.forward`. Gives logits (R, 1)."""
    if packing is not None:
        inputs["packing"] = packing
    with lora_in_body_dtype(body.dtype, ends.device.type):
        hidden = body(**inputs, use_cache=False).last_hidden_state
    rows = torch.zeros_like(ends) if packing is not None else torch.arange(len(ends), device=ends.device)
    states = hidden[rows, ends].float()  # (R, hidden)
    with torch.autocast(states.device.type, enabled=False):
        return SequenceClassifierOutputWithPast(logits=head(states))


def lora_in_body_dtype(dtype: torch.dtype, device_type: str) -> Any:
    """Autocast for a bfloat16 body: the float32 LoRA weights are cast (they are small), not the activations (they are not)."""
    return torch.autocast(device_type, dtype=dtype, enabled=dtype == torch.bfloat16)


def classifier(base: Base, placement: Placement, *, seed: int) -> Any:
    """The base with a fresh float32 score head, frozen, on its device, with packed attention where it can.

    Raises BadInput where the base lacks tensors or has no score head that we know.
    """
    attention.register()
    if placement.device == "cpu":
        keep_freed_memory()
    with torch.random.fork_rng(devices=[]), quiet_loading():
        torch.manual_seed(seed)
        model = _loaded(base, placement)
        head = model.score
        torch.nn.init.normal_(head.weight.data, std=1.0 / (head.weight.shape[1] + 1))
    model.score.float()
    model.__class__ = type(f"Scoring{type(model).__name__}", (ScoresAtEnds, type(model)), {})
    model.config.pad_token_id = base.tokenizer().pad_token_id
    model.to(placement.device).requires_grad_(False)
    if can_pack(model) and not packs_rightly(model):
        model.set_attn_implementation("sdpa")
    return model


def _loaded(base: Base, placement: Placement) -> Any:
    """The stock classification model, with sdpa attention where it has one; every tensor but the head from the base's files."""
    config = AutoConfig.from_pretrained(base.folder, num_labels=1, trust_remote_code=False)
    found: dict[str, Any] = {}
    for kernel in ("sdpa", "eager"):
        try:
            model, found = AutoModelForSequenceClassification.from_pretrained(
                base.folder,
                config=config,
                dtype=placement.torch_dtype,
                trust_remote_code=False,
                attn_implementation=kernel,
                output_loading_info=True,
            )
            break
        except ValueError as error:
            if kernel == "eager":
                raise BadInput(
                    f"base {base.name} ({base.details.get('architecture', '?')}) can't be a reward model: {error}",
                    fix="use a decoder that transformers has a ...ForSequenceClassification for",
                ) from None
    if not isinstance(getattr(model, "score", None), torch.nn.Linear):
        raise BadInput(
            f"base {base.name} ({type(model).__name__}) has no linear head named score",
            fix="use a decoder whose classification model ends in `score`, as Llama's, Qwen's or Gemma's do",
        )
    lacking = [name for name in found["missing_keys"] if not name.startswith("score.")]
    lacking += [str(entry[0] if isinstance(entry, tuple) else entry) for entry in found["mismatched_keys"]]
    if lacking:
        raise BadInput(
            f"base {base.name} lacks {len(lacking)} tensors that its architecture wants, first {sorted(lacking)[0]}",
            fix="restore its weights: missing ones would be drawn at random",
        )
    return model


def can_pack(model: Any) -> bool:
    """Whether the model says that its attention goes through transformers' interface, with full attention in every layer."""
    config = model.config
    layers = getattr(config, "layer_types", None) or []
    sliding = any(kind != "full_attention" for kind in layers) if layers else getattr(config, "sliding_window", None)
    softcap = getattr(config, "attn_logit_softcapping", None)
    return bool(getattr(model, "_supports_attention_backend", False)) and not sliding and not softcap


def packs_rightly(model: Any) -> bool:
    """Switch to packed attention and try it: some models say that they support it and drop the packing on the way."""
    ids = [(7 * i + 3) % model.config.vocab_size for i in range(14)]
    group = packing.Group(ids[:4], (ids[4:9], ids[9:14]))
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        alone = torch.cat(
            [model(**packing.pad_rows([[*group.prefix, *reply]], 0, device)).logits[0, :1] for reply in group.replies]
        )
        model.set_attn_implementation(packing.NAME)
        batch = packing.pack([group], device)
        together = model(**batch.arguments()).logits[:, 0]  # of a head: its score without its doubt
    tolerance = 0.05 * alone.abs().max() + 1e-3  # bfloat16's rounding is far below, another reply's words far above
    return batch.packing.calls[0] > 0 and bool(((alone - together).abs() <= tolerance).all())
