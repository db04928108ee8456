"""Rated: two ratings of one prompt by one labeler become a pair with a judgement.

Every rating is kept as a comment, and the row is accepted or a duplicate by its comment alone. Beside that, a new
rating is set against the same labeler's other ratings on the same scale in the same source, whichever import brought
them (the latest 50):
- ratings that differ: the better reply is chosen, with a strength by the distance (below); ratings that are equal: a
  tie;
- thumbs: one up and one down choose; two alike stay comments, since a thumb is too coarse to call two replies equal.

Strength: the distance in steps of a five-point scale (distance * 4 / (highest - lowest) where the scale is known, the
plain distance where not), rounded and held within 1 (slightly) to 3 (much). Thumbs have none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from sqlalchemy import Connection, select

from rlhf.feedback.consent import from_column
from rlhf.ids import digest_of
from rlhf.records import Choice, Comment, Judgement, Kind, Message, Pair
from rlhf.store.tables import comments

_CHUNK, _PARTNERS = 500, 50
_Group = tuple[str, str, str | None, str]  # prompt's digest, source, labeler, signal


@dataclass(frozen=True, slots=True)
class _Stored:
    reply: str
    value: float
    consent: tuple[str, ...]
    kind: Kind


def prompt_digest(prompt: Sequence[Message]) -> str:
    """What ratings of one prompt have in common."""
    return digest_of([turn.as_json() for turn in prompt])


def pairs_from(connection: Connection, fresh: Sequence[Comment]) -> Iterator[tuple[Pair, Judgement]]:
    """The pairs that these comments, stored already, make with each other and with earlier ones."""
    wanted: set[_Group] = {
        (prompt_digest(c.prompt), c.source, c.labeler, c.signal)
        for c in fresh
        if c.labeler is not None and c.value is not None
    }
    others = _stored(connection, wanted)
    for new in fresh:
        if new.labeler is None or new.value is None or new.reply is None:
            continue
        group = others.get((prompt_digest(new.prompt), new.source, new.labeler, new.signal), [])
        for old in [o for o in group if o.reply != new.reply][-_PARTNERS:]:
            made = _judged(new, old)
            if made is not None:
                yield made


def strength_of(distance: float, signal: str) -> int:
    """1 slightly, 2 clearly, 3 much; signal 'rating:1-7' gives the scale."""
    low, _, high = signal.removeprefix("rating:").rpartition("-") if signal.startswith("rating:") else ("", "", "")
    steps = distance * 4 / (float(high) - float(low)) if high else distance
    return max(1, min(3, round(steps)))


def _judged(new: Comment, old: _Stored) -> tuple[Pair, Judgement] | None:
    assert new.reply is not None and new.value is not None
    if new.signal == "thumb" and new.value == old.value:
        return None
    pair = Pair.of(new.prompt, new.reply, old.reply)
    choice: Choice = "tie"
    if new.value != old.value:
        choice = pair.side_of(new.reply if new.value > old.value else old.reply)
    strength = None if new.signal == "thumb" or choice == "tie" else strength_of(abs(new.value - old.value), new.signal)
    consent = tuple(s for s in new.consent if s in old.consent)
    kind = new.kind if new.kind != "human" else old.kind  # one simulated side makes the judgement simulated
    return pair, Judgement(
        pair.id, choice, new.source, new.labeler, kind=kind, strength=strength, consent=consent, reason="rated"
    )


def _stored(connection: Connection, wanted: Set[_Group]) -> dict[_Group, list[_Stored]]:
    found: dict[_Group, list[_Stored]] = {}
    prompts = sorted({entry[0] for entry in wanted})
    for start in range(0, len(prompts), _CHUNK):
        query = (
            select(comments)
            .where(comments.c.prompt_digest.in_(prompts[start : start + _CHUNK]), comments.c.reply.is_not(None))
            .order_by(comments.c.created_at, comments.c.digest)
        )
        for row in connection.execute(query):
            group = (row.prompt_digest, row.source, row.labeler, row.signal)
            if group in wanted and row.value is not None:
                found.setdefault(group, []).append(_Stored(row.reply, row.value, from_column(row.consent), row.kind))
    return found


def comment_row(comment: Comment, import_id: str, actor: str, at: str) -> dict[str, object]:
    """The table row of a comment."""
    return {
        "digest": comment.digest,
        "prompt": json.dumps([t.as_json() for t in comment.prompt], ensure_ascii=False),
        "reply": comment.reply,
        "source": comment.source,
        "labeler": comment.labeler,
        "signal": comment.signal,
        "value": comment.value,
        "body": comment.text,
        "consent": ",".join(comment.consent),
        "kind": comment.kind,
        "prompt_digest": prompt_digest(comment.prompt),
        "import_id": import_id,
        "actor": actor,
        "created_at": at,
    }
