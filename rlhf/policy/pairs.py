"""Pairs of token ids for DPO: the best and the worst of sampled replies by the rewards, or what people preferred.

Sampled pairs are the very tokens that were sampled: a reply that was cut off ends where it was cut, so that nobody learns to end
there. Human pairs are rendered like those of a reward training: same turns dropped on both sides, no reply ever cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from peft import PeftModel

from rlhf.engine import generation
from rlhf.engine.generation import Sampled
from rlhf.engine.policies import TRAINED, switched
from rlhf.engine.rendering import Renderer, shortened
from rlhf.engine.sampling import Sampling
from rlhf.errors import BadInput
from rlhf.measures.length import within_prompts
from rlhf.policy.prompts import RenderedPrompt
from rlhf.policy.reply_log import rows_of
from rlhf.policy.scored import Drawn, Rewards, Scored
from rlhf.records import Message, SnapshotRow
from rlhf.reward.targets import target_of

_ROWS_AT_ONCE = 64  # sampling is bound by memory: twice the rows cost little more


@dataclass(frozen=True, slots=True)
class TokenPair:
    """prompt + chosen and prompt + rejected are the two sequences. id: the prompt's, or the human pair's."""

    id: str
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ranked:
    """One prompt's sampled replies with their scores."""

    prompt: RenderedPrompt
    sampled: tuple[Sampled, ...]
    drawn: tuple[Drawn, ...]
    scored: tuple[Scored, ...]

    def pair(self, min_margin: float) -> TokenPair | None:
        """Best against worst; None where they differ by no more than the margin or are the same text."""
        known = [(s.points, -i) for i, s in enumerate(self.scored) if s.points is not None]
        if len(known) < 2:
            return None
        (high, best), (low, worst) = max(known), min(known)
        if high - low <= min_margin or self.drawn[-best].text == self.drawn[-worst].text:
            return None
        return TokenPair(self.prompt.prompt.id, self.prompt.ids, self.sampled[-best].ids, self.sampled[-worst].ids)

    def rows(self, adapter: str) -> list[dict[str, Any]]:
        """Lines of the reply log, with the token ids, so that a resumed run need not sample them again."""
        ids = [self.prompt.prompt.id] * len(self.drawn)
        lines = rows_of(0, "ranked", ids, self.drawn, self.scored, adapter)
        return [line | {"ids": list(s.ids)} for line, s in zip(lines, self.sampled, strict=True)]


def sample_and_rank(
    model: PeftModel,
    rewards: Rewards,
    prompts: Sequence[RenderedPrompt],
    samples: int,
    sampling: Sampling,
    decode: Callable[..., str],
    *,
    adapter: str | None = TRAINED,
) -> list[Ranked]:
    """`samples` replies to each prompt from the adapter in training as it stands, scored. Seeds depend on the prompt alone.

    adapter: who writes; None = the bare base, which a fresh LoRA equals to the last bit, in less time.
    """
    ids = [prompt.ids for prompt in prompts for _ in range(samples)]
    seeds = [
        generation.seed_of(sampling.seed, "sample", prompt.prompt.id, str(k))
        for prompt in prompts
        for k in range(samples)
    ]
    with switched(model, adapter):
        sampled = generation.generate(model, ids, seeds, sampling, rows_at_once=_ROWS_AT_ONCE)
    drawn = [
        Drawn(prompts[i // samples].kept, decode(s.ids, skip_special_tokens=True), len(s.ids), s.cut_off)
        for i, s in enumerate(sampled)
    ]
    scored = rewards.score(drawn)
    return [
        Ranked(
            prompt,
            *(tuple(part[i * samples : (i + 1) * samples]) for part in (sampled, drawn, scored)),  # type: ignore[arg-type]
        )
        for i, prompt in enumerate(prompts)
    ]


def length_correlation(every: Sequence[Ranked]) -> tuple[float, int] | None:
    """Rank correlation of points with tokens within prompts, and the number of prompts; None where lengths never differ, and for
    one prompt, whose few replies tell nothing."""
    scored = [
        (one.points, drawn.n_tokens, ranked.prompt.prompt.id)
        for ranked in every
        for one, drawn in zip(ranked.scored, ranked.drawn, strict=True)
        if one.points is not None
    ]
    if not scored:
        return None
    points, tokens, prompts = zip(*scored, strict=True)
    found = within_prompts(points, tokens, prompts)
    return found if found is not None and found[1] > 1 else None


def human_pairs(rows: Sequence[SnapshotRow], renderer: Renderer) -> tuple[list[TokenPair], dict[str, int]]:
    """What the majority of people preferred in each pair, as tokens. And how many: pairs, ties, undecided, too_long, refused."""
    counts = {"pairs": 0, "ties": 0, "undecided": 0, "too_long": 0, "refused": 0, "shortened": 0}
    found = []
    for row in rows:
        counts["pairs"] += 1
        target = target_of(row.judgements, "majority")
        if target is None or target == 0.5:
            counts["undecided" if target is None else "ties"] += 1
            continue
        pair = row.pair
        chosen, rejected = (pair.reply_a, pair.reply_b) if target > 0.5 else (pair.reply_b, pair.reply_a)
        made = _tokens(pair.id, pair.prompt, chosen, rejected, renderer, counts)
        if made is not None:
            found.append(made)
    return found, counts


def _tokens(
    name: str, prompt: Sequence[Message], chosen: str, rejected: str, renderer: Renderer, counts: dict[str, int]
) -> TokenPair | None:
    """The pair as tokens; None, and counted, where it doesn't fit or the template refuses it."""
    for kept, n_dropped in shortened(prompt):
        try:
            opening = renderer.opening(kept)
            both = [renderer.ids((*kept, Message("assistant", reply))) for reply in (chosen, rejected)]
        except BadInput:
            counts["refused"] += 1
            return None
        if max(map(len, both)) <= renderer.max_length:
            # Where tokens merge across the boundary the replies begin earlier, at the last token that all three share.
            n = next(
                (i for i, token in enumerate(opening) if any(i >= len(ids) or ids[i] != token for ids in both)),
                len(opening),
            )
            if both[0][n:] == both[1][n:]:
                counts["refused"] += 1
                return None
            counts["shortened"] += n_dropped > 0
            return TokenPair(name, tuple(opening[:n]), tuple(both[0][n:]), tuple(both[1][n:]))
    counts["too_long"] += 1
    return None
