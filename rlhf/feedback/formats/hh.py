"""HH transcripts: `chosen` and `rejected` are whole conversations, "\\n\\nHuman: … \\n\\nAssistant: …", and the last
turn differs.

A turn begins at an empty line and a speaker's name alone, so "Human:" inside a sentence stays text. Turns are stripped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rlhf.feedback.drafts import PairDraft, Rejected, Vote
from rlhf.feedback.fields import filled, required
from rlhf.feedback.formats import Format
from rlhf.records import Message

_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):(?=\s|\Z)")
_ROLES = {"Human": "user", "Assistant": "assistant"}


class HH(Format):
    name = "hh"
    summary = "JSONL with chosen and rejected transcripts, Human: and Assistant: in turn"
    rank = 10

    def sniff(self, record: Mapping[str, Any]) -> bool:
        return "prompt" not in record and any(is_transcript(record.get(side)) for side in ("chosen", "rejected"))

    def read(self, record: Mapping[str, Any]) -> PairDraft:
        chosen = turns_of("chosen", filled(*required(record, ("chosen",))))
        rejected = turns_of("rejected", filled(*required(record, ("rejected",))))
        for name, turns in (("chosen", chosen), ("rejected", rejected)):
            if turns[-1].role != "assistant":
                raise Rejected(f"'{name}' ends with Human, not Assistant")
        if len(chosen) != len(rejected):
            raise Rejected(f"'chosen' has {len(chosen)} turns and 'rejected' {len(rejected)}: only the last may differ")
        for number, (one, other) in enumerate(zip(chosen[:-1], rejected[:-1], strict=True), 1):
            if one != other:
                raise Rejected(f"turn {number} differs between 'chosen' and 'rejected': only the last may differ")
        return PairDraft(chosen[:-1], chosen[-1].content, rejected[-1].content, (Vote("first"),))


def is_transcript(value: Any) -> bool:
    return isinstance(value, str) and value[:50].lstrip().startswith("Human:") and "\n\nAssistant:" in value


def turns_of(name: str, transcript: str, *, open_end: bool = False) -> tuple[Message, ...]:
    """The turns, Human first and in turn. open_end: the transcript is a prompt and ends in an empty "Assistant:"."""
    marks = list(_TURN.finditer(transcript))
    if not marks or marks[0].start() or marks[0].group(1) != "Human":
        raise Rejected(f"'{name}' is no transcript: it doesn't start with Human:")
    ends = [mark.start() for mark in marks[1:]] + [len(transcript)]
    turns = []
    for number, (mark, end) in enumerate(zip(marks, ends, strict=True), 1):
        speaker, text = mark.group(1), transcript[mark.end() : end].strip()
        if speaker != ("Human", "Assistant")[(number - 1) % 2]:
            raise Rejected(f"'{name}' has its roles out of order: turn {number} is {speaker} after {speaker}")
        if open_end and number == len(marks) and speaker == "Assistant" and not text:
            break
        if not text:
            raise Rejected(f"'{name}' turn {number} ({speaker}) is empty")
        turns.append(Message(_ROLES[speaker], text))
    return tuple(turns)


FORMAT = HH()
