"""The one scorer: token ids in, a score a reply out, its end explicit.

Training, evaluation, the policy's reward and the server all come through `scores_of`. A score does not depend on the batch it
is in, its order, or what the pad token is: packed and padded forwards agree to 1e-4 in float32 (`tests/test_engine_packing.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from rlhf.engine.packing import NAME, Group, pack, pad_rows


def scores_of(model: Any, groups: Sequence[Group]) -> torch.Tensor:
    """Scores (R,) in float32 of all replies of the groups, in order, from one forward. Keeps gradients if they are on."""
    device = next(model.parameters()).device
    if attention_of(model) == NAME:
        batch = pack(groups, device)
        scores = model(**batch.arguments()).logits.squeeze(-1)
        assert batch.packing.calls[0], "the model dropped the packing on the way: its replies would see each other"
        return scores
    sequences = [[*group.prefix, *reply] for group in groups for reply in group.replies]
    return model(**pad_rows(sequences, model.config.pad_token_id or 0, device)).logits.squeeze(-1)


def attention_of(model: Any) -> str:
    """Name of the attention that the model runs with; wrappers (DDP, PEFT) are looked through."""
    inner = getattr(model, "module", model)
    return str(getattr(inner.config, "_attn_implementation", ""))


def score(model: Any, groups: Sequence[Group], *, token_budget: int = 4096) -> list[list[float]]:
    """Scores of each group's replies, without gradients, in batches of at most `token_budget` tokens (a longer group goes alone).

    Groups are computed in order of length (little padding where padding is needed) and returned in the order given.
    """
    found: dict[int, list[float]] = {}
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in batches([group.n_tokens for group in groups], token_budget):
                flat = iter(scores_of(model, [groups[i] for i in batch]).tolist())
                for i in batch:
                    found[i] = [next(flat) for _ in groups[i].replies]
    finally:
        model.train(was_training)
    return [found[i] for i in range(len(groups))]


def batches(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Indices grouped so that each group's lengths sum to at most the budget, in order of length."""
    batch: list[int] = []
    total = 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and total + lengths[i] > token_budget:
            yield batch
            batch, total = [], 0
        batch.append(i)
        total += lengths[i]
    if batch:
        yield batch
