"""Files become a suite, and every row is accounted for: accepted + duplicates + rejected = rows.

Personal data is masked as at the feedback door, so that a pair has the id that it has there and an overlap is seen; what was
erased is refused; nothing goes into the store's pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from rlhf.errors import BadInput, BadUsage
from rlhf.feedback import person_names, tombstones
from rlhf.feedback.anonymise import mask
from rlhf.feedback.drafts import PairDraft, Rejected
from rlhf.feedback.resolve import Defaults, Ready, resolve_pair
from rlhf.feedback.rows import InputFile, open_input
from rlhf.records import Judgement, Message, Pair, RejectedRow
from rlhf.snapshots.cutting import n_tombstones
from rlhf.snapshots.names import check_name
from rlhf.store import Workspace
from rlhf.suites.formats import Entry, Name, detect, entries
from rlhf.suites.freezing import freeze
from rlhf.suites.opening import Suite
from rlhf.suites.rows import SuiteRow, row_of

FORMATS: tuple[Name, ...] = get_args(Name)
_ERRORS = 20  # bad rows named in the answer; all are counted
_LOOKED_AT = 200


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of every row of the files. again: accepted rows whose pairs or prompts were all there by then, and to which they
    brought another stratum, style, tag or verdict."""

    suite: Suite
    format: str
    rows: int
    accepted: int
    duplicates: int
    rejected: int
    again: int
    errors: tuple[RejectedRow, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            **self.suite.entry.as_json(),
            "strata": dict(self.suite.strata),
            "format": self.format,
            "rows": self.rows,
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "rejected": self.rejected,
            "again": self.again,
            "errors": [error.as_json() for error in self.errors],
        }


@dataclass
class Gathered:
    """Rows by pair while files are read; a pair that comes again brings its verdict, strata and tags to the row."""

    pairs: dict[str, Pair] = field(default_factory=dict)
    judgements: dict[str, dict[str, Judgement]] = field(default_factory=dict)
    named: dict[str, tuple[set[str], set[str], set[str]]] = field(default_factory=dict)  # sources, strata, styles
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    templates: dict[str, str] = field(default_factory=dict)
    subjects: dict[str, str] = field(default_factory=dict)

    def check(self, ready: Ready, entry: Entry) -> None:
        """Raises Rejected where the pair was there with another value of a tag."""
        assert ready.pair is not None
        before = self.tags.get(ready.pair.id, {})
        for name, value in entry.tags:
            if before.get(name, value) != value:
                raise Rejected(f"its tag {name} is '{value}', and the same pair stood before with '{before[name]}'")

    def add(self, ready: Ready, entry: Entry) -> Literal["new", "again", ""]:
        """Whether the row is new, or says something of one that was there; else nothing."""
        assert ready.pair is not None
        pair_id = ready.pair.id
        is_new = pair_id not in self.pairs
        self.pairs[pair_id] = ready.pair
        said = self.judgements.setdefault(pair_id, {})
        sources, strata, styles = self.named.setdefault(pair_id, (set(), set(), set()))
        tags = self.tags.setdefault(pair_id, {})
        before = len(said) + len(strata) + len(styles) + len(tags)
        said.update((j.digest, j) for j in ready.judgements)
        sources.update(j.source for j in ready.judgements)
        strata.update(entry.strata)
        styles.update(entry.styles)
        tags.update(entry.tags)
        self.templates[pair_id] = entry.template
        if ready.subject:
            self.subjects[pair_id] = ready.subject
        if is_new:
            return "new"
        return "again" if len(said) + len(strata) + len(styles) + len(tags) > before else ""

    def rows(self) -> Iterable[SuiteRow]:
        for pair_id, pair in self.pairs.items():
            sources, strata, styles = self.named[pair_id]
            yield row_of(
                pair,
                self.judgements[pair_id].values(),
                sources=sources,
                strata=strata,
                styles=styles,
                subject=self.subjects.get(pair_id, ""),
                tags=self.tags[pair_id].items(),
                template=self.templates[pair_id],
            )


