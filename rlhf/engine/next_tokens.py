"""One token of every row through a Llama-like model, without the model's own forward: the same sums in a third of the calls.

A step of eight rows is short, and much of transformers' time in it goes into what surrounds the sums: masks made anew, keys and
values repeated for every head, a copy for each half of a rotation. What fits is known by the model's class, and tried: a model
whose own forward says something else keeps its own forward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, rms_norm, scaled_dot_product_attention, silu

from rlhf.engine import reordered
from rlhf.engine.kept_keys import RowKeys
from rlhf.engine.slots import Nothing, Pool

_ALIKE = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")


def fits(model: Any) -> bool:
    """Whether the model's class computes what `NextTokens` does."""
    config = model.config
    windows = {kind for kind in getattr(config, "layer_types", None) or [] if kind != "full_attention"}
    return (
        type(model).__name__ in _ALIKE
        and config.hidden_act == "silu"
        and not windows
        and all(hasattr(pool, "a") for layer in model.model.layers for pool in [layer.mlp.up_proj.pool])
    )


class NextTokens:
    """R rows, H heads of keys, G queries to each, D wide. keys: the block that the rows lie in."""

    def __init__(self, model: Any, keys: RowKeys) -> None:
        self.model, self.keys = model, keys
        self.body = model.model
        self.layers = [_Layer(layer) for layer in self.body.layers]
        self.head_size = keys.like.shape[3]
        self.eps = self.body.norm.variance_epsilon

    def __call__(self, tokens: Tensor, positions: Tensor, seen: Tensor, choice: Nothing) -> Tensor:
        """Logits (R, vocabulary) after tokens (R,) at positions (R,). seen: (R, length), what each row sees of the block."""
        h = embedding(tokens, self.body.embed_tokens.weight)
        cos, sin = self.body.rotary_emb(h[None], positions[None])  # (1, R, D), both halves alike
        half = self.head_size // 2
        turn = cos[0, :, None], sin[0, :, None, :half]
        rows = torch.arange(len(tokens), device=tokens.device)
        seen = seen[:, None, None]
        for i, layer in enumerate(self.layers):
            q, k, v = _onto(choice, rms_norm(h, h.shape[1:], layer.before, self.eps), layer.qkv)
            q, k = (_turned(x.view(len(rows), -1, self.head_size), *turn) for x in (q, k))
            block_k, block_v = self.keys.k[i], self.keys.v[i]
            block_k[rows, :, positions], block_v[rows, :, positions] = k, v.view_as(k)
            n, length = seen.shape[0], seen.shape[3]
            found = scaled_dot_product_attention(
                q.view(n, k.shape[1], -1, self.head_size),  # the queries of a key head stand where a sequence would
                block_k[:n, :, :length],
                block_v[:n, :, :length],
                attn_mask=seen,
                scale=layer.scale,
            )
            (out,) = _onto(choice, found.reshape(n, -1), layer.out)
            h = h + out
            gate, up = _onto(choice, rms_norm(h, h.shape[1:], layer.between, self.eps), layer.gate_up)
            (down,) = _onto(choice, silu(gate).mul_(up), layer.down)
            h = h + down
        logits: Tensor = self.model.lm_head(rms_norm(h, h.shape[1:], self.body.norm.weight, self.eps))
        return logits


class _Layer:
    """A decoder layer's weights, by what reads one input."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.qkv = _Maps(attention.q_proj, attention.k_proj, attention.v_proj)
        self.out = _Maps(attention.o_proj)
        self.gate_up = _Maps(mlp.gate_proj, mlp.up_proj)
        self.down = _Maps(mlp.down_proj)
        self.before, self.between = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        self.scale = attention.scaling


class _Maps:
    """Linear layers that read one input."""

    def __init__(self, *modules: Any) -> None:
        self.pools: list[Pool] = [module.pool for module in modules]
        self.biases = [module.bias for module in modules]
        self.ordered = [getattr(module, "ordered", None) for module in modules]
        self.weights = [module.weight for module in modules]

    def __call__(self, x: Tensor) -> list[Tensor]:
        return [
            torch.nn.functional.linear(x, weight, bias) if ordered is None else reordered.linear(x, ordered, bias)
            for weight, ordered, bias in zip(self.weights, self.ordered, self.biases, strict=True)
        ]


def _onto(choice: Nothing, x: Tensor, maps: _Maps) -> list[Tensor]:
    ys = maps(x)
    if type(choice) is not Nothing:
        choice.onto(maps.pools, x, ys)
    return ys


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: x (R, heads, D) with each pair (i, i + D/2) turned. cos: (R, 1, D); sin: (R, 1, D/2)."""
    half = x.shape[2] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin, value=-1)
    out[..., half:].addcmul_(x[..., :half], sin)
    return out
