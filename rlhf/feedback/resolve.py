"""Resolve: a draft becomes records. Personal data goes first, then replies are put in order and everything gets its
name.

The order matters: a pair's id is the digest of its masked text, so the same row gives the same pair whatever imports
it, and two replies that differ in a phone number only are identical.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlhf.feedback.anonymise import mask, mask_in
from rlhf.feedback.drafts import PairDraft, Rating, Rejected, Vote
from rlhf.feedback.pseudonyms import person_of
from rlhf.records import Choice, Comment, Judgement, Kind, Message, Pair


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a row takes from its import where it says nothing. source_given: the user named the source, so rows
    can't.
    """

    source: str
    source_given: bool
    kind: Kind
    consent: tuple[str, ...]
    workspace_key: str = ""

    def person(self, name: str | None, masked: Counter[str]) -> str | None:
        """A labeler or subject as they may be kept; an address that is replaced is counted."""
        if name is None or (kept := person_of(self.workspace_key, name)) == name:
            return name
        masked["email"] += 1
        return kept


@dataclass(slots=True)
class Ready:
    """One row ready to be stored. counted: it carries a judgement and is a row of the receipt; a pair alone is not."""

    file: str
    line: int
    source: str
    pair: Pair | None = None
    judgements: list[Judgement] = field(default_factory=list)
    comment: Comment | None = None
    subject: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    masked: Mapping[str, int] = field(default_factory=dict)
    counted: bool = True


def resolve_pair(file: str, line: int, draft: PairDraft, defaults: Defaults) -> Ready:
    """Masked pair and judgements. Raises Rejected where the replies are identical, before or after masking."""
    if draft.first == draft.second:
        raise Rejected("the two replies are identical")
    masked: Counter[str] = Counter()
    prompt = [Message(turn.role, _masked(turn.content, masked)) for turn in draft.prompt]
    first, second = _masked(draft.first, masked), _masked(draft.second, masked)
    if first == second:
        raise Rejected("the two replies are identical once personal data is replaced")
    pair = Pair.of(prompt, first, second)
    first_is_a = first == pair.reply_a
    judgements = [judgement_of(pair.id, first_is_a, vote, defaults, masked) for vote in draft.votes]
    source = judgements[0].source if judgements else defaults.source
    details = _with_gold_side(mask_in(draft.details, masked), first_is_a)
    subject = defaults.person(draft.subject, masked)
    return Ready(file, line, source, pair, judgements, None, subject, details, masked, bool(draft.votes))


def _with_gold_side(details: Mapping[str, Any], first_is_a: bool) -> Mapping[str, Any]:
    """An expert's `gold` as the source wrote it, a = its first reply, and as `gold_side` on the pair's own sides."""
    side = {"a": "a" if first_is_a else "b", "b": "b" if first_is_a else "a", "tie": "tie"}.get(
        str(details.get("gold"))
    )
    return details if side is None else {**details, "gold_side": side}


def judgement_of(pair_id: str, first_is_a: bool, vote: Vote, defaults: Defaults, masked: Counter[str]) -> Judgement:
    """The vote on the pair's own sides; consent is never wider than the import's."""
    consent = defaults.consent if vote.consent is None else tuple(s for s in defaults.consent if s in vote.consent)
    choice: Choice
    if vote.side == "first" or vote.side == "second":
        choice = "a" if (vote.side == "first") == first_is_a else "b"
    else:
        choice = vote.side
    return Judgement(
        pair_id=pair_id,
        choice=choice,
        source=defaults.source if defaults.source_given else vote.source or defaults.source,
        labeler=defaults.person(vote.labeler, masked),
        kind=vote.kind or defaults.kind,
        strength=vote.strength,
        seconds=vote.seconds,
        shown=None if vote.shown_first is None else "ab" if (vote.shown_first == "first") == first_is_a else "ba",
        note=_masked(vote.note, masked) if vote.note else None,
        reason=_masked(vote.reason, masked) if vote.reason else None,
        cohort=vote.cohort,
        submitted_at=vote.submitted_at,
        consent=consent,
    )


def resolve_rating(file: str, line: int, draft: Rating, defaults: Defaults) -> Ready:
    """Masked comment."""
    masked: Counter[str] = Counter()
    prompt = tuple(Message(turn.role, _masked(turn.content, masked)) for turn in draft.prompt)
    comment = Comment(
        prompt,
        _masked(draft.reply, masked),
        defaults.source,
        draft.signal,
        draft.value,
        defaults.person(draft.labeler, masked),
        _masked(draft.text, masked) if draft.text else None,
        defaults.consent,
        defaults.kind,
    )
    return Ready(file, line, defaults.source, comment=comment, masked=masked)


def _masked(text: str, counts: Counter[str]) -> str:
    clean, found = mask(text)
    if found:
        counts.update(found)
    return clean
