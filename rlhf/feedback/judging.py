"""Judging: the same door for one judgement, from a page or an API call."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

from sqlalchemy import ColumnElement, Select, bindparam, select

from rlhf.errors import BadInput, Conflict, Forbidden, NotFound
from rlhf.feedback import tombstones
from rlhf.feedback.anonymise import mask
from rlhf.feedback.appending import add_judgements, add_pairs, add_sources, once
from rlhf.feedback.consent import scopes
from rlhf.feedback.drafts import Rejected
from rlhf.feedback.fields import check_text, filled
from rlhf.feedback.pseudonyms import person_of
from rlhf.feedback.reading import UNDO, in_force
from rlhf.ids import now_text
from rlhf.records import CHOICES, KINDS, Judgement, Message, Pair
from rlhf.store import Workspace, Write
from rlhf.store.tables import judgements, pairs


def judge(workspace: Workspace, judgement: Judgement, *, pair: Pair | None = None) -> str:
    """Append one judgement and return its id; the call returns when it is durable. See `judge_in`."""
    with workspace.write() as write:
        return judge_in(write, judgement, pair=pair)


def judge_in(write: Write, judgement: Judgement, *, pair: Pair | None = None) -> str:
    """Append one judgement inside the caller's transaction and return its id; the same one again returns the id it has.

    pair: brings a pair that may be new; its text is masked first, so the judgement's `pair_id` may be the unmasked
    pair's. An undo is choice 'skip' with reason 'undo' that supersedes what it takes back. A judgement may be
    superseded once, by the same labeler, in the same source, on the same pair. Who judges again after an undo
    supersedes the undo, named or not. Raises BadInput on a bad value, NotFound on an unknown pair or superseded
    judgement, Conflict on a second successor or somebody else's judgement, Forbidden where the pair or the labeler
    was erased.
    """
    if pair is not None:
        judgement, pair = _masked_pair(judgement, pair)
    judgement = _checked(judgement)
    if judgement.labeler is not None:
        judgement = replace(judgement, labeler=person_of(write.key, judgement.labeler))
    things = {("pair", judgement.pair_id, "")} | (
        {("labeler", judgement.labeler, judgement.source)} if judgement.labeler else set()
    )
    if tombstones.buried(write.connection, write.key, things):
        raise Forbidden(
            "this pair or labeler was erased", fix="go on with another pair; what was erased is not taken back"
        )
    at = now_text()
    if pair is not None:
        add_pairs(write, [pair], at)
    stored = write.connection.execute(
        select(pairs.c.id, pairs.c.erased_at).where(pairs.c.id == judgement.pair_id)
    ).first()
    if stored is None or stored.erased_at is not None:
        raise NotFound(f"no pair {judgement.pair_id[:12]} in this workspace", fix="see: rlhf feedback list")
    if (standing := _standing(write, judgement)) is not None:
        return standing
    judgement = _after_undo(write, judgement)
    name = once(judgement)
    if (same := write.connection.scalar(select(judgements.c.id).where(judgements.c.once == name))) is not None:
        return str(same)
    if judgement.supersedes is not None:
        _check_superseded(write, judgement)
    add_sources(write, [(judgement.pair_id, judgement.source, None, {})], None)
    add_judgements(write, {name: judgement}, None, at)
    new = write.connection.scalar(select(judgements.c.id).where(judgements.c.once == name))
    write.audit(
        "feedback.judge",
        str(new),
        {
            "pair": judgement.pair_id,
            "choice": judgement.choice,
            "source": judgement.source,
            "supersedes": judgement.supersedes,
        },
    )
    return str(new)


def _checked(j: Judgement) -> Judgement:
    """The judgement with its note masked and its consent sorted. Raises BadInput naming the first value that is
    wrong.
    """
    choices: list[tuple[bool, str, str]] = [
        (j.choice in CHOICES, f"the choice is {j.choice!r:.60}", f"use one of {', '.join(CHOICES)}"),
        (j.kind in KINDS, f"the kind is {j.kind!r:.60}", f"use one of {', '.join(KINDS)}"),
        (
            j.strength is None or (type(j.strength) is int and 1 <= j.strength <= 3),
            f"the strength is {j.strength!r:.60}",
            "use 1, 2, 3 or none",
        ),
        (j.shown in (None, "ab", "ba"), f"shown is {j.shown!r:.60}", "use ab, ba or none"),
        (
            _number_in(j.seconds, 0, math.inf),
            f"the seconds are {j.seconds!r:.60}",
            "give a finite number of at least 0, or none",
        ),
        (
            _number_in(j.acquisition_p, 0, 1),
            f"the acquisition probability is {j.acquisition_p!r:.60}",
            "give a number from 0 to 1, or none",
        ),
        (
            j.reason != UNDO or (j.choice == "skip" and j.supersedes is not None),
            "an undo is no skip that supersedes a judgement",
            "send choice skip with the id of the judgement to take back",
        ),
    ]
    for good, seen, fix in choices:
        if not good:
            raise BadInput(seen, fix=fix)
    try:
        for field, value, limit in (
            ("source", j.source, 200),
            ("labeler", j.labeler, 200),
            ("cohort", j.cohort, 200),
            ("submitted_at", j.submitted_at, 40),
            ("guideline", j.guideline, 64),
        ):
            if value is not None and len(filled(field, value)) > limit:
                raise Rejected(f"'{field}' is over {limit} characters")
        filled("source", j.source)
        note = mask(check_text("note", j.note))[0] if j.note else None
        reason = mask(check_text("reason", j.reason))[0] if j.reason else None
    except Rejected as verdict:
        raise BadInput(str(verdict), fix="correct the value and send it again") from None
    return replace(j, consent=scopes(j.consent), note=note, reason=reason)


def _number_in(value: float | None, low: float, high: float) -> bool:
    return value is None or (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high
    )


def _masked_pair(judgement: Judgement, pair: Pair) -> tuple[Judgement, Pair]:
    """The pair as it may be stored, and the judgement with its sides turned where masking changed the replies'
    order.
    """
    if judgement.pair_id != pair.id:
        raise BadInput(
            "the judgement is about another pair than the one that came with it", fix="send the pair that was judged"
        )
    try:
        for number, turn in enumerate(pair.prompt, 1):
            filled(f"prompt message {number}", turn.content)
        a, b = (mask(filled(name, text))[0] for name, text in (("reply_a", pair.reply_a), ("reply_b", pair.reply_b)))
    except Rejected as verdict:
        raise BadInput(str(verdict), fix="correct the pair and send it again") from None
    if a == b:
        raise BadInput(
            "the two replies are identical"
            + ("" if pair.reply_a == pair.reply_b else " once personal data is replaced"),
            fix="send two replies that differ",
        )
    clean = Pair.of([Message(turn.role, mask(turn.content)[0]) for turn in pair.prompt], a, b)
    if clean.reply_a == a:
        return replace(judgement, pair_id=clean.id), clean
    choice, shown = judgement.choice, judgement.shown
    return replace(
        judgement,
        pair_id=clean.id,
        choice="b" if choice == "a" else "a" if choice == "b" else choice,
        shown=None if shown is None else "ba" if shown == "ab" else "ab",
    ), clean


def _standing(write: Write, judgement: Judgement) -> str | None:
    """The id of the labeler's same choice that is in force already, whatever it superseded."""
    if judgement.supersedes is not None or judgement.labeler is None:
        return None
    return write.connection.scalar(_same_choice(), _hand(judgement) | {"choice": judgement.choice})


