"""Exploration: the new policy answers train-side prompts twice, and people are asked about the pairs that the reward can't tell.

The pairs come in through the feedback door without a verdict, under the source `loop:<round>`, and stand in the labeling queue like
any other. What people say of them is trained on in the next rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlhf.ids import canonical_json, unit_interval
from rlhf.records import Message
from rlhf.rounds.state import Round
from rlhf.store import Workspace

SOURCE = "loop:"
REPLIES = 2  # of one prompt, which make its pair
_TOP_P = 1.0


@dataclass(frozen=True, slots=True)
class Close:
    """Two replies to a prompt, and by how many points the reward tells them apart (0 or more)."""

    prompt: tuple[Message, ...]
    one: str
    other: str
    margin: float


def ask(workspace: Workspace, one: Round, *, writer: str, reward: str, snapshot: str) -> dict[str, Any]:
    """Sample, score, and put the closest pairs into the queue. The same round again adds nothing: the same seeds give the same
    replies, and a pair is its text's digest.
    """
    from rlhf import policy
    from rlhf.feedback import import_files
    from rlhf.reward import score_items
    from rlhf.reward.score import Item

    how = one.settings.explore
    prompts = _drawn(policy.prompts_of(workspace, snapshot, "train"), one, how.prompts)
    written = _written(workspace, one, writer, prompts)
    items = [
        Item(f"{side}:{i}", prompt.messages, texts[i])
        for side, texts in enumerate(written)
        for i, prompt in enumerate(prompts)
        if texts[i].strip()
    ]
    scores = {row["id"]: row["score"] for row in score_items(workspace, reward, items)}
    chosen = closest(
        (prompt.messages, [(texts[i], scores.get(f"{side}:{i}")) for side, texts in enumerate(written)])
        for i, prompt in enumerate(prompts)
    )[: how.pairs]
    source = f"{SOURCE}{one.id}"
    file = one.folder / "asked.jsonl"
    file.write_bytes(b"".join(canonical_json(_row(pair)) + b"\n" for pair in chosen))
    receipt = import_files(workspace, [file], format="votes", source=source) if chosen else None
    margins = [pair.margin for pair in chosen]
    return {
        "source": source,
        "writer": writer,
        "prompts": len(prompts),
        "pairs": receipt.pairs + receipt.pairs_merged if receipt else 0,
        "refused": receipt.pair_errors if receipt else 0,
        "largest_margin": max(margins, default=None),
    }


def closest(answered: Iterable[tuple[tuple[Message, ...], Sequence[tuple[str, float | None]]]]) -> list[Close]:
    """The pairs of two different replies that were both scored, the smallest margin first."""
    pairs = []
    for prompt, ((one, first), (other, second)) in answered:
        if first is not None and second is not None and one.strip() != other.strip():
            pairs.append(Close(prompt, one, other, abs(first - second)))
    return sorted(pairs, key=lambda pair: (pair.margin, pair.one, pair.other))


def _drawn(prompts: Sequence[Any], one: Round, n: int) -> list[Any]:
    """n prompts by a hash with the round in it: each round asks about others."""
    return sorted(prompts, key=lambda p: unit_interval(one.settings.seed, f"{one.id}:{p.digest}"))[:n]


def _written(workspace: Workspace, one: Round, writer: str, prompts: Sequence[Any]) -> list[list[str]]:
    from rlhf import policy

    settings = one.settings.policy_settings("r@1", None, "explore")
    tokens = settings.max_new_tokens if settings is not None else policy.Sampling().max_new_tokens
    found = []
    for seed in range(one.settings.seed, one.settings.seed + REPLIES):
        sampling = policy.Sampling(tokens, one.settings.explore.temperature, _TOP_P, seed)
        found.append([reply.text for reply in policy.replies(workspace, writer, prompts, sampling)])
    return found


def _row(pair: Close) -> Mapping[str, Any]:
    return {
        "prompt": [asdict(turn) for turn in pair.prompt],
        "reply_a": pair.one,
        "reply_b": pair.other,
        "margin": round(pair.margin, 6),
    }
