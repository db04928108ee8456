"""Reports: published once, found by digest, opened with every byte checked.

A report's digest covers its figures and what they are figures of; the page beside it is a view. The page quotes texts
of pairs; the JSON holds none, so that figures outlive an erasure.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select

from rlhf.errors import BadInput, BadUsage, NotFound
from rlhf.ids import now_text
from rlhf.store import Workspace
from rlhf.store.tables import reports

JSON_FILE, HTML_FILE = "report.json", "report.html"
_MIN_HEX, _PATH_HEX, _TITLE_LENGTH = 6, 12, 300


@dataclass(frozen=True, slots=True)
class Report:
    """path: the HTML page on the local disk. figures: version name -> its figures. content: the whole of
    report.json."""

    digest: str
    path: Path
    figures: Mapping[str, Mapping[str, Any]]
    title: str
    content: Mapping[str, Any]

    @property
    def json_path(self) -> Path:
        return self.path.parent / JSON_FILE


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A report as it is listed."""

    digest: str
    kind: str
    title: str
    actor: str
    created_at: str

    def as_json(self) -> dict[str, str]:
        return {
            "digest": self.digest,
            "kind": self.kind,
            "title": self.title,
            "actor": self.actor,
            "created_at": self.created_at,
        }


def publish(workspace: Workspace, content: Mapping[str, Any], html: str) -> Report:
    """Publish report.json and report.html under the content's digest; one that is there already is returned as it
    is."""
    digest, title = content["digest"], content["title"][:_TITLE_LENGTH]
    path = f"reports/{digest[:_PATH_HEX]}"
    with workspace.artifacts.staging() as staging, workspace.write() as write:
        if write.connection.execute(select(reports.c.digest).where(reports.c.digest == digest)).first() is None:
            staged = staging / "report"
            staged.mkdir()
            (staged / JSON_FILE).write_text(
                json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n", "utf-8"
            )
            (staged / HTML_FILE).write_text(html, "utf-8")
            workspace.artifacts.publish(write.connection, staged, path)
            figures = {name: version["figures"] for name, version in content["versions"].items()}
            write.connection.execute(
                reports.insert().values(
                    digest=digest,
                    kind=content["kind"],
                    title=title,
                    path=path,
                    figures=json.dumps(figures, allow_nan=False),
                    actor=write.actor,
                    created_at=now_text(),
                )
            )
            versions = {name: version["digest"] for name, version in content["versions"].items()}
            write.audit(
                "report.publish",
                digest,
                {
                    "title": title,
                    "versions": versions,
                    **{what: data["digest"] for what, data in data_of(content).items()},
                },
            )
    return open_report(workspace, digest)


def open_report(workspace: Workspace, text: str) -> Report:
    """The report whose digest begins with `text` (6 or more hex digits, `sha256:` before it or not), each byte checked.

    Raises NotFound, BadInput where several begin so, BadUsage for what is no digest, Damaged where a file was changed.
    """
    row = _find(workspace, text)
    with workspace.read() as connection:
        folder = workspace.artifacts.open(connection, row.path)
    content = json.loads((folder / JSON_FILE).read_text("utf-8"))
    figures = {name: version["figures"] for name, version in content["versions"].items()}
    return Report(row.digest, folder / HTML_FILE, figures, row.title, content)


def list_reports(workspace: Workspace) -> tuple[ReportRow, ...]:
    """All reports, the newest first."""
    with workspace.read() as connection:
        rows = connection.execute(select(reports).order_by(reports.c.created_at.desc(), reports.c.digest)).all()
    return tuple(ReportRow(row.digest, row.kind, row.title, row.actor, row.created_at) for row in rows)


def check_out(out: Path) -> None:
    """Refuse a folder for copies that is a file: before the work, not after it."""
    if not out.exists() and out.suffix.lower() in (".html", ".json", ".md"):
        raise BadUsage(
            f"{out} looks like a file; wanted a folder for {JSON_FILE} and {HTML_FILE}",
            fix=f"name a folder: --out {out.with_suffix('')}",
        )
    if out.exists() and not out.is_dir():
        raise BadInput(
            f"{out} is a file; wanted a folder for {JSON_FILE} and {HTML_FILE}", fix="name a folder with --out"
        )


def copy(report: Report, out: Path) -> None:
    """Copies of both files in `out`, which is made where it is missing."""
    check_out(out)
    out.mkdir(parents=True, exist_ok=True)
    for file in (report.json_path, report.path):
        shutil.copyfile(file, out / file.name)


def data_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a report's figures are figures of: an evaluation's snapshot, a comparison's prompts and judge."""
    return {what: content[what] for what in ("snapshot", "prompts", "judge") if what in content}


def _find(workspace: Workspace, text: str) -> Row[Any]:
    digits = text.removeprefix("sha256:").lower()
    if len(digits) < _MIN_HEX or not set(digits) <= set("0123456789abcdef"):
        raise BadUsage(
            f"'{text}' is no report; wanted {_MIN_HEX} or more hex digits of its digest", fix="see: rlhf report list"
        )
    with workspace.read() as connection:
        rows = connection.execute(select(reports).where(reports.c.digest.startswith(digits)).limit(2)).all()
    if not rows:
        raise NotFound(f"there is no report {text}", fix="see: rlhf report list")
    if len(rows) > 1:
        raise BadInput(f"several reports begin with {text}", fix="give more digits of the digest")
    return rows[0]
