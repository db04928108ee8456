"""Sign-offs: a person in a role names a version and the report they read."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Row, select

from rlhf.errors import BadInput, NotFound
from rlhf.ids import new_id, now_text
from rlhf.registry.versions import MIN_HEX, resolve_in
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

    Raises NotFound for an unknown version or report, BadInput for a role that is no word.
    """
    if not _ROLE.fullmatch(role):
        raise BadInput(f"'{role}' is no role", fix="name one in up to 40 letters, for instance --as evaluator")
    if not _REPORT.fullmatch(report):
        raise BadInput(
            f"'{report}' is no report: wanted its digest, {MIN_HEX} hex digits or more", fix="see: rlhf report show"
        )
    with workspace.write() as write:
        ref = resolve_in(write.connection, version)
        digits = report.removeprefix("sha256:").lower()
        found = (
            write.connection.execute(select(reports.c.digest).where(reports.c.digest.startswith(digits)))
            .scalars()
            .all()
        )
        if len(found) != 1:
            raise NotFound(
                f"there {'are several reports' if found else 'is no report'} {report}",
                fix="make one with: rlhf evaluate; give more digits where several begin alike",
            )
        row = {"version_digest": ref.digest, "report_digest": found[0], "role": role, "who": write.actor}
        same = select(signoffs).filter_by(**row)
        if (there := write.connection.execute(same).first()) is not None:
            return _signoff(there)
        write.connection.execute(signoffs.insert().values(id=new_id(), at=now_text(), **row))
        write.audit("version.sign", str(ref), {"digest": ref.digest, "report": found[0], "role": role})
        return _signoff(write.connection.execute(same).one())


def _signoff(row: Row[Any]) -> SignOff:
    return SignOff(**row._mapping)
