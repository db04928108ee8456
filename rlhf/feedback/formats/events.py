"""Event logs: a thumb, a rating or a remark on one reply a row (prompt, reply, user, and thumb, event, feedback,
rating or comment).

A thumb's value is +1 or -1. One labeler's thumb up and thumb down on two replies to one prompt become a pair; all
else stays a comment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.feedback.drafts import Rating, Rejected
from rlhf.feedback.fields import filled, key_of, note, number, prompt_of, required, short
from rlhf.feedback.formats import Format
from rlhf.feedback.formats.ratings import FORMAT as RATINGS
from rlhf.feedback.formats.ratings import LABELER, PROMPT, REPLY

_THUMB = ("thumb", "thumbs", "feedback", "event", "signal", "reaction", "value")
_TEXT = ("comment", "text", "note")
_UP = {"up", "thumb_up", "thumbs_up", "thumbsup", "like", "liked", "+1", "1", "1.0", "true", "👍", "good", "positive"}
_DOWN = {
    "down",
    "thumb_down",
    "thumbs_down",
    "thumbsdown",
    "dislike",
    "disliked",
    "-1",
    "-1.0",
    "0",
    "false",
    "👎",
    "bad",
    "negative",
}
_RATED = {"rating", "rate", "rated", "score", "stars"}
_SAID = {"comment", "text", "remark"}


class Events(Format):
    name = "events"
    summary = "a thumb, rating or remark on one reply a row: prompt, reply, user, thumb"
    rank = 70

    def sniff(self, record: Mapping[str, Any]) -> bool:
        return all(key_of(record, names) for names in (PROMPT, REPLY)) and key_of(record, (*_THUMB, *_TEXT)) is not None

    def read(self, record: Mapping[str, Any]) -> Rating:
        name = key_of(record, _THUMB)
        word = _word(record[name]) if name else ""
        if name and word in _RATED:
            return RATINGS.read({"rating" if key == "value" else key: value for key, value in record.items()})
        if name and word in {"thumb", "thumbs"} and "value" in record:
            name, word = "value", _word(record["value"])
        prompt, reply = prompt_of(*required(record, PROMPT)), filled(*required(record, REPLY))
        labeler, text = short(record, LABELER), note(record, _TEXT)
        if name is None or word in _SAID:
            if text is None:
                raise Rejected(
                    "no thumb, rating or comment in this row"
                    if name is None
                    else f"'{name}' is {word!r}, but 'comment' is missing or empty"
                )
            return Rating(prompt, reply, "text", None, labeler, text)
        if word not in _UP | _DOWN:
            if (value := _plain_number(record, name)) is not None:
                return Rating(prompt, reply, "rating", value, labeler, text)
            raise Rejected(f"'{name}' is {record[name]!r:.60}, not up, down or a rating")
        return Rating(prompt, reply, "thumb", 1.0 if word in _UP else -1.0, labeler, text)


def _word(value: Any) -> str:
    return str(value).strip().lower() if isinstance(value, str | int | float) else ""


def _plain_number(record: Mapping[str, Any], name: str) -> float | None:
    try:
        return number(record, (name,))
    except Rejected:
        return None


FORMAT = Events()
