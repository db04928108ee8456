"""How replies are drawn: the record alone, so that a command can read its words before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sampling:
    """How replies are drawn. temperature 0 = always the likeliest token. max_new_tokens: a longer reply is cut off."""

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
