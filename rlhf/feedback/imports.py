"""Imports: files in, a receipt out. The main road of the room.

A source is named by the user, else by the content: the same content as an earlier import's takes that import's
source, so a renamed copy adds nothing; else by the first judgement file's name without its endings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, select

from rlhf.errors import BadInput, BadUsage, Interrupted, NotFound
from rlhf.feedback import formats, person_names
from rlhf.feedback.consent import scopes
from rlhf.feedback.drafts import Rejected
from rlhf.feedback.hub import HUB, open_hub
from rlhf.feedback.intake import ERRORS_IN_RECEIPT, Intake
from rlhf.feedback.resolve import Defaults
from rlhf.feedback.rows import Row, open_input
from rlhf.ids import digest_of, new_id, now_text
from rlhf.records import KINDS, Kind, Receipt, RejectedRow
from rlhf.store import Workspace, room
from rlhf.store.tables import imports, rejected_rows

_STORED = 2  # bytes in SQLite for one that is read, unpacked: 1.8 measured on HH
_ENDINGS = {".gz", ".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet", ".txt"}


class Input(Protocol):
    """A file or a hub data set: what is read row by row."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def n_bytes(self) -> int: ...
    def rows(self) -> Iterable[Row]: ...


class Refused(BadInput):
    """`strict` met a bad row: nothing was stored but the receipt."""

    def __init__(self, receipt: Receipt, n_bad: int) -> None:
        first = receipt.errors[0]
        more = f" (and {n_bad - 1:,} more bad rows)" if n_bad > 1 else ""
        super().__init__(
            f"refused: {receipt.place_of(first)}: {first.reason}{more}",
            fix="mend the rows, or import without --strict: the good rows go in and the bad ones are listed",
        )
        self.receipt = receipt

    def as_json(self) -> dict[str, Any]:
        return {**super().as_json(), **self.receipt.as_json()}


def import_files(
    workspace: Workspace,
    paths: Sequence[str | Path],
    *,
    format: str | None = None,
    source: str | None = None,
    consent: Sequence[str] = ("train", "evaluate"),
    kind: Kind = "human",
    strict: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> Receipt:
    """Import feedback files, or `hub:owner/name[@revision][:split]`, and account for every row.

    Files that belong together (pairs and votes on them) are one call, in any order. on_progress is told the rows so
    far after each batch. Raises BadInput on a file that can't be read or fits no format, Refused (strict) on any bad
    row, BadUsage on a wrong word, NoRoom, Interrupted after Ctrl-C: what was in stays in, and the same call again counts it
    as duplicates.
    """
    allowed = scopes(consent)
    if kind not in KINDS:
        raise BadUsage(f"'{kind}' is no kind of judgement", fix=f"use one of {', '.join(KINDS)}")
    person_names.check()
    files = _opened(paths, format)
    form = formats.named(format) if format else formats.detect(files)
    described = [file for file in files if any(form.pairs_only(record) for record in formats.sample(file)[:1])]
    voted = [file for file in files if file not in described]
    earlier = source is None and _earlier_source(workspace, files)
    named = _checked(source) if source is not None else earlier or _source_of(voted or files)
    defaults = Defaults(named, source is not None, kind, allowed, workspace.key)
    if workspace.database.is_sqlite:
        room.require(workspace, _STORED * sum(file.n_bytes for file in files), "this import")
    import_id = _begin(workspace, files, form.name, defaults)
    units = {file.name: file.unit for file in files if file.unit != "line"}
    receipt = Receipt(import_id, named, tuple(file.name for file in files), form.name, 0, 0, 0, 0, (), units=units)
    if strict:
        trial = Intake(workspace, import_id, defaults, units=units, trial=True)
        _read_all(trial, form, described, voted)
        trial.flush()
        if trial.errors:
            n_bad = trial.counts["rejected"] + trial.counts["pair_errors"]
            trial.refuse()
            raise Refused(_filled(receipt, trial, "refused"), n_bad)
    intake = Intake(workspace, import_id, defaults, units=units, on_progress=on_progress)
    try:
        _read_all(intake, form, described, voted)
        intake.flush("done")
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted after {intake.counts['rows']:,} rows: {intake.counts['accepted']:,} are in",
            fix="run the same import again: what is in counts as duplicate",
        ) from None
    return _filled(receipt, intake, "done")


def receipts(workspace: Workspace, *, id: str | None = None, errors: int = 20) -> list[Receipt]:
    """The receipts of all imports, newest first, or of the one whose id begins with `id`; at most `errors` bad rows
    each.
    """
    query = select(imports).order_by(imports.c.created_at.desc(), imports.c.id.desc())
    if id is not None:
        query = query.where(imports.c.id.startswith(id, autoescape=True))
    with workspace.read() as connection:
        rows = connection.execute(query).all()
        if id is not None and len(rows) != 1:
            raise NotFound(f"{len(rows)} imports have an id that begins with '{id}'", fix="see: rlhf feedback receipts")
        found = []
        for row in rows:
            bad = connection.execute(
                select(rejected_rows)
                .where(rejected_rows.c.import_id == row.id)
                .order_by(rejected_rows.c.file, rejected_rows.c.line)
                .limit(errors)
            )
            details, files = json.loads(row.details), json.loads(row.files)
            found.append(
                Receipt(
                    row.id,
                    row.source,
                    tuple(file["name"] for file in files),
                    row.format,
                    row.rows,
                    row.accepted,
                    row.duplicates,
                    row.rejected,
                    tuple(RejectedRow(b.file, b.line, b.reason) for b in bad),
                    state=row.state,
                    imported_as=_completed_by(connection, row) if row.state == "open" else None,
                    units={file["name"]: file["unit"] for file in files if "unit" in file},
                    **details,
                )
            )
    return found


