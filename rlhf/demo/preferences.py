"""The demo's own preferences: shipped replies, paired, and judged by the simulated labelers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from rlhf.demo import labelers
from rlhf.demo.prompts import prompts
from rlhf.demo.rule import quality, true_preference
from rlhf.ids import unit_interval
from rlhf.measures.ranking import pearson
from rlhf.records import Message, Pair


@dataclass(frozen=True, slots=True)
class DemoFacts:
    """What was written, and what can be known of it because the rule is known.

    corr_length: Pearson's correlation of the quality difference with the length difference, in characters.
    longer_wins: share of pairs (of unequal length) whose longer reply the rule prefers.
    noise_ceiling: expected accuracy of the rule itself against the majority of these labelers.
    """

    n_pairs: int
    n_prompts: int
    n_labelers: int
    judgements: int
    corr_length: float
    noise_ceiling: float
    longer_wins: float


@cache
def demo_pairs() -> tuple[Pair, ...]:
    """Every shipped pair, in an order drawn by hash so that the first n are a fair sample.

    Each of a prompt's four replies stands in one pair. Of the three ways to pair them, the one is taken whose closer
    pair is furthest apart by the rule, so that few pairs are near-ties; which side is better plays no part in it.
    """
    by_opening = {prompt[0].content: prompt for prompt in prompts()}
    packed = resources.files("rlhf.demo").joinpath("replies.jsonl.gz").read_bytes()
    _, *lines = gzip.decompress(packed).decode("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    pairs = [pair for row in rows for pair in _paired(by_opening[row["opening"]], [text for text, _ in row["replies"]])]
    return tuple(sorted(pairs, key=lambda pair: unit_interval(0, pair.id)))


def _paired(prompt: tuple[Message, ...], replies: Sequence[str]) -> list[Pair]:
    """Two pairs of four replies; an empty reply, or two that are the same text, give none."""
    points = [quality(prompt, reply) for reply in replies]
    ways = (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))
    best = max(ways, key=lambda way: min(abs(points[i] - points[j]) for i, j in way))
    couples = [(replies[i], replies[j]) for i, j in best]
    return [Pair.of(prompt, one, other) for one, other in couples if one and other and one != other]


def write_preferences(path: Path, *, seed: int = 0, n_pairs: int | None = None) -> DemoFacts:
    """Write one JSON line a vote, in the `votes` format; import it with kind 'simulated'.

    Keys: pair_id, prompt (messages), a, b, labeler, vote ('a', 'b' or 'tie'), shown ('ab' or 'ba'), kind, cohort.
    seed: who is asked and what is answered; the pairs stay. n_pairs: the first n only. Same arguments, same bytes.
    """
    if n_pairs is not None and n_pairs < 1:
        raise ValueError(f"n_pairs = {n_pairs}; wanted at least 1")
    chosen = demo_pairs()[:n_pairs]
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for pair in chosen:
            for vote in labelers.votes(pair, seed):
                file.write(json.dumps(_row(pair, vote), ensure_ascii=False) + "\n")
    return facts_of(chosen, seed)


def _row(pair: Pair, vote: labelers.Vote) -> dict[str, object]:
    return {
        "pair_id": pair.id[:16],
        "prompt": [message.as_json() for message in pair.prompt],
        "a": pair.reply_a,
        "b": pair.reply_b,
        "labeler": vote.labeler.name,
        "vote": vote.choice,
        "shown": vote.shown,
        "kind": "simulated",
        "cohort": vote.labeler.cohort,
    }


def facts_of(pairs: Sequence[Pair], seed: int = 0) -> DemoFacts:
    """What is known of these pairs and of the votes that `seed` gives them; raises ValueError without a pair."""
    quality_P = np.array([true_preference(pair.prompt, pair.reply_a, pair.reply_b) for pair in pairs])
    longer_P = np.array([len(pair.reply_a) - len(pair.reply_b) for pair in pairs])
    asked = [labelers.asked(pair.id, seed) for pair in pairs]
    decided = (longer_P != 0) & (quality_P != 0)
    return DemoFacts(
        n_pairs=len(pairs),
        n_prompts=len({pair.prompt for pair in pairs}),
        n_labelers=len({labeler.name for group in asked for labeler in group}),
        judgements=sum(len(group) for group in asked),
        corr_length=pearson(quality_P, longer_P),
        noise_ceiling=labelers.noise_ceiling(zip(quality_P.tolist(), asked, strict=True)),
        longer_wins=float(np.mean((quality_P > 0)[decided] == (longer_P > 0)[decided])) if decided.any() else 0.5,
    )
