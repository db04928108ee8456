"""What `reward score` is asked, line by line: a reply's score, or which of two replies people would choose, and how surely."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.errors import BadInput
from rlhf.measures.ranking import p_better
from rlhf.records import Message, Pair
from rlhf.reward.score import Item, OpenReward, item_of, place_of, reply_of, score_with, score_with_open

_SIDES = ("reply_a", "reply_b")


@dataclass(frozen=True, slots=True)
class PairItem:
    """Two replies to one prompt."""

    id: Any
    prompt: tuple[Message, ...]
    reply_a: str
    reply_b: str


def asked_of(record: Any, number: int, file: str = "") -> Item | PairItem:
    """An item from `{"id", "prompt", "reply"}`, or a pair from `{"id", "prompt", "reply_a", "reply_b"}`. Raises BadInput naming the
    line, and the file where it is given."""
    if not isinstance(record, Mapping) or not record.keys() & {"reply_a", "reply_b"}:
        return item_of(record, number, file)
    place = place_of(number, file)
    if "reply" in record:
        both = " and ".join(key for key in ("reply", "reply_a", "reply_b") if key in record)
        raise BadInput(
            f"{place} has {both}: it is either a reply or a pair", fix="write reply alone, or reply_a and reply_b"
        )
    a, b = (reply_of(record, key, place, '{"id", "prompt", "reply_a": text, "reply_b": text}') for key in _SIDES)
    one = item_of({**record, "reply": a}, number, file)
    return PairItem(one.id, one.prompt, a, b)


def score_asked(reward: OpenReward, asked: Sequence[Item | PairItem]) -> Iterator[Mapping[str, Any]]:
    """In order: `{"id", "score", ...}` of an item (see `score_items`), `{"id", "score_a", "score_b", "p_a", ...}` of a pair.

    p_a: the chance that a labeler prefers reply a, sigmoid(score_a - score_b); it means what it says where the version is
    calibrated. `doubt_a` and `doubt_b` where the version gives doubt. A pair that can't be scored has nulls and `unscored`. Both
    replies follow the same, equally shortened prompt.
    """
    items = score_with_open(reward, [one for one in asked if isinstance(one, Item)])
    pairs = iter(_pairs(reward, [one for one in asked if isinstance(one, PairItem)]))
    for one in asked:
        yield next(items if isinstance(one, Item) else pairs)


def _pairs(reward: OpenReward, asked: Sequence[PairItem]) -> list[Mapping[str, Any]]:
    pairs = [Pair.of(one.prompt, one.reply_a, one.reply_b) for one in asked]
    rows: list[Mapping[str, Any]] = []
    for one, pair, found in zip(asked, pairs, score_with(reward.model, reward.renderer, pairs), strict=True):
        sides = [(found.score_a, found.doubt_a), (found.score_b, found.doubt_b)]
        (score_a, doubt_a), (score_b, doubt_b) = sides if pair.side_of(one.reply_a) == "a" else reversed(sides)
        said: dict[str, Any] = {"score_a": score_a, "score_b": score_b, "p_a": None}
        if found.unscored == "same":  # one text to the template: one score, and a coin
            (row,) = score_with_open(reward, [Item(one.id, one.prompt, one.reply_a)])
            said = {"score_a": row["score"], "score_b": row["score"], "p_a": None if row["score"] is None else 0.5}
        elif found.score_a is not None and found.score_b is not None:
            said["p_a"] = p_better(said["score_a"], said["score_b"])
            said |= {} if doubt_a is None else {"doubt_a": doubt_a, "doubt_b": doubt_b}
        else:
            said["unscored"] = found.unscored
        named = {"id": one.id, "version": str(reward.ref), "digest": reward.ref.digest}
        rows.append({**named, **said, **({"truncated": True} if found.truncated else {})})
    return rows
