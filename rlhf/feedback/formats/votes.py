"""Pairs with one vote a row, in one file or in two that name a pair by `pair_id`.

One file: prompt, two replies (a and b, reply_a and reply_b, …), labeler, vote. Two files: one describes the pairs,
the other votes on them; their order doesn't matter, and pairs that nobody voted on are kept. `gold`, an expert's
verdict, is a detail of the pair and never a vote. A file of prompts and replies without votes gives pairs for the
labelers.

A debate's pair has no prompt, but `title` and `topic` ("ban-plastic-water-bottles_no-bad-for-the-economy", the stance
last): the prompt is then the sentence that a chat model would be asked, see `debate_prompt`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.feedback.drafts import Draft, KeyedVote, PairDraft, Rejected, Side
from rlhf.feedback.fields import details_of, filled, key_of, prompt_of, required, short
from rlhf.feedback.formats import Format
from rlhf.feedback.formats.trl import vote_of
from rlhf.records import Message

_REPLIES = (
    ("a", "b"),
    ("reply_a", "reply_b"),
    ("response_a", "response_b"),
    ("answer_a", "answer_b"),
    ("output_a", "output_b"),
    ("completion_a", "completion_b"),
    ("reply_1", "reply_2"),
    ("reply1", "reply2"),
    ("response_1", "response_2"),
    ("response1", "response2"),
    ("output_1", "output_2"),
    ("answer_1", "answer_2"),
)
_PROMPT = ("prompt", "instruction", "question")
_VOTE = ("vote", "choice", "preference", "winner")
_SIDES: dict[str, Side] = {
    "a": "first",
    "b": "second",
    "tie": "tie",
    "both_bad": "both_bad",
    "skip": "skip",
    "model_a": "first",
    "model_b": "second",
    "tie (bothbad)": "both_bad",
    "both bad": "both_bad",
}
_NUMBERED: dict[str, Side] = {"1": "first", "2": "second", "0": "tie"}  # only where the replies themselves are numbered
_DETAILS = ("pair_id", "topic", "title", "gold", "split", "margin")


class Votes(Format):
    name = "votes"
    summary = (
        "pairs with a vote per labeler: prompt, a, b, labeler, vote; or a file of pairs and a file of votes by pair_id"
    )
    rank = 30

    def sniff(self, record: Mapping[str, Any]) -> bool:
        if "pair_id" in record and key_of(record, _VOTE):
            return True
        return (
            _reply_names(record) is not None
            and any(key_of(record, names) for names in (_VOTE, ("pair_id",), _PROMPT))
            and "annotator1" not in record
        )

    def pairs_only(self, record: Mapping[str, Any]) -> bool:
        return _reply_names(record) is not None and key_of(record, _VOTE) is None

    def key(self, record: Mapping[str, Any]) -> str | None:
        try:
            return short(record, ("pair_id",), 1000)
        except Rejected:
            return None

    def read(self, record: Mapping[str, Any]) -> Draft:
        names, voted = _reply_names(record), key_of(record, _VOTE)
        key = short(record, ("pair_id",), 1000)
        if names is None:
            if key is None:
                raise Rejected("field 'pair_id' is missing" if "pair_id" not in record else "'pair_id' is empty")
            return KeyedVote(key, vote_of(record, side_of(*required(record, _VOTE), numbered=False)))
        first, second = (filled(name, record[name]) for name in names)
        details = details_of(record, _DETAILS)
        votes = (vote_of(record, side_of(voted, record[voted], numbered=names[0][-1] == "1")),) if voted else ()
        return PairDraft(
            _prompt(record),
            first,
            second,
            votes,
            subject=short(record, ("subject",)),
            details=details,
            key=key if not voted else None,
        )


def side_of(name: str, value: Any, *, numbered: bool) -> Side:
    """The side that a vote names; digits only where the replies are numbered, since 1 may be the first or the second
    of 0 and 1.
    """
    word = str(value).strip().lower() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    side = _SIDES.get(word) or (_NUMBERED.get(word) if numbered else None)
    if side is None:
        said = "null" if value is None else repr(value)[:60]
        raise Rejected(f"'{name}' is {said}, not {'1, 2, 0, ' if numbered else ''}a, b, tie, both_bad or skip")
    return side


def debate_prompt(title: str, topic: str) -> str:
    """'… on the topic "Ban Plastic Water Bottles". Stance: no, bad for the economy.' from the title and the topic's
    last part.
    """
    stance = topic.rpartition("_")[2].strip("-").replace("-", " ")
    for word in ("yes", "no"):
        if stance.startswith(word + " "):
            stance = f"{word}, {stance[len(word) + 1 :]}"
    ask = f'Give one convincing argument on the topic "{title.strip()}".'
    return f"{ask} Stance: {stance}." if stance else ask


def _prompt(record: Mapping[str, Any]) -> tuple[Message, ...]:
    name = key_of(record, _PROMPT)
    if name is not None:
        return prompt_of(name, record[name])
    title = filled(*required(record, ("title", "topic"))) if key_of(record, ("title", "topic")) else None
    if title is None:
        raise Rejected("field 'prompt' is missing")
    topic = record.get("topic")
    return (Message("user", debate_prompt(title, filled("topic", topic) if topic else "")),)


def _reply_names(record: Mapping[str, Any]) -> tuple[str, str] | None:
    return next((names for names in _REPLIES if names[0] in record and names[1] in record), None)


FORMAT = Votes()
