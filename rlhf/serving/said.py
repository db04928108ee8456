"""What drift is read from: rows of a snapshot and served replies in one shape, and the features of each.

Words are those that users let be kept; lengths are there for every reply.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, select

from rlhf.errors import NotFound
from rlhf.feedback.reading import in_force, judgement_from
from rlhf.people import took_back, withdrawn
from rlhf.records import Pair, SnapshotRow
from rlhf.snapshots import Snapshot
from rlhf.store.tables import alias_moves, exposures, judgements, versions

_MOST_REFERENCE = 20_000  # rows of a snapshot that are read
_VOCABULARY = 300  # the commonest words; all others are one
_EARLIER = 10  # replies before the window, for each in it
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Said:
    """One served reply, or one row of the snapshot, as features are read from it. None = not kept, not told."""

    id: str
    group: str
    at: str
    prompt: str | None  # the last user turn
    turns: int | None
    reply: str | None
    reply_chars: int | None
    reward: float | None = None
    slices: Mapping[str, str] = field(default_factory=dict)


# Numbers that are read from a row; the first word says of what.
NUMBERS: dict[str, Callable[[Said], float | None]] = {
    "prompt_chars": lambda said: None if said.prompt is None else float(np.log1p(len(said.prompt))),
    "prompt_turns": lambda said: None if said.turns is None else float(said.turns),
    "prompt_script": lambda said: (
        None if not said.prompt else sum(not c.isascii() for c in said.prompt) / len(said.prompt)
    ),
    "reply_chars": lambda said: None if said.reply_chars is None else float(np.log1p(said.reply_chars)),
}
WORDS: dict[str, Callable[[Said], str | None]] = {
    "prompt_words": lambda said: said.prompt,
    "reply_words": lambda said: said.reply,
}


def bags(sides: Sequence[Sequence[str]]) -> tuple[list[list[list[int]]], int]:
    """Texts as numbers of words: the commonest of both sides, and one number for all others."""
    split = [[_WORD.findall(text.casefold()) for text in side] for side in sides]
    counted: Counter[str] = Counter()
    for side in split:
        own = Counter(word for words in side for word in words)
        total = max(1, own.total())
        counted.update({word: n / total for word, n in own.items()})  # shares, so that a side is a side
    number = {
        word: i for i, (word, _) in enumerate(sorted(counted.items(), key=lambda one: (-one[1], one[0]))[:_VOCABULARY])
    }
    return [[[number.get(word, len(number)) for word in words] for words in side] for side in split], len(number) + 1


def frozen(snapshot: Snapshot) -> tuple[list[Said], list[list[str | None]]]:
    """Both replies of each pair, and each pair's choices; the first rows by pair id, which is a hash, of a large one."""
    said: list[Said] = []
    labels: list[list[str | None]] = []
    for number, row in enumerate(snapshot.rows()):
        if number >= _MOST_REFERENCE:
            break
        said += _said_of(row)
        labels.append([None if j.choice == "skip" else j.choice for j in row.judgements])
    return said, labels


def _said_of(row: SnapshotRow) -> Iterator[Said]:
    turns = [message.content for message in row.pair.prompt if message.role == "user"]
    opening = opening_of(row.pair)
    prompt = turns[-1] if turns else None
    yield Said(row.pair.id, opening, "", prompt, len(turns), row.pair.reply_a, len(row.pair.reply_a))
    yield Said(row.pair.id, opening, "", None, None, row.pair.reply_b, len(row.pair.reply_b))  # the prompt counts once


def opening_of(pair: Pair) -> str:
    """What belongs together: the first thing that the user said."""
    return next((message.content for message in pair.prompt if message.role == "user"), pair.id)


def served(connection: Connection, alias: str, last: int) -> tuple[list[Said], list[Said]]:
    """The newest `last` replies that were shown, the newest first, and those before them."""
    e = exposures.c
    columns = (e.request_id, e.at, e.unit, e.digest, e.prompt, e.reply, e.length_chars, e.reward)
    query = select(*columns).where(e.alias == alias, e.status == "ok", e.rule != "shadow")
    rows = connection.execute(query.order_by(e.at.desc(), e.request_id.desc()).limit((1 + _EARLIER) * last)).all()
    if not rows:
        known = select(alias_moves.c.alias).where(alias_moves.c.alias == alias).limit(1)
        there = connection.execute(known).first() is not None
        seen = f"nothing was served under {alias} yet" if there else f"there is no alias {alias}"
        raise NotFound(seen, fix="see what there is: rlhf alias list, rlhf served list")
    named = {row.digest: f"{row.name}@{row.number}" for row in connection.execute(select(versions))}
    told = [_shown(row, named) for row in rows]
    return told[:last], told[last:]


def _shown(row: Row[*tuple[Any, ...]], named: Mapping[str, str]) -> Said:
    turns = None if row.prompt is None else [m["content"] for m in json.loads(row.prompt) if m["role"] == "user"]
    slices = {"version": named.get(row.digest or "", "base")}
    if turns is not None:
        slices["conversation"] = "first turn" if len(turns) < 2 else "later turn"
    return Said(
        row.request_id,
        row.unit or row.request_id,
        row.at,
        turns[-1] if turns else None,
        len(turns) if turns is not None else None,
        row.reply,
        row.length_chars,
        row.reward,
        slices,
    )


def labels_since(connection: Connection, cut_at: str) -> list[list[str | None]]:
    """Choices by pair, of judgements in force that came since, but for those of people who took their consent back."""
    gone = withdrawn(connection)
    query = select(judgements).where(in_force(), judgements.c.created_at > cut_at).order_by(judgements.c.pair_id)
    labels: dict[str, list[str | None]] = {}
    for row in connection.execute(query.execution_options(yield_per=1000)):
        judgement = judgement_from(row, gone)
        if not took_back(judgement, gone):
            labels.setdefault(judgement.pair_id, []).append(None if judgement.choice == "skip" else judgement.choice)
    return list(labels.values())