def import_files(
    workspace: Workspace, name: str, paths: Sequence[str | Path], *, format: str | None = None, held_out: bool = True
) -> Imported:
    """Freeze the rows of JSON lines, a JSON list, CSV or Parquet as the next `name@N`. format: None = by the first row.

    held_out: no version that was trained on a row may be measured on the suite. Raises BadUsage (name, format), BadInput on a file
    that can't be read or where no row was accepted.
    """
    check_name(name, "suite")
    if format is not None and format not in FORMATS:
        raise BadUsage(f"a suite has no format '{format}'", fix=f"use one of {', '.join(FORMATS)}, or leave it out")
    if not paths:
        raise BadUsage(
            "no file to import", fix=f"name a file, for instance: rlhf suite import {name} rewardbench.jsonl"
        )
    person_names.check()
    files = [open_input(str(path)) for path in paths]
    form = next((known for known in FORMATS if known == format), None) or _detected(files)
    with workspace.read() as connection:
        erased_before = n_tombstones(connection)
    gathered, counts, errors = Gathered(), dict.fromkeys(("rows", "accepted", "duplicates", "rejected", "again"), 0), []
    for file in files:
        for line, reason in _read(workspace, file, form, gathered, counts):
            errors.append(RejectedRow(file.name, line, reason))
    if not gathered.pairs:
        first = errors[0] if errors else RejectedRow(files[0].name, 1, "there are no rows")
        raise BadInput(
            f"no row of {', '.join(file.name for file in files)} was accepted as {form}; {first.file} line {first.line}: "
            f"{first.reason}",
            fix=f"mend the rows, or name another --format: {', '.join(FORMATS)}",
        )
    origin = {"format": form, "files": [{"name": Path(file.name).name, "sha256": file.sha256} for file in files]}
    left_out = {"rejected_rows": counts["rejected"], "duplicate_rows": counts["duplicates"]}
    suite = freeze(
        workspace,
        name,
        gathered.rows(),
        held_out=held_out,
        origin=origin,
        left_out=left_out,
        erased_before=erased_before,
    )
    return Imported(suite, form, **counts, errors=tuple(errors[:_ERRORS]))


def _detected(files: Sequence[InputFile]) -> Name:
    first = next((row.record for file in files for row in islice(file.rows(), _LOOKED_AT) if row.record), None)
    return "jsonl" if first is None else detect(first)


def _read(
    workspace: Workspace, file: InputFile, form: Name, gathered: Gathered, counts: dict[str, int]
) -> Iterable[tuple[int, str]]:
    """Take the file's rows in; gives line and reason of those that are not taken."""
    defaults = Defaults(form, False, "human", ("evaluate",), workspace.key)
    for row in file.rows():
        counts["rows"] += 1
        try:
            if row.record is None:
                raise Rejected(row.problem)
            found = [(entry, made_ready(file.name, row.line, entry, defaults)) for entry in entries(row.record, form)]
            require_unburied(workspace, [ready for _, ready in found])
            for entry, ready in found:
                gathered.check(ready, entry)
        except Rejected as verdict:
            counts["rejected"] += 1
            yield row.line, str(verdict)
            continue
        news = {gathered.add(ready, entry) for entry, ready in found}
        counts["accepted" if any(news) else "duplicates"] += 1
        counts["again"] += "again" in news and "new" not in news


def made_ready(file: str, line: int, entry: Entry, defaults: Defaults) -> Ready:
    """Masked and named. Raises Rejected without a verdict that may be used, and as `feedback.resolve` does."""
    draft: PairDraft = entry.draft
    if draft.first or draft.second:
        ready = resolve_pair(file, line, draft, defaults)
        if not any("evaluate" in j.consent and j.choice != "skip" for j in ready.judgements):
            raise Rejected("it carries no verdict whose consent covers evaluation")
        return ready
    turns = [Message(turn.role, mask(turn.content)[0]) for turn in draft.prompt]
    subject = defaults.person(draft.subject, Counter())
    return Ready(file, line, defaults.source, Pair.of(turns, "", ""), subject=subject)


def require_unburied(workspace: Workspace, found: Sequence[Ready]) -> None:
    """Raises Rejected where a pair, or a person of it, was erased."""
    things = set()
    for ready in found:
        if ready.pair is not None:
            things.add(("pair", ready.pair.id, ""))
        if ready.subject:
            things.add(("subject", ready.subject, ""))
        for j in ready.judgements:
            if j.labeler:
                things |= {("labeler", j.labeler, j.source), tombstones.vote(j.pair_id, j.labeler)}
    with workspace.read() as connection:
        if tombstones.buried(connection, workspace.key, things):
            raise Rejected("erased: this person or pair was erased and is not taken back")
