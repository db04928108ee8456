"""Ratings and Likert surveys: one labeler's rating of one reply a row (prompt, reply, rating, labeler; scale).

A rating is a number, or one of the five words of a Likert scale (strongly disagree … strongly agree = 1 … 5). `scale`
is `5`, `1-5` or `1-7`: a rating outside it is rejected, and only ratings on one scale are compared. What becomes of
two ratings of one prompt by one labeler stands in `rlhf.feedback.rated`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rlhf.feedback.drafts import Rating, Rejected
from rlhf.feedback.fields import filled, key_of, note, number, prompt_of, required, short
from rlhf.feedback.formats import Format

PROMPT = ("prompt", "instruction", "question", "messages")
REPLY = ("reply", "response", "answer", "completion", "output")
LABELER = (
    "labeler",
    "labeler_id",
    "annotator",
    "annotator_id",
    "rater",
    "respondent",
    "user",
    "user_id",
    "worker",
    "worker_id",
)
_VALUE = ("rating", "score", "likert", "stars")
_LIKERT = {
    "strongly disagree": 1.0,
    "disagree": 2.0,
    "neither agree nor disagree": 3.0,
    "neutral": 3.0,
    "agree": 4.0,
    "strongly agree": 5.0,
}
_SCALE = re.compile(r"(?:(-?\d+)\s*(?:-|\.\.|to)\s*)?(-?\d+)")


class Ratings(Format):
    name = "ratings"
    summary = "one rating of one reply a row: prompt, reply, rating, labeler; scale optional"
    rank = 60

    def sniff(self, record: Mapping[str, Any]) -> bool:
        return all(key_of(record, names) for names in (PROMPT, REPLY, _VALUE))

    def read(self, record: Mapping[str, Any]) -> Rating:
        prompt = prompt_of(*required(record, PROMPT))
        reply = filled(*required(record, REPLY))
        name, raw = required(record, _VALUE)
        word = raw.strip().lower() if isinstance(raw, str) else ""
        low, high = (1.0, 5.0) if word in _LIKERT else scale_of(record)
        value = _LIKERT[word] if word in _LIKERT else number(record, (name,))
        if value is None:
            raise Rejected(f"'{name}' is empty")
        if low is not None and high is not None and not low <= value <= high:
            raise Rejected(f"'{name}' is {value:g}, outside the scale {low:g} to {high:g}")
        signal = "rating" if low is None else f"rating:{low:g}-{high:g}"
        return Rating(prompt, reply, signal, value, short(record, LABELER), note(record, ("comment", "note", "text")))


def scale_of(record: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Lowest and highest rating; a lone number is the highest, from 1. (None, None) where the row names no scale."""
    text = short(record, ("scale",), 20)
    if text is None:
        return None, None
    found = _SCALE.fullmatch(text)
    low, high = (float(found.group(1) or 1), float(found.group(2))) if found else (0.0, 0.0)
    if not low < high:
        raise Rejected(f"'scale' is {text!r}, not a range such as 1-5")
    return low, high


FORMAT = Ratings()
