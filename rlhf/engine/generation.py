"""Replies sampled from a policy, and what a policy thinks of given replies.

Every reply has its own stream of chance, seeded by what it is a reply to: the same seed gives the same reply whatever else is in
the batch (up to a tie that rounding decides). Sampling is transformers' own `generate`; the chance enters as Gumbel noise on the
log-probabilities, whose maximum is a sample of them (Gumbel 1954; Maddison et al. 2014).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from rlhf.engine.sampling import Sampling
from rlhf.ids import digest_of

Progress = Callable[[int, int], None]
_LOGITS_AT_ONCE = 1024  # positions whose logits over the vocabulary are held at one time


@dataclass(frozen=True, slots=True)
class Sampled:
    """A reply's token ids, its end token included where it came to one. cut_off: it did not within max_new_tokens."""

    ids: tuple[int, ...]
    cut_off: bool


class SeededNoise(LogitsProcessor):
    """Adds each row's own Gumbel noise, so that the likeliest token of the sum is a sample; once a token of each row."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.streams = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """scores: (R, vocabulary) log-probabilities up to a constant."""
        noise = torch.empty(scores.shape, dtype=torch.float32, device=scores.device)
        for row, stream in zip(noise, self.streams, strict=True):
            row.exponential_(generator=stream)
        return scores.float() - noise.log_()


def seed_of(seed: int, *parts: str) -> int:
    """The seed of one reply's stream, from the run's seed and what the reply answers."""
    return int(digest_of([seed, *parts])[:15], 16)


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    sampling: Sampling,
    *,
    rows_at_once: int = 32,
    on_progress: Progress | None = None,
) -> list[Sampled]:
    """One reply to each prompt (token ids that end where the reply begins), in the order given.

    Prompts are taken in order of length, so that little is padded; padding is on the left.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found: dict[int, Sampled] = {}
    for start in range(0, len(order), rows_at_once):
        rows = order[start : start + rows_at_once]
        replies = _generate_batch(model, [prompts[i] for i in rows], [seeds[i] for i in rows], sampling)
        found.update(zip(rows, replies, strict=True))
        if on_progress:
            on_progress(len(found), len(prompts))
    return [found[i] for i in range(len(prompts))]


def _generate_batch(
    model: Any, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
) -> list[Sampled]:
    device = next(model.parameters()).device
    config = model.generation_config
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), config.pad_token_id)
    mask = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, width - len(prompt) :] = 1
    steps = LogitsProcessorList()
    if sampling.temperature > 0:
        if sampling.temperature != 1.0:
            steps.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_p < 1.0:
            steps.append(TopPLogitsWarper(sampling.top_p))
        steps.append(SeededNoise(seeds, device))
    how = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=False,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
    )
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=how, logits_processor=steps
        )
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    return [up_to_end(row[width:].tolist(), ends) for row in out]


def up_to_end(ids: Sequence[int], ends: Sequence[int]) -> Sampled:
    """A row of generated ids up to its first end token; pads behind it go, also where pad and end are one token."""
    stop = next((i for i, token in enumerate(ids) if token in ends), None)
    return Sampled(tuple(ids if stop is None else ids[: stop + 1]), stop is None)


def log_probabilities(
    model: Any, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], *, token_budget: int = 4096
) -> list[float]:
    """Sum of the log-probabilities (nats, temperature 1, float32) of each reply's tokens after its prompt, in the order given."""
    order = sorted(range(len(prompts)), key=lambda i: (len(replies[i]), len(prompts[i])))
    sums = [0.0] * len(prompts)
    batch: list[int] = []
    with torch.inference_mode():
        for i in order:
            rows = [*batch, i]
            width = max(len(prompts[j]) for j in rows) + len(replies[i])
            if batch and (len(rows) * width > token_budget or len(rows) * len(replies[i]) > _LOGITS_AT_ONCE):
                _sums_of(model, prompts, replies, batch, sums)
                rows = [i]
            batch = rows
        if batch:
            _sums_of(model, prompts, replies, batch, sums)
    return sums


def _sums_of(
    model: Any,
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    batch: Sequence[int],
    sums: list[float],
) -> None:
    """One forward: prompts padded on the left, replies on the right, so that the logits of all replies are the last ones."""
    device = next(model.parameters()).device
    before = max(len(prompts[i]) for i in batch)
    after = max(len(replies[i]) for i in batch)
    ids = torch.zeros(len(batch), before + after, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, i in enumerate(batch):
        start, stop = before - len(prompts[i]), before + len(replies[i])
        ids[row, start:stop] = torch.tensor([*prompts[i], *replies[i]])
        mask[row, start:stop] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        position_ids=positions.to(device),
        logits_to_keep=after + 1,
        use_cache=False,
    ).logits[:, :-1]  # (R, after, vocabulary): the logits of a token stand at the one before it
    logp = logits.float().log_softmax(-1).gather(2, ids[:, before:, None].to(device)).squeeze(2)
    for row, value in enumerate((logp * mask[:, before:].to(device)).sum(1).tolist()):
        sums[batch[row]] = value
