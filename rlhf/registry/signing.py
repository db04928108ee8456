"""Sign-offs: a person in a role names a version and the report they read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from rlhf.errors import BadInput, BadUsage, Forbidden, NotFound
from rlhf.ids import new_id, now_text
from rlhf.records import VersionRef
from rlhf.registry.versions import MIN_HEX, open_version
from rlhf.store import Workspace
from rlhf.store.tables import reports, signoffs

ROLE = re.compile(r"[A-Za-z][A-Za-z0-9 _-]{0,39}")
_REPORT = re.compile(r"(sha256:)?[0-9a-fA-F]{12,64}")
_REPORT_FILE = "report.json"


@dataclass(frozen=True, slots=True)
class SignOff:
    """Who signed which version on the strength of which report, and in what role."""

    id: str
    version_digest: str
    report_digest: str
    role: str
    who: str
    at: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def sign(workspace: Workspace, version: str, report: str, role: str) -> SignOff:
    """Sign a version. report: a stored report's digest or 12 or more digits of it. Signing the same again changes
    nothing.

    Every byte of both is checked first. Raises NotFound for an unknown version or report, BadInput for a report that
    doesn't measure the version, BadUsage for a role that is no word, Damaged where a file of either has changed, Forbidden for who
    trained it: a sign-off takes four eyes.
    """
    if not ROLE.fullmatch(role):
        raise BadUsage(f"'{role}' is no role", fix="name one in up to 40 letters, for instance --as evaluator")
    if not _REPORT.fullmatch(report):
        raise BadUsage(
            f"'{report}' is no report: wanted its digest, {MIN_HEX} hex digits or more", fix="see: rlhf report show"
        )
    opened = open_version(workspace, version)  # both before the lock: their files may be large
    ref = opened.ref
    with workspace.read() as connection:
        found = _report(connection, report)
        folder = workspace.artifacts.open(connection, found.path)
    _require_measured(json.loads((folder / _REPORT_FILE).read_text("utf-8")), ref, found.digest)
    if opened.manifest["run_id"] is not None and opened.manifest["actor"] == workspace.actor:
        raise Forbidden(
            f"{workspace.actor} trained {ref}, and nobody signs what they trained",
            fix="let somebody else read the report and sign (on this machine: RLHF_ACTOR=NAME)",
        )
    with workspace.write() as write:
        row = {"version_digest": ref.digest, "report_digest": found.digest, "role": role, "who": write.actor}
        same = select(signoffs).filter_by(**row)
        if (there := write.connection.execute(same).first()) is not None:
            return _signoff(there)
        write.connection.execute(signoffs.insert().values(id=new_id(), at=now_text(), **row))
        write.audit("version.sign", str(ref), {"digest": ref.digest, "report": found.digest, "role": role})
        return _signoff(write.connection.execute(same).one())


def _require_measured(content: Mapping[str, Any], ref: VersionRef, report: str) -> None:
    """By digest: names and numbers are a workspace's own."""
    measured = content.get("versions") or {}
    if ref.digest not in {version["digest"] for version in measured.values()}:
        raise BadInput(
            f"report {report[:MIN_HEX]} doesn't measure {ref}: it is about {', '.join(measured) or 'no version'}",
            fix="sign with a report on this version; see: rlhf report list",
        )


def _report(connection: Connection, text: str) -> Row[Any]:
    digits = text.removeprefix("sha256:").lower()
    found = connection.execute(select(reports).where(reports.c.digest.startswith(digits)).limit(2)).all()
    if len(found) != 1:
        raise NotFound(
            f"there {'are several reports' if found else 'is no report'} {text}",
            fix="make one with: rlhf evaluate; give more digits where several begin alike",
        )
    return found[0]


def _signoff(row: Row[Any]) -> SignOff:
    return SignOff(**row._mapping)
