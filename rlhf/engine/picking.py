"""The next token of each row from its logits, by its own temperature, top-p and chance.

The same numbers as `generation.generate`: log-probabilities divided by the temperature, cut to the likeliest tokens that make
up top_p, and the row's own Gumbel noise (`generation.SeededNoise`), whose maximum is the sample. Up to a tie that rounding decides
a seed gives the same reply here and there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LIKELIEST = 512  # enough for most top_p; a flatter distribution is sorted whole


@dataclass(slots=True, eq=False)
class Chance:
    """How one row is drawn, and the stream that it draws from."""

    temperature: float
    top_p: float
    stream: torch.Generator | None

    @classmethod
    def of(cls, temperature: float, top_p: float, seed: int, device: torch.device) -> Chance:
        return cls(temperature, top_p, torch.Generator(device).manual_seed(seed) if temperature > 0 else None)


def pick(logits: Tensor, chances: Sequence[Chance]) -> list[int]:
    """The next token of each row. logits: (R, vocabulary), float32, left as they are."""
    drawn = [i for i, chance in enumerate(chances) if chance.stream is not None]
    if not drawn:
        return list(logits.argmax(-1).tolist())
    scores = logits.clone()
    noise = torch.empty_like(scores[0])
    for i in drawn:
        chance, row = chances[i], scores[i]
        if chance.temperature != 1.0:
            row.div_(chance.temperature)
        if chance.top_p < 1.0:
            _cut(row, chance.top_p)
        noise.exponential_(generator=chance.stream)
        row.sub_(noise.log_())
    return list(scores.argmax(-1).tolist())


def _cut(row: Tensor, top_p: float) -> None:
    """Leave the likeliest tokens before which less than top_p has come; the others get -inf."""
    share = row.softmax(-1)
    for n in (_LIKELIEST, len(row)):
        n = min(n, len(row))
        mass, order = share.topk(n) if n < len(row) else share.sort(descending=True)
        before = mass.cumsum(-1) - mass
        if n == len(row) or before[-1] >= top_p:
            break
    kept = order[before < top_p]
    values = row[kept]
    row.fill_(-torch.inf)
    row[kept] = values


def likeliest(logits: Tensor, token: int, n: int) -> tuple[float, list[tuple[int, float]]]:
    """Log-probability (nats, temperature 1) of a token and of the n likeliest. logits: (vocabulary,), float32."""
    logp = logits.log_softmax(-1)
    values, ids = logp.topk(n) if n else (logp[:0], logp[:0])
    return float(logp[token]), [(int(i), float(v)) for i, v in zip(ids.tolist(), values.tolist(), strict=True)]
