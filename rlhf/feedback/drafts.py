"""Drafts: what a format makes of one raw record, before anything is masked, named or stored.

A format speaks of the replies in its own order, `first` and `second`; which of them becomes `a` is decided by their
digests later, after personal data has been replaced. A record that can't be taken raises `Rejected` with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rlhf.records import Kind, Message

Side = Literal["first", "second", "tie", "both_bad", "skip"]


class Rejected(Exception):
    """This row is not taken; the text says what was seen and what was wanted."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One labeler's choice, in the source's own order of replies. What is None takes the import's value, or stays
    unknown.
    """

    side: Side
    labeler: str | None = None
    source: str | None = None
    kind: Kind | None = None
    strength: int | None = None
    seconds: float | None = None
    shown_first: Literal["first", "second"] | None = None
    note: str | None = None
    reason: str | None = None
    cohort: str | None = None
    submitted_at: str | None = None
    consent: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class PairDraft:
    """A prompt, two replies and the votes on them. key: the source's own id of the pair, which later votes may name."""

    prompt: Sequence[Message]
    first: str
    second: str
    votes: Sequence[Vote] = ()
    subject: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None


@dataclass(frozen=True, slots=True)
class KeyedVote:
    """A vote on a pair that another file of the same call describes."""

    key: str
    vote: Vote


@dataclass(frozen=True, slots=True)
class Rating:
    """One labeler's rating of one reply. signal: what was asked, such as `rating:1-5` or `thumb`; equal signals
    compare.

    value: on the signal's scale; a thumb is +1 or -1. Two ratings of one prompt by one labeler become a pair.
    """

    prompt: Sequence[Message]
    reply: str
    signal: str
    value: float | None
    labeler: str | None = None
    text: str | None = None


Draft = PairDraft | KeyedVote | Rating
