"""A first guess of a comment's kind, by words that anybody can read below. It decides nothing: the item is `new` until a person
has looked, and says which rule it was. English alone; a comment in another language is a preference until somebody reads it.

A safety item holds pairs, so the first rule is the widest: a false alarm costs an expert a look.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rlhf.board.items import ItemKind


@dataclass(frozen=True, slots=True)
class Rule:
    """The first rule whose words are in the comment names the kind."""

    name: str
    kind: ItemKind
    words: re.Pattern[str]


def _any(*words: str) -> re.Pattern[str]:
    return re.compile(rf"(?i)\b(?:{'|'.join(words)})\b")


RULES = (
    Rule(
        "safety words",
        "safety",
        _any(
            "suicid\\w*", "self[- ]harm\\w*", "kill (?:my|your|him|her|them)sel\\w+", "bombs?", "explosives?", "weapons?",
            "poison\\w*",
            "overdos\\w*", "abus(?:e|ed|ive)", "racis[mt]\\w*", "sexis[mt]\\w*", "hate speech", "slurs?", "threat\\w*", "dangerous",
            "unsafe", "harmful", "illegal", "medical advice", "private data", "personal data", "doxx?\\w*",
        ),
    ),
    Rule(
        "bug words",
        "bug",
        _any(
            "bugs?", "crash\\w*", "broken", "does ?n[o']t work", "not working", "error messages?", "cut off", "truncated",
            "garbled", "blank page", "repeats? itself",
        ),
    ),
    Rule(
        "feature words",
        "feature",
        _any(
            "feature requests?", "please add", "would be (?:nice|great|good) (?:if|to)", "i wish", "should be able to",
            "could you (?:add|support)", "missing feature",
        ),
    ),
)  # fmt: skip
OTHERWISE = Rule("no other rule's words", "preference", re.compile(""))


def guess(text: str) -> Rule:
    """The first rule that fits; the last one fits everything."""
    return next((rule for rule in (*RULES, OTHERWISE) if rule.words.search(text)), OTHERWISE)
