"""A base's architecture in numbers, from its config.json alone: counted on transformers' own model without weights (on the meta
device), so that no table of models has to be kept.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from rlhf.errors import BadInput


@dataclass(frozen=True, slots=True)
class Shape:
    """An architecture in numbers. linears: (layer, inputs, outputs) of each linear map in the decoder; attention: heads times
    their size; keys: key-value heads times their size; other: parameters outside the decoder's linear maps."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    attention: int
    keys: int
    vocabulary: int
    linears: tuple[tuple[int, int, int], ...]
    other: int
    head: int

    @property
    def linear(self) -> int:
        return sum(n_in * n_out for _, n_in, n_out in self.linears)

    @property
    def parameters(self) -> int:
        return self.linear + self.other

    def lora(self, r: int, top_layers: int) -> int:
        """Parameters of a LoRA on all linear maps of the top layers (0 = all)."""
        lowest = self.layers - top_layers if 0 < top_layers < self.layers else 0
        return sum(r * (n_in + n_out) for layer, n_in, n_out in self.linears if layer >= lowest)


def shape_of(config_file: Path) -> Shape:
    """The architecture that a config.json describes. Raises BadInput where transformers doesn't know it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    try:
        values = json.loads(config_file.read_text("utf-8"))
        config = AutoConfig.for_model(**values)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(
            f"{config_file} describes no causal model that transformers knows: {' '.join(str(error).split())[:200]}",
            fix="give a transformers config.json with its model_type",
        ) from None
    body = getattr(model, model.base_model_prefix)
    linears = []
    for name, module in body.named_modules():
        at = re.search(r"\.(\d+)\.", name)
        if at and type(module) in (torch.nn.Linear, Conv1D):
            outputs, inputs = module.weight.shape[:: -1 if isinstance(module, Conv1D) else 1]
            linears.append((int(at.group(1)), inputs, outputs))
    heads, hidden = config.num_attention_heads, config.hidden_size
    size = getattr(config, "head_dim", None) or hidden // heads
    head = model.get_output_embeddings().weight
    tied = head is model.get_input_embeddings().weight
    total = sum(parameter.numel() for parameter in model.parameters())
    return Shape(
        layers=config.num_hidden_layers,
        hidden=hidden,
        intermediate=getattr(config, "intermediate_size", None) or 4 * hidden,
        heads=heads,
        attention=heads * size,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * size,
        vocabulary=config.vocab_size,
        linears=tuple(linears),
        other=total - sum(n_in * n_out for _, n_in, n_out in linears),
        head=0 if tied else head.numel(),
    )
