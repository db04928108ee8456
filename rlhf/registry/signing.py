"""Sign-offs: a person in a role names a version and the report they read."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from rlhf.errors import BadUsage, NotFound
from rlhf.ids import new_id, now_text
from rlhf.registry.versions import MIN_HEX, open_version
from rlhf.store import Workspace
from rlhf.store.tables import reports, signoffs

_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9 _-]{0,39}")
_REPORT = re.compile(r"(sha256:)?[0-9a-fA-F]{12,64}")


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

    Every byte of both is checked first. Raises NotFound for an unknown version or report, BadUsage for a role that is
    no word, Damaged where a file of either has changed.
    """
    if not _ROLE.fullmatch(role):
        raise BadUsage(f"'{role}' is no role", fix="name one in up to 40 letters, for instance --as evaluator")
    if not _REPORT.fullmatch(report):
        raise BadUsage(
            f"'{report}' is no report: wanted its digest, {MIN_HEX} hex digits or more", fix="see: rlhf report show"
        )
    ref = open_version(workspace, version).ref  # both before the lock: their files may be large
    with workspace.read() as connection:
        found = _report(connection, report)
        workspace.artifacts.open(connection, found.path)
    with workspace.write() as write:
        row = {"version_digest": ref.digest, "report_digest": found.digest, "role": role, "who": write.actor}
        same = select(signoffs).filter_by(**row)
        if (there := write.connection.execute(same).first()) is not None:
            return _signoff(there)
        write.connection.execute(signoffs.insert().values(id=new_id(), at=now_text(), **row))
        write.audit("version.sign", str(ref), {"digest": ref.digest, "report": found.digest, "role": role})
        return _signoff(write.connection.execute(same).one())


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
