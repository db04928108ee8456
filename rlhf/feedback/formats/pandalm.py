"""PandaLM's layout: instruction, input, response1, response2 and any number of annotatorN (1 or 2 = that side, 0 =
tie).

One row is one item with several judgements; the labelers are called annotator1, annotator2, … An annotator who is
null or empty didn't judge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rlhf.feedback.drafts import PairDraft, Rejected, Side, Vote
from rlhf.feedback.fields import check_text, details_of, filled, required
from rlhf.feedback.formats import Format
from rlhf.records import Message

_ANNOTATOR = re.compile(r"annotator_?\d+")
_SIDES: dict[str, Side] = {"1": "first", "2": "second", "0": "tie"}


class PandaLM(Format):
    name = "pandalm"
    summary = "instruction, input, response1, response2, annotator1, annotator2, … (1, 2 = side, 0 = tie)"
    rank = 15

    def sniff(self, record: Mapping[str, Any]) -> bool:
        return "response1" in record and "response2" in record and any(map(_ANNOTATOR.fullmatch, record))

    def read(self, record: Mapping[str, Any]) -> PairDraft:
        name, given = required(record, ("instruction", "prompt"))
        extra = record.get("input")
        parts = [
            text
            for text in (check_text(name, given), check_text("input", extra) if extra is not None else "")
            if text.strip()
        ]
        instruction = filled(name, "\n\n".join(parts))
        first, second = (filled(*required(record, (name,))) for name in ("response1", "response2"))
        votes = [
            Vote(_side(name, value), labeler=name)
            for name, value in record.items()
            if _ANNOTATOR.fullmatch(name) and value is not None and value != ""
        ]
        if not votes:
            raise Rejected("no annotator judged this pair: fields 'annotator1', … are missing or empty")
        details = details_of(record, ("idx", "cmp_key"))
        return PairDraft((Message("user", instruction),), first, second, votes, details=details)


def _side(name: str, value: Any) -> Side:
    side = _SIDES.get(str(value).strip()) if not isinstance(value, bool) else None
    if side is None:
        raise Rejected(f"'{name}' is {value!r:.60}, not 0, 1 or 2")
    return side


FORMAT = PandaLM()
