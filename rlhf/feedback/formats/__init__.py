"""Formats: how raw records of the world's files become drafts. One small file each, found by the entry point group
`rlhf.formats`.

A new format is a subclass of `Format` with an instance named `FORMAT`; reading lines, line numbers, packing, masking,
storing and counting are done for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from itertools import islice
from typing import Any

from rlhf.errors import BadInput, BadUsage
from rlhf.feedback.drafts import Draft
from rlhf.feedback.fields import brief
from rlhf.feedback.rows import InputFile

_SAMPLE_GOOD, _SAMPLE_ALL = 20, 200


class Format(ABC):
    """name: what `--format` takes. summary: one line for people. rank: the most specific format sniffs first
    (lowest).
    """

    name = ""
    summary = ""
    rank = 50

    @abstractmethod
    def sniff(self, record: Mapping[str, Any]) -> bool:
        """Does this record look like this format?"""

    @abstractmethod
    def read(self, record: Mapping[str, Any]) -> Draft:
        """One record as a draft; raises Rejected with the reason."""

    def pairs_only(self, record: Mapping[str, Any]) -> bool:
        """True of a record that describes a pair and carries no judgement: its file is read before the files of
        votes.
        """
        return False

    def key(self, record: Mapping[str, Any]) -> str | None:
        """The id under which votes name this record's pair, even where the record is bad."""
        return None


def available() -> dict[str, Format]:
    """Every installed format that can be used, by name, most specific first."""
    return _installed()[0]


def broken() -> dict[str, str]:
    """Every installed format that can't be loaded, by its entry point's name, and why: it is passed over."""
    return _installed()[1]


@cache
def _installed() -> tuple[dict[str, Format], dict[str, str]]:
    found: list[Format] = []
    failed: dict[str, str] = {}
    for entry in entry_points(group="rlhf.formats"):
        try:
            format = entry.load()
        except Exception as error:  # somebody else's module: it may raise anything
            failed[entry.name] = " ".join(f"{entry.value} raises {type(error).__name__}: {error}".split())[:300]
            continue
        if isinstance(format, Format):
            found.append(format)
        else:
            failed[entry.name] = f"{entry.value} is no instance of rlhf.feedback.formats.Format"
    return {f.name: f for f in sorted(found, key=lambda f: (f.rank, f.name))}, failed


def named(name: str) -> Format:
    """The format of this name. Raises BadUsage naming those that there are."""
    if name not in available() and name in broken():
        raise BadUsage(
            f"the format '{name}' can't be used: {broken()[name]}",
            fix="mend or uninstall the package that brings it, or use another format",
        )
    if name not in available():
        raise BadUsage(
            f"there is no format '{name}'", fix=f"use one of {', '.join(available())}, or leave --format out"
        )
    return available()[name]


def detect(files: Sequence[InputFile]) -> Format:
    """The one format that most of each file's first records fit. Raises BadInput where none fits, or the files
    differ.
    """
    found = {file.name: _detect_one(file) for file in files}
    if len({f.name for f in found.values()}) > 1:
        raise BadInput(
            "the files differ: " + ", ".join(f"{name} is {f.name}" for name, f in found.items()),
            fix="import files of different formats in calls of their own",
        )
    return next(iter(found.values()))


def sample(file: InputFile) -> list[dict[str, Any]]:
    """The first good records of a file, at most 20."""
    return list(
        islice((row.record for row in islice(file.rows(), _SAMPLE_ALL) if row.record is not None), _SAMPLE_GOOD)
    )


def _detect_one(file: InputFile) -> Format:
    records = sample(file)
    if not records:
        bad = next(iter(file.rows()), None)
        said = f"{file.unit} {bad.line}: {bad.problem}" if bad else "it has no rows"
        raise BadInput(
            f"{file.name} holds no record that can be read; {said}",
            fix="give JSON lines, a JSON list or CSV with a header; --format reads a file whatever its first rows are",
        )
    scores = {f: sum(f.sniff(record) for record in records) for f in available().values()}
    best = max(scores, key=lambda f: scores[f])  # the first of equals: the most specific
    if scores[best] * 2 <= len(records):
        raise BadInput(
            f"{file.name} fits no format; its fields are {', '.join(map(brief, list(records[0])[:12]))}",
            fix="rename its fields, or name a format with --format: "
            + "; ".join(f"{f.name} ({f.summary})" for f in available().values()),
        )
    return best
