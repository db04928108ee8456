"""TRL preference rows: `chosen`, `rejected` and, unless it is implicit, `prompt`; each a text or a list of messages.

Implicit prompts are what both sides begin with: the longest common run of messages, or for plain texts the common
prefix cut back to a space (it may be empty). The columns labeler, source, kind, strength (1 to 3), consent, shown,
seconds, note, cohort, submitted_at are taken where they stand; `margin` and `split` are kept as details of the pair
and decide nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.feedback.drafts import PairDraft, Rejected, Side, Vote
from rlhf.feedback.fields import (
    check_order,
    consent_of,
    details_of,
    filled,
    messages_of,
    note,
    number,
    prompt_of,
    required,
    short,
    shown_of,
    unfolded,
)
from rlhf.feedback.formats import Format
from rlhf.feedback.formats.hh import FORMAT as HH
from rlhf.feedback.formats.hh import is_transcript, turns_of
from rlhf.records import KINDS, Message

_DETAILS = ("margin", "split", "id", "score_chosen", "score_rejected")


class TRL(Format):
    name = "trl"
    summary = "chosen and rejected, with a prompt or an implicit one; texts or lists of messages"
    rank = 20

    def sniff(self, record: Mapping[str, Any]) -> bool:
        return "chosen" in record and "rejected" in record

    def read(self, record: Mapping[str, Any]) -> PairDraft:
        chosen, rejected = (unfolded(required(record, (side,))[1]) for side in ("chosen", "rejected"))
        for side, value in (("chosen", chosen), ("rejected", rejected)):
            if not isinstance(value, str):
                messages_of(side, value)
        if isinstance(chosen, str) != isinstance(rejected, str):
            raise Rejected("'chosen' and 'rejected' are of different shapes: one is text, the other is not")
        given = record.get("prompt")
        if isinstance(chosen, str):
            prompt, first, second = _texts(given, filled("chosen", chosen), filled("rejected", rejected))
        else:
            prompt, first, second = _messages(given, messages_of("chosen", chosen), messages_of("rejected", rejected))
        details = details_of(record, _DETAILS)
        return PairDraft(
            prompt, first, second, (vote_of(record, "first"),), subject=short(record, ("subject",)), details=details
        )


def vote_of(record: Mapping[str, Any], side: Side) -> Vote:
    """The side, and what the row tells about who chose it and how."""
    strength, kind = record.get("strength"), record.get("kind")
    strong = number(record, ("strength",)) if isinstance(strength, int | float | str) else None
    return Vote(
        side,
        labeler=short(record, ("labeler", "annotator", "labeler_id", "annotator_id", "worker", "worker_id")),
        source=short(record, ("source",)) if isinstance(record.get("source"), str) else None,
        kind=kind if kind in KINDS else None,
        strength=int(strong) if strong in (1, 2, 3) else None,
        seconds=number(record, ("seconds", "duration"), least=0),
        shown_first=shown_of(record),
        note=note(record, ("note", "comment", "rationale")),
        reason=note(record, ("reason",)),
        cohort=short(record, ("cohort",)),
        submitted_at=short(record, ("submitted_at", "created_at", "timestamp"), 40),
        consent=consent_of(record),
    )


def _texts(given: Any, chosen: str, rejected: str) -> tuple[Sequence[Message], str, str]:
    if given is not None:
        if isinstance(given, str) and is_transcript(given) and given.rstrip().endswith("Assistant:"):
            return turns_of("prompt", given, open_end=True), chosen, rejected
        return prompt_of("prompt", given), chosen, rejected
    if is_transcript(chosen) and is_transcript(rejected):
        draft = HH.read({"chosen": chosen, "rejected": rejected})
        return draft.prompt, draft.first, draft.second
    if chosen == rejected:
        raise Rejected("the two replies are identical")
    cut = _common(chosen.rstrip(), rejected.rstrip())
    while cut and not chosen[cut - 1].isspace():
        cut -= 1
    prompt = chosen[:cut].strip()
    return ((Message("user", prompt),) if prompt else ()), chosen[cut:].lstrip(), rejected[cut:].lstrip()


def _messages(
    given: Any, chosen: tuple[Message, ...], rejected: tuple[Message, ...]
) -> tuple[Sequence[Message], str, str]:
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    prompt, replies = chosen[:shared], (chosen[shared:], rejected[shared:])
    if given is not None:
        explicit = prompt_of("prompt", given)
        # Some sets give the prompt twice: as text, and again as the opening of both conversations.
        if prompt and prompt[-len(explicit) :] != explicit:
            raise Rejected("'prompt' differs from what 'chosen' and 'rejected' begin with")
        prompt = prompt or explicit
    if not prompt:
        raise Rejected("there is no prompt: 'chosen' and 'rejected' begin with different messages")
    check_order("prompt", prompt)
    for name, reply in zip(("chosen", "rejected"), replies, strict=True):
        if len(reply) != 1 or reply[0].role != "assistant":
            roles = ", ".join(turn.role for turn in reply) or "nothing"
            raise Rejected(f"'{name}' has {roles} after the common prompt, where one assistant message is wanted")
    check_order("chosen", [*prompt, *replies[0]])
    return prompt, replies[0][0].content, replies[1][0].content


def _common(one: str, other: str) -> int:
    """Length of the common prefix, at most one short of the shorter text, by bisection."""
    low, high = 0, min(len(one), len(other)) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if one.startswith(other[:middle]):
            low = middle
        else:
            high = middle - 1
    return max(low, 0)


FORMAT = TRL()