def _after_undo(write: Write, judgement: Judgement) -> Judgement:
    """Judging again after an undo supersedes the undo: else the choice would be a duplicate of the one taken back,
    and lost.
    """
    if judgement.supersedes is not None or judgement.labeler is None:
        return judgement
    undo = write.connection.scalar(_last_undo(), _hand(judgement))
    return judgement if undo is None else replace(judgement, supersedes=str(undo))


def _hand(judgement: Judgement) -> dict[str, str | None]:
    return {"pair_id": judgement.pair_id, "source": judgement.source, "labeler": judgement.labeler}


@cache
def _same_choice() -> Select[str]:
    """Built once, like the next: each answer asks both, and building one takes longer than running it."""
    same = judgements.c.choice == bindparam("choice")
    return select(judgements.c.id).where(in_force(), *_same_hand(), same).limit(1)


@cache
def _last_undo() -> Select[str]:
    later = judgements.alias("later")
    return (
        select(judgements.c.id)
        .outerjoin(later, later.c.supersedes == judgements.c.id)
        .where(*_same_hand(), judgements.c.reason == UNDO, later.c.id.is_(None))
        .order_by(judgements.c.id.desc())
        .limit(1)
    )


def _same_hand() -> tuple[ColumnElement[bool], ...]:
    return tuple(judgements.c[name] == bindparam(name) for name in ("pair_id", "source", "labeler"))


def _check_superseded(write: Write, judgement: Judgement) -> None:
    before = write.connection.execute(select(judgements).where(judgements.c.id == judgement.supersedes)).first()
    if before is None:
        raise NotFound(f"no judgement {judgement.supersedes}", fix="name the id that the first judgement returned")
    for field in ("pair_id", "source", "labeler"):
        if getattr(before, field) != getattr(judgement, field):
            raise Conflict(
                f"judgement {before.id} has another {field.removesuffix('_id')}",
                fix="a judgement is superseded by the same labeler, in the same source, on the same pair",
            )
    if (
        taken := write.connection.scalar(select(judgements.c.id).where(judgements.c.supersedes == before.id))
    ) is not None:
        raise Conflict(
            f"judgement {before.id} was superseded already, by {taken}", fix=f"supersede {taken}, which is in force"
        )
