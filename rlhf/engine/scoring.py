"""The one scorer: token ids in, a score a reply out, its end explicit.

Training, evaluation, the policy's reward and the server all come through `scores_of`. A score does not depend on the batch it
is in, its order, or what the pad token is: packed and padded forwards agree to 1e-4 in float32 (`tests/test_engine_packing.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from rlhf.engine.packing import NAME, Group, pack, pad_rows


def scores_of(model: Any, groups: Sequence[Group], below: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
    """Scores (R,) in float32 of all replies of the groups, in order, from one forward. Keeps gradients if they are on.

    below: each group's states (T, hidden) from `engine.trunk`; the layers under the trunk's top are passed over.
    """
    return logits_of(model, groups, below)[:, 0]


def logits_of(model: Any, groups: Sequence[Group], below: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
    """Logits (R, 1) of all replies, or (R, 2) of a model that gives its doubt beside the score. below: see `scores_of`."""
    device = next(model.parameters()).device
    if attention_of(model) == NAME:
        batch = pack(groups, device)
        if below is not None:
            batch.packing.below = torch.cat(list(below))[None]
        logits = model(**batch.arguments()).logits
        assert batch.packing.calls[0], "the model dropped the packing on the way: its replies would see each other"
        return logits
    sequences = [[*group.prefix, *reply] for group in groups for reply in group.replies]
    return model(**pad_rows(sequences, model.config.pad_token_id or 0, device)).logits


def attention_of(model: Any) -> str:
    """Name of the attention that the model runs with; wrappers (DDP, PEFT) are looked through."""
    inner = getattr(model, "module", model)
    return str(getattr(inner.config, "_attn_implementation", ""))


def score(model: Any, groups: Sequence[Group], *, token_budget: int = 4096) -> list[list[float]]:
    """Scores of each group's replies, without gradients, in batches of at most `token_budget` tokens (a longer group goes alone).

    Groups are computed in order of length (little padding where padding is needed) and returned in the order given.
    """
    rows = score_with_doubt(model, groups, token_budget=token_budget)
    return [[value for value, _ in row] for row in rows]


def score_with_doubt(
    model: Any, groups: Sequence[Group], *, token_budget: int = 4096
) -> list[list[tuple[float, float | None]]]:
    """`score`, each with its doubt: the score's standard deviation, None where the model gives none."""
    if attention_of(model) != NAME and any(len(group.replies) > 1 for group in groups):
        # Padded, a prefix costs as much in one group as in many: single replies pad less and keep to the budget.
        alone = [Group(group.prefix, (reply,)) for group in groups for reply in group.replies]
        singles = iter(score_with_doubt(model, alone, token_budget=token_budget))
        return [[next(singles)[0] for _ in group.replies] for group in groups]
    found: dict[int, list[tuple[float, float | None]]] = {}
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in batches([group.n_tokens for group in groups], token_budget):
                flat = iter(logits_of(model, [groups[i] for i in batch]).tolist())
                for i in batch:
                    rows = [next(flat) for _ in groups[i].replies]
                    found[i] = [(row[0], row[1] if len(row) > 1 else None) for row in rows]
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
