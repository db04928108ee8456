"""Packed attention: which kernel computes it. `packed_attention` is the one seam, in transformers' attention interface.

A CPU takes it tile by tile: a few rows against the keys that they see, future blocks left out, the softmax computed again on the
way back from queries and keys, which are all that is kept. torch's own kernel, once a reply (`by_span`), is the faster forward
in bfloat16 alone. With the tiles a training step of SmolLM2-135M in bfloat16 takes 0.97 of the time on HH (long prompts, short
replies) and 0.90 on 150-token replies; in float32 it takes the same, and a forward alone 0.75 of the attention's time.
CUDA takes one flex attention call. All see what `Packing` says: a reply its prefix and itself.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rlhf.engine.packing import NAME, Packing, Tile


def register() -> None:
    """Make `packed` known to transformers: the attention and its mask function together."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packing: Packing | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query: (B, H, T, D); key, value: (B, H_kv, T, D) -> ((B, T, H, D), None). Without a packing it is sdpa, mask included."""
    if packing is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    packing.calls[0] += 1
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.is_cuda:
        return _flex(query, key, value, packing, scale), None
    if dropout:
        return by_span(query, key, value, packing, scale, dropout), None
    out: Tensor = _Tiled.apply(query, key, value, packing, scale)
    return out, None


class _Tiled(torch.autograd.Function):
    """One row (B = 1) tile by tile. K key heads, G query heads to each, T tokens, D wide; sums are float32."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.packing, ctx.scale = packing, scale
        if query.dtype == torch.bfloat16:
            return by_span(query, key, value, packing, scale)
        q_KGTD, k_KTD, v_KTD = _by_key_head(query, key, value)
        n_key_heads, n_each, n_tokens, _ = q_KGTD.shape
        out_TKGD = value.new_empty(n_tokens, n_key_heads, n_each, value.shape[-1])
        scratch = _Scratch(packing, q_KGTD, k_KTD.dtype, k_KTD.dtype)
        for tile in packing.tiles:
            _, _, weights = _weights(q_KGTD, k_KTD, tile, scale, scratch)
            out = torch.bmm(weights, tile.seen(v_KTD))
            out_TKGD[tile.start : tile.stop] = out.unflatten(1, (n_each, -1)).permute(2, 0, 1, 3)
        return out_TKGD.flatten(1, 2)[None]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        dtype, exact = query.dtype, _exact(query.dtype)
        q_KGTD, k_KTD, v_KTD = _by_key_head(query, key, value)
        n_key_heads, n_each, _, _ = q_KGTD.shape
        grad_TKGD = grad[0].unflatten(1, (n_key_heads, n_each))
        grad_q, grad_k, grad_v = torch.empty_like(q_KGTD), torch.zeros_like(k_KTD), torch.zeros_like(v_KTD)
        scratch = _Scratch(ctx.packing, q_KGTD, exact, exact, exact, dtype)
        for tile in ctx.packing.tiles:
            rows = slice(tile.start, tile.stop)
            q, k, weights = _weights(q_KGTD, k_KTD, tile, ctx.scale, scratch)
            out = grad_TKGD[rows].permute(1, 2, 0, 3).flatten(1, 2)
            grad_weights = torch.bmm(out.to(exact), tile.seen(v_KTD).transpose(1, 2), out=scratch.like(0, weights))
            grad_logits = scratch.like(2, weights)
            torch._softmax_backward_data(grad_weights, weights, -1, exact, grad_input=grad_logits)
            if dtype != exact:
                weights = scratch.like(3, weights).copy_(weights)
            tile.add_to(grad_v, torch.bmm(weights.transpose(1, 2), out))
            if dtype != exact:
                grad_logits = scratch.like(3, weights).copy_(grad_logits)
            of_q = torch.bmm(grad_logits, k.to(dtype)).mul_(ctx.scale)
            grad_q[:, :, rows] = of_q.unflatten(1, (n_each, -1))
            tile.add_to(grad_k, torch.bmm(grad_logits.transpose(1, 2), q.to(dtype)))
        return grad_q.flatten(0, 1)[None], grad_k.to(dtype)[None], grad_v.to(dtype)[None], None, None


class _Scratch:
    """Memory that every tile of a row writes its weights into anew: it stays in a core's cache, where fresh memory is cold."""

    def __init__(self, packing: Packing, q_KGTD: Tensor, *dtypes: torch.dtype) -> None:
        n_key_heads, n_each, _, _ = q_KGTD.shape
        most = max((tile.stop - tile.start) * tile.n_keys for tile in packing.tiles)
        self.flat = [q_KGTD.new_empty(n_key_heads * n_each * most, dtype=dtype) for dtype in dtypes]

    def shaped(self, i: int, *shape: int) -> Tensor:
        return self.flat[i][: math.prod(shape)].view(shape)

    def like(self, i: int, other: Tensor) -> Tensor:
        return self.shaped(i, *other.shape)


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def _by_key_head(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """query as (K, G, T, D); key and value as (K, T, D) in the type of the sums."""
    exact = _exact(query.dtype)
    return query[0].unflatten(0, (key.shape[1], -1)), key[0].to(exact), value[0].to(exact)


def _weights(
    q_KGTD: Tensor, k_KTD: Tensor, tile: Tile, scale: float, scratch: _Scratch
) -> tuple[Tensor, Tensor, Tensor]:
    """The tile's scaled queries (K, G * rows, D), its keys (K, keys, D) and the softmax (K, G * rows, keys)."""
    n_rows = tile.stop - tile.start
    q = (q_KGTD[:, :, tile.start : tile.stop].to(k_KTD.dtype) * scale).flatten(1, 2)
    k = tile.seen(k_KTD)
    logits = torch.bmm(q, k.transpose(1, 2), out=scratch.shaped(0, q.shape[0], q.shape[1], k.shape[1]))
    future = torch.full((n_rows, n_rows), -torch.inf, dtype=logits.dtype).triu(1)
    logits.unflatten(1, (-1, n_rows))[..., -n_rows:].add_(future)  # the last keys are the rows themselves
    return q, k, torch.softmax(logits, -1, out=scratch.like(1, logits))


def by_span(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float, dropout: float = 0.0) -> Tensor:
    """One call of torch's attention a reply; the slow twin of the others."""
    grouped = query.shape[1] != key.shape[1]
    # One split a tensor: its backward is one concatenation, where that of a slice fills a whole row with zeros.
    parts = zip(*(tensor.split(packing.part_lengths, dim=2) for tensor in (query, key, value)), strict=True)
    out = []
    for spans in packing.groups:
        for span in spans:
            q, k, v = next(parts)
            if span is spans[0]:  # the prefix and the first reply are one plain causal sequence
                prefix_k, prefix_v = (x[:, :, : span.prefix_stop - span.prefix_start] for x in (k, v))
                mask = None
            else:
                k, v = torch.cat((prefix_k, k), dim=2), torch.cat((prefix_v, v), dim=2)
                mask = packing.lower_right(q.shape[2], k.shape[2])
            out.append(
                scaled_dot_product_attention(
                    q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, dropout_p=dropout, enable_gqa=grouped
                )
            )
    return torch.cat(out, dim=2).transpose(1, 2).contiguous()


def _flex(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float) -> Tensor:
    """One flex attention call over the whole row; compiled on CUDA, where alone it is fast."""
    from transformers.integrations.flex_attention import compile_friendly_flex_attention

    out = compile_friendly_flex_attention(
        query,
        key,
        value,
        block_mask=packing.block_mask,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
        training=torch.is_grad_enabled(),
    )
    return (out[0] if isinstance(out, tuple) else out).transpose(1, 2).contiguous()
