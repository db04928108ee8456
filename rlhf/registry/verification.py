"""Verify: is everything that was published still what was published?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from rlhf.errors import Damaged, RlhfError
from rlhf.records import VersionRef
from rlhf.registry.versions import FilesGone, open_version, ref_of, resolve
from rlhf.store import Workspace, audit
from rlhf.store.tables import versions


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked and what is wrong, each problem naming its file or entry.

    leftovers: folders that a crash left before they were published. Nothing refers to them and the next publication
    under their name replaces them, so they are remarks and no problems.
    """

    files: int
    versions: int
    audit_entries: int
    problems: tuple[str, ...]
    leftovers: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "files": self.files,
            "versions": self.versions,
            "audit_entries": self.audit_entries,
            "problems": list(self.problems),
            "leftovers": list(self.leftovers),
        }


def verify(workspace: Workspace, version: VersionRef | str | None = None) -> Verification:
    """Check one version, or every file under the artifact root, every version's digest and the audit chain."""
    if version is not None:
        return _one(workspace, resolve(workspace, version) if isinstance(version, str) else version)
    with workspace.read() as connection:
        refs = [
            ref_of(row) for row in connection.execute(select(versions).order_by(versions.c.name, versions.c.number))
        ]
        n_files, problems, leftovers = workspace.artifacts.verify_all(connection)
        n_entries, said = _audit(connection, refs)
    if problems or leftovers:  # what was being published while we read isn't wrong: look again with no writer about
        with workspace.write() as write:
            n_files, problems, leftovers = workspace.artifacts.verify_all(write.connection)
    for ref in refs:
        found = _one(workspace, ref)
        problems += [problem for problem in found.problems if problem not in problems]
    return Verification(n_files, len(refs), n_entries, tuple(problems + said), tuple(leftovers))


def _one(workspace: Workspace, ref: VersionRef) -> Verification:
    with workspace.read() as connection:
        path = connection.execute(select(versions.c.path).where(versions.c.digest == ref.digest)).scalar_one()
        n_files = len(workspace.artifacts.recorded(connection, path))
    try:
        open_version(workspace, ref)
    except FilesGone:
        return Verification(0, 1, 0, ())
    except RlhfError as error:
        return Verification(n_files, 1, 0, tuple(error.message.split("; ")))
    return Verification(n_files, 1, 0, ())


def _audit(connection: Connection, refs: list[VersionRef]) -> tuple[int, list[str]]:
    """The chain, and whether each version in the table is one that the log saw published."""
    try:
        n_entries = audit.verify(connection)
    except Damaged as error:
        return 0, [error.message]
    published = {entry["details"].get("digest") for entry in audit.entries(connection, action="version.publish")}
    return n_entries, [
        f"{ref} is no version that the audit log saw published" for ref in refs if ref.digest not in published
    ]
