"""Does a verdict hold when nothing that matters changes? Pairs again with their sides swapped, and with small changes of the chat.

The changes are such as a template, a client or a copy makes: a system message there or not, a newline more. What a template strips
changes nothing, which is an answer too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rlhf.evaluation.estimates import mean, rounded
from rlhf.evaluation.scored import PairScore
from rlhf.ids import digest_of, unit_interval
from rlhf.records import Message, Pair

N_CHECKED = 100  # pairs, drawn by hash; each is scored once for each variant and once swapped
SYSTEM = "You are a helpful assistant."
VARIANTS: Mapping[str, str] = {
    "system": f"the system message left out; where there is none, '{SYSTEM}' put before",
    "prompt_newline": "a newline after the last turn of the prompt",
    "reply_newline": "a newline after both replies",
    "prompt_space": "a space before the last turn of the prompt",
}
Rescore = Callable[[Sequence[Pair]], Sequence[PairScore]]


def drawn(pairs: Sequence[Pair], n: int, seed: int) -> list[Pair]:
    """n of the pairs, those lowest by hash."""
    return sorted(pairs, key=lambda pair: unit_interval(seed, f"stability {pair.id}"))[:n]


def changed(pair: Pair, variant: str) -> tuple[Pair, bool]:
    """The pair under a variant; and whether its `a` is the old `a` (a reply with a newline has another digest)."""
    prompt, a, b = pair.prompt, pair.reply_a, pair.reply_b
    if variant == "system":
        has_one = bool(prompt) and prompt[0].role == "system"
        prompt = prompt[1:] if has_one else (Message("system", SYSTEM), *prompt)
    elif variant == "reply_newline":
        a, b = f"{a}\n", f"{b}\n"
    elif prompt:
        last = prompt[-1].content
        text = f"{last}\n" if variant == "prompt_newline" else f" {last}"
        prompt = (*prompt[:-1], Message(prompt[-1].role, text))
    made = Pair.of(prompt, a, b)
    return made, made.reply_a == a


def swapped(pair: Pair) -> Pair:
    """The same two replies with their sides changed, which no stored pair is."""
    return replace(pair, id=digest_of(["swapped", pair.id]), reply_a=pair.reply_b, reply_b=pair.reply_a)


def measured(pairs: Sequence[Pair], scores: Sequence[PairScore], rescore: Rescore, seed: int) -> dict[str, Any] | None:
    """Of each variant: the share of flipped preferences and the mean absolute change of the score difference, with intervals
    clustered by opening turn; of the swapped pairs: the largest change, in nats. scores: of the pairs as they are. None where
    none of them has scores."""
    margins = [_margin(score) for score in scores]
    base = [(pair, margin) for pair, margin in zip(pairs, margins, strict=True) if margin is not None]
    if not base:
        return None
    turned = [(swapped(pair), False) for pair, _ in base]
    found = {
        name: _compared(base, [changed(pair, name) for pair, _ in base], rescore, seed) | {"what": what}
        for name, what in VARIANTS.items()
    }
    position = _compared(base, turned, rescore, seed)
    most = max((m["flipped"]["value"] for m in found.values() if m["flipped"]["value"] is not None), default=None)
    result: dict[str, Any] = rounded(
        {"n": len(base), "variants": found, "most_flipped": most, "position": position, "seed": seed}
    )
    return result


def _compared(
    base: Sequence[tuple[Pair, float]], others: Sequence[tuple[Pair, bool]], rescore: Rescore, seed: int
) -> dict[str, Any]:
    scores = rescore([pair for pair, _ in others])
    before, after, groups = [], [], []
    for (pair, margin), (_, same_sides), score in zip(base, others, scores, strict=True):
        new = _margin(score)
        if new is not None:
            before.append(margin)
            after.append(new if same_sides else -new)
            groups.append(pair.group)
    old, new_margins = np.array(before), np.array(after)
    moved = np.abs(new_margins - old)
    flipped = (np.sign(old) != np.sign(new_margins)).astype(np.float64)
    return {
        "flipped": mean(flipped, groups, seed, share=True),
        "moved": mean(moved, groups, seed),
        "largest": float(moved.max()) if len(moved) else None,
        "unscored": len(base) - len(moved),
    }


def _margin(score: PairScore) -> float | None:
    return None if score.score_a is None or score.score_b is None else score.score_a - score.score_b
