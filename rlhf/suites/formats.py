"""What a line of a suite's file is: pairs with their strata, tags and style cells, or a prompt alone.

A tag is an attribute with a value, `{"dialect": "AAE", "topic": "health"}`: whom or what a row is of, which fairness is told by.

RM-Bench (Liu et al. 2025, ICLR): three chosen and three rejected replies, each concise, detailed, detailed with Markdown. Their
nine pairs are a matrix: on its diagonal both are of one style (normal), below it the chosen reply is the fancier (easy), above it
the rejected one is (hard).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rlhf.feedback import formats
from rlhf.feedback.drafts import PairDraft, Rejected
from rlhf.feedback.fields import brief, json_kind, prompt_of, required, short
from rlhf.feedback.formats.trl import FORMAT as TRL

Name = Literal["jsonl", "rewardbench", "rmbench"]
STYLES = ("concise", "detailed", "markdown")
_STRATUM = ("stratum", "subset", "domain")


@dataclass(frozen=True, slots=True)
class Entry:
    """A draft, masked by nobody yet. An entry whose replies are empty is a prompt alone. template: see `rows.SuiteRow`."""

    draft: PairDraft
    strata: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    template: str = ""


def detect(record: Mapping[str, Any]) -> Name:
    """The format that a file's first record looks like."""
    if isinstance(record.get("chosen"), list) and all(isinstance(text, str) for text in record["chosen"]):
        return "rmbench"
    return "rewardbench" if {"prompt", "chosen", "rejected", "subset"} <= record.keys() else "jsonl"


def entries(record: Mapping[str, Any], form: Name) -> Iterator[Entry]:
    """The record's entries. Raises Rejected with the reason."""
    if form == "rmbench":
        yield from _style_matrix(record)
        return
    strata = tuple(found for name in _STRATUM if (found := short(record, (name,))))
    tags = tags_of(record)
    if form == "rewardbench":
        missing = [name for name in ("prompt", "chosen", "rejected", "subset") if record.get(name) in (None, "")]
        if missing:
            raise Rejected(f"field '{missing[0]}' is missing")
    elif "prompt" in record and not {"chosen", "rejected"} & record.keys() and len(record.keys() & _REPLIES) == 0:
        draft = PairDraft(prompt_of("prompt", record["prompt"]), "", "", subject=short(record, ("subject",)))
        yield Entry(draft, strata, tags=tags)
        return
    yield Entry(_pair(record), strata, tags=tags)


def tags_of(record: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Attribute and value of each of the record's `tags`, in order of the attributes; an object, in a CSV's cell its JSON. Raises
    Rejected."""
    said = record.get("tags")
    if isinstance(said, str) and said.startswith("{"):
        try:
            said = json.loads(said)
        except ValueError:
            raise Rejected(f"'tags' is no JSON: {brief(said)}") from None
    if said is None or said == "":
        return ()
    if not isinstance(said, Mapping):
        wanted = '{"dialect": "AAE", "topic": "health"}'
        raise Rejected(f"'tags' is {json_kind(said)}; wanted an object of attributes and values, such as {wanted}")
    found = {}
    for name in said:
        attribute = short({"name": name}, ("name",))
        if attribute is None or attribute in RESERVED or any(mark in attribute for mark in RESERVED_MARKS):
            raise Rejected(f"'tags' has the attribute {brief(name)}; wanted a name of your own without {_MARKS_SAID}")
        if value := short(said, (name,)):
            found[attribute] = value
    return tuple(sorted(found.items()))


RESERVED = ("cohort", "stratum")  # what reports call groups of labelers, and a suite's own strata
RESERVED_MARKS = ("/", "×")  # between the parts of a template's name, and of an intersection's
_MARKS_SAID = f"{' or '.join(RESERVED_MARKS)}, and not {' or '.join(RESERVED)}"
_REPLIES = {"a", "b", "response1", "response2", "reply", "response", "completion", "replies", "responses"}


def _pair(record: Mapping[str, Any]) -> PairDraft:
    """By whichever of the feedback formats fits; a verdict must be in the line itself."""
    fits = next((form for form in formats.available().values() if form.sniff(record)), None)
    if fits is None:
        raise Rejected("it is neither a prompt nor a pair: 'prompt', 'chosen' and 'rejected' are wanted")
    draft = fits.read(record)
    if not isinstance(draft, PairDraft) or not draft.votes:
        raise Rejected(
            f"it reads as {fits.name} without a verdict in the line: import it as feedback, cut a snapshot, and a suite from that"
        )
    return draft


def _style_matrix(record: Mapping[str, Any]) -> Iterator[Entry]:
    sides = {}
    for side in ("chosen", "rejected"):
        texts = record.get(side)
        if not isinstance(texts, list) or len(texts) != len(STYLES):
            seen = f"{len(texts)} texts" if isinstance(texts, list) else json_kind(texts)
            raise Rejected(f"'{side}' is {seen}; wanted {len(STYLES)} texts ({', '.join(STYLES)})")
        sides[side] = texts
    _, prompt = required(record, ("prompt",))
    domain, tags = short(record, ("domain", "subset", "stratum")), tags_of(record)
    for i, chosen in enumerate(sides["chosen"]):
        for j, rejected in enumerate(sides["rejected"]):
            plain = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "subject": record.get("subject")}
            draft = TRL.read(plain)
            level = "normal" if i == j else "easy" if i > j else "hard"
            yield Entry(draft, (level, *((domain,) if domain else ())), (f"{i}>{j}",), tags)
