"""What is doubtful about a snapshot, counted with examples: leaks, contradictions, copies, lengths.

Some of it is no fault: replies may be shared across the sides by nature (arguments that meet several others), and
people do contradict each other. The figures say how far a held-out accuracy can be believed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from rlhf.ids import digest_text
from rlhf.measures.similarity import near_duplicates
from rlhf.measures.votes import majority
from rlhf.records import Judgement, Pair, SnapshotRow
from rlhf.snapshots.opening import open_snapshot
from rlhf.store import Workspace

EXAMPLES = 5
# Near-duplicates are looked for among so many texts at most (some 300 MB): rows stand in order of a digest, so the
# first ones are a random sample.
SEARCHED_TEXTS = 100_000
NEAR = 0.8


@dataclass(frozen=True, slots=True)
class Finding:
    """How many, of what, and the ids of some pairs to look at (`rlhf feedback show ID`)."""

    count: int
    what: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SnapshotCheck:
    """The findings by name; `lengths` in characters (and tokens, where they could be counted); too_long None = not
    checked."""

    snapshot: str
    pairs: int
    leaks: dict[str, Finding]
    contradictions: dict[str, Finding]
    copies: dict[str, Finding]
    lengths: dict[str, dict[str, float]]
    too_long: Finding | None
    too_long_reason: str | None
    searched: int  # pairs among which near-duplicates were looked for

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def check(
    workspace: Workspace,
    ref: str,
    *,
    count_tokens: Callable[[SnapshotRow], int] | None = None,
    max_tokens: int | None = None,
) -> SnapshotCheck:
    """Open the snapshot, verify each row, and count what is doubtful.

    count_tokens: row -> tokens that its longer rendering takes; with max_tokens, pairs above it are counted as too
    long. Near-duplicates are looked for among the first 100,000 pairs (`searched`).
    """
    snapshot = open_snapshot(workspace, ref)
    gathered = _Gathered()
    for row in snapshot.rows():
        gathered.add(row, count_tokens)
    reason = None
    if count_tokens is None:
        reason = "no base was named, so tokens can't be counted: give --base NAME"
    elif max_tokens is None:
        reason = "no limit was named: give --max-tokens N"
    return SnapshotCheck(
        snapshot.ref,
        snapshot.n_pairs,
        _leaks(gathered),
        _contradictions(gathered),
        _copies(gathered),
        _lengths(gathered),
        None if reason else _too_long(gathered, max_tokens or 0),
        reason,
        len(gathered.pair_texts),
    )


@dataclass
class _Gathered:
    """One pass over the rows. Digests stand for texts, except where near-duplicates need the words."""

    ids: list[str] = field(default_factory=list)
    sides: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)  # digests
    replies: list[tuple[str, str]] = field(default_factory=list)  # digests, case and space folded
    prompt_texts: dict[str, str] = field(default_factory=dict)  # by digest, the first SEARCHED_TEXTS
    pair_texts: list[str] = field(default_factory=list)
    characters: list[tuple[int, int, int]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    same_labeler: list[str] = field(default_factory=list)
    unknown_labelers: list[str] = field(default_factory=list)
    between_sources: list[str] = field(default_factory=list)

    def add(self, row: SnapshotRow, count_tokens: Callable[[SnapshotRow], int] | None) -> None:
        pair = row.pair
        prompt = "\n".join(message.content for message in pair.prompt)
        self.ids.append(pair.id)
        self.sides.append(row.split)
        self.groups.append(pair.group)
        self.prompts.append(digest_text(_folded(prompt)))
        self.replies.append((digest_text(_folded(pair.reply_a)), digest_text(_folded(pair.reply_b))))
        self.characters.append((len(prompt), len(pair.reply_a), len(pair.reply_b)))
        if len(self.pair_texts) < SEARCHED_TEXTS:
            self.pair_texts.append("\n".join((prompt, pair.reply_a, pair.reply_b)))
            self.prompt_texts.setdefault(self.prompts[-1], prompt)
        if count_tokens is not None:
            self.tokens.append(count_tokens(row))
        self._add_contradictions(pair, row.judgements)

    def _add_contradictions(self, pair: Pair, judgements: tuple[Judgement, ...]) -> None:
        chosen: dict[tuple[str, str | None], set[str]] = defaultdict(set)
        by_source: dict[str, list[Judgement]] = defaultdict(list)
        for judgement in judgements:
            by_source[judgement.source].append(judgement)
            if judgement.choice in ("a", "b"):
                chosen[judgement.source, judgement.labeler].add(judgement.choice)
        opposite = [labeler for (_, labeler), choices in chosen.items() if len(choices) == 2]
        if any(labeler is not None for labeler in opposite):
            self.same_labeler.append(pair.id)
        if any(labeler is None for labeler in opposite):
            self.unknown_labelers.append(pair.id)
        if {"a", "b"} <= {majority(j.choice for j in votes) for votes in by_source.values()}:
            self.between_sources.append(pair.id)


def _leaks(found: _Gathered) -> dict[str, Finding]:
    test = [i for i, side in enumerate(found.sides) if side == "test"]
    train = [i for i, side in enumerate(found.sides) if side == "train"]
    train_groups = {found.groups[i] for i in train}
    train_replies = {reply for i in train for reply in found.replies[i]}
    near = _prompts_near_training(found)
    return {
        "openings": _finding(
            "held-out pairs whose opening turn is also on the training side",
            (found.ids[i] for i in test if found.groups[i] in train_groups),
        ),
        "replies": _finding(
            "held-out pairs with a reply whose text is also on the training side",
            (found.ids[i] for i in test if not train_replies.isdisjoint(found.replies[i])),
        ),
        "near_prompts": _finding(
            f"held-out pairs whose prompt is nearly one of the training side (Jaccard >= {NEAR})",
            (found.ids[i] for i in test if found.prompts[i] in near),
        ),
    }


def _prompts_near_training(found: _Gathered) -> set[str]:
    """Digests of prompts that have a near-duplicate (or themselves) among the prompts of training pairs."""
    in_training = {found.prompts[i] for i, side in enumerate(found.sides) if side == "train"}
    digests = list(found.prompt_texts)
    pairs = near_duplicates(list(found.prompt_texts.values()), NEAR)
    first_of = {j: i for i, j, similarity in pairs if similarity == 1.0}  # copies are paired with their first alone
    members: dict[int, list[int]] = defaultdict(list)
    for k in range(len(digests)):
        members[first_of.get(k, k)].append(k)
    trained = {first for first, copies in members.items() if any(digests[k] in in_training for k in copies)}
    near = set(trained)
    for i, j, similarity in pairs:
        if similarity < 1.0:
            near |= ({i} if j in trained else set()) | ({j} if i in trained else set())
    return in_training | {digests[k] for first in near for k in members[first]}


def _contradictions(found: _Gathered) -> dict[str, Finding]:
    return {
        "same_labeler": _finding("pairs on which one labeler chose both replies", found.same_labeler),
        "unknown_labelers": _finding(
            "pairs on which unknown labelers of one source chose both replies", found.unknown_labelers
        ),
        "between_sources": _finding("pairs whose sources' majorities are opposite", found.between_sources),
    }


def _copies(found: _Gathered) -> dict[str, Finding]:
    times = Counter(found.prompts)
    near = near_duplicates(found.pair_texts, NEAR)
    return {
        "same_prompt": _finding(
            "pairs that share their prompt with another pair (case and space folded)",
            (found.ids[i] for i, prompt in enumerate(found.prompts) if times[prompt] > 1),
        ),
        "near_pairs": _finding(
            f"pairs whose prompt and replies nearly repeat an earlier one's (Jaccard >= {NEAR})",
            (found.ids[j] for j in sorted({j for _, j, _ in near})),
        ),
    }


def _lengths(found: _Gathered) -> dict[str, dict[str, float]]:
    prompt, reply_a, reply_b = (np.array(column) for column in zip(*found.characters, strict=True))
    lengths = {
        "prompt_characters": _spread(prompt),
        "reply_characters": _spread(np.concatenate([reply_a, reply_b])),
        "reply_difference_characters": _spread(np.abs(reply_a - reply_b)),
    }
    return {**lengths, "tokens": _spread(np.array(found.tokens))} if found.tokens else lengths


def _spread(values: np.ndarray[Any, Any]) -> dict[str, float]:
    median, p95, most = (float(q) for q in np.quantile(values, [0.5, 0.95, 1.0]))
    return {"mean": round(float(values.mean()), 1), "median": median, "p95": p95, "max": most}


def _too_long(found: _Gathered, max_tokens: int) -> Finding:
    return _finding(
        f"pairs of more than {max_tokens} tokens",
        (pair_id for pair_id, n in zip(found.ids, found.tokens, strict=True) if n > max_tokens),
    )


def _finding(what: str, ids: Iterable[str]) -> Finding:
    listed = list(ids)
    return Finding(len(listed), what, tuple(listed[:EXAMPLES]))


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