def _completed_by(connection: Connection, cut_short: Any) -> str | None:
    """The first later import that took the same content, under the same source, to its end."""
    query = (
        select(imports.c.id)
        .where(imports.c.content == cut_short.content, imports.c.source == cut_short.source)
        .where(imports.c.state == "done", imports.c.created_at >= cut_short.created_at)
        .order_by(imports.c.created_at, imports.c.id)
    )
    return connection.scalars(query.limit(1)).first()


def _read_all(intake: Intake, form: formats.Format, described: Sequence[Input], voted: Sequence[Input]) -> None:
    """Files of pairs first, so that votes find them."""
    try:
        for file in [*described, *voted]:
            pairs_only = file in described
            for row in file.rows():
                if row.record is None:
                    intake.reject(file.name, row.line, row.problem, counted=not pairs_only)
                    continue
                try:
                    draft = form.read(row.record)
                except Rejected as verdict:
                    intake.reject(
                        file.name,
                        row.line,
                        str(verdict),
                        form.key(row.record) if pairs_only else None,
                        counted=not pairs_only,
                    )
                    continue
                intake.take(file.name, row.line, draft)
    finally:
        intake.keys.close()


def _opened(paths: Sequence[str | Path], format: str | None) -> list[Any]:
    if isinstance(paths, str | Path):
        paths = [paths]
    names = [str(path).encode("utf-8", "replace").decode() for path in paths]
    if not names:
        raise BadUsage("no file to import", fix="name a file, for instance: rlhf feedback import votes.jsonl")
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadUsage(f"{twice[0]} is named twice", fix="name each file once")
    return [
        open_hub(str(path)) if name.startswith(HUB) else open_input(str(path))
        for name, path in zip(names, paths, strict=True)
    ]


def _begin(workspace: Workspace, files: Sequence[Input], form: str, defaults: Defaults) -> str:
    """The import's row, open: whatever happens next, there is a trace of it."""
    import_id = new_id()
    listed = [
        {"name": file.name, "sha256": file.sha256, "bytes": file.n_bytes}
        | ({"unit": file.unit} if file.unit != "line" else {})
        for file in files
    ]
    with workspace.write() as write:
        write.connection.execute(
            imports.insert().values(
                id=import_id,
                source=defaults.source,
                files=json.dumps(listed, ensure_ascii=False),
                content=_content(files),
                format=form,
                rows=0,
                accepted=0,
                duplicates=0,
                rejected=0,
                details="{}",
                state="open",
                actor=write.actor,
                created_at=now_text(),
            )
        )
        write.audit(
            "feedback.import.open",
            import_id,
            {
                "source": defaults.source,
                "format": form,
                "files": listed,
                "consent": list(defaults.consent),
                "kind": defaults.kind,
            },
        )
    return import_id


def _content(files: Iterable[Input]) -> str:
    return digest_of(sorted(file.sha256 for file in files))


def _earlier_source(workspace: Workspace, files: Sequence[Input]) -> str | None:
    """The source of the first import that held all of these contents, under whatever names."""
    wanted = {file.sha256 for file in files}
    query = (
        select(imports.c.source, imports.c.files)
        .where(imports.c.state != "refused")
        .order_by(imports.c.created_at, imports.c.id)
    )
    with workspace.read() as connection:
        for row in connection.execute(query):
            if wanted <= {file["sha256"] for file in json.loads(row.files)}:
                return str(row.source)
    return None


def _source_of(files: Sequence[Input]) -> str:
    name = files[0].name
    if name.startswith(HUB):
        return name[:200]
    path = Path(name)
    while path.suffix.lower() in _ENDINGS:
        path = path.with_suffix("")
    return path.name[:200]


def _checked(source: str) -> str:
    if not source.strip() or len(source) > 200 or not source.isprintable():
        raise BadUsage(f"'{source[:60]}' can't name a source", fix="use 1 to 200 printable characters")
    return source


def _filled(receipt: Receipt, intake: Intake, state: str) -> Receipt:
    counts = intake.counts
    return replace(
        receipt,
        rows=counts["rows"],
        accepted=counts["accepted"],
        duplicates=counts["duplicates"],
        rejected=counts["rejected"],
        errors=tuple(intake.errors[:ERRORS_IN_RECEIPT]),
        pairs=counts["pairs"],
        comments=counts["comments"],
        masked=dict(sorted(intake.masked.items())),
        judgements=counts["judgements"],
        pair_errors=counts["pair_errors"],
        pairs_merged=counts["pairs_merged"],
        unjudged=counts["unjudged"],
        state=state,
    )
