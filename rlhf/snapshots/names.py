"""Which snapshot is meant: `name` (its latest cut), `name@2`, `name@latest`, or `sha256:` and 12 or more hex digits."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from rlhf.errors import BadUsage, NotFound
from rlhf.store import Workspace
from rlhf.store.tables import snapshots

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{12,64})")


@dataclass(frozen=True, slots=True)
class SnapshotEntry:
    """What the store records of a cut; `path` is relative to the artifact root."""

    name: str
    number: int
    digest: str
    rule: Mapping[str, Any]
    n_pairs: int
    splits: Mapping[str, int]
    path: str
    actor: str
    created_at: str

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.number}"

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ref": self.ref,
            "number": self.number,
            "digest": self.digest,
            "pairs": self.n_pairs,
            "splits": dict(self.splits),
            "rule": dict(self.rule),
            "actor": self.actor,
            "created_at": self.created_at,
        }


def check_name(name: str) -> None:
    """Refuse what couldn't be told from a number, a digest, a folder or an option."""
    if not _NAME.fullmatch(name) or name.isdigit():
        raise BadUsage(
            f"'{name}' is no snapshot name",
            fix="use 1 to 100 letters, digits, '-', '_' or '.', begun by a letter or digit, not digits alone",
        )


def list_snapshots(workspace: Workspace) -> tuple[SnapshotEntry, ...]:
    """Every cut, by name and number. Reads the store alone; nothing is opened or checked."""
    with workspace.read() as connection:
        rows = connection.execute(select(snapshots).order_by(snapshots.c.name, snapshots.c.number))
        return tuple(_entry(row) for row in rows)


def find(connection: Connection, ref: str) -> SnapshotEntry:
    """The entry that `ref` names. Raises NotFound with what is there instead, BadUsage where it can't be a
    reference."""
    if ref.startswith("sha256:"):
        return _by_digest(connection, ref)
    name, at, number = ref.partition("@")
    check_name(name)
    query = select(snapshots).where(snapshots.c.name == name).order_by(snapshots.c.number.desc())
    if at and number != "latest":
        if not re.fullmatch(r"[1-9][0-9]{0,8}", number):
            raise BadUsage(f"'{ref}' is no snapshot", fix="write name, name@2, name@latest or sha256:…")
        query = query.where(snapshots.c.number == int(number))
    row = connection.execute(query.limit(1)).first()
    if row is None:
        raise _unknown(connection, ref, name)
    return _entry(row)


def _by_digest(connection: Connection, ref: str) -> SnapshotEntry:
    match = _DIGEST.fullmatch(ref)
    if match is None:
        raise BadUsage(f"'{ref}' is no digest", fix="write sha256: and 12 to 64 hex digits, in lower case")
    found = connection.execute(
        select(snapshots).where(snapshots.c.digest.startswith(match[1])).order_by(snapshots.c.created_at.desc())
    ).all()
    if len({row.digest for row in found}) > 1:
        raise BadUsage(f"'{ref}' begins more than one snapshot's digest", fix="write more of its digits")
    if not found:
        raise NotFound(f"no snapshot has the digest {ref}", fix="see: rlhf snapshot list")
    return _entry(found[0])


def _unknown(connection: Connection, ref: str, name: str) -> NotFound:
    names = sorted(connection.execute(select(snapshots.c.name).distinct()).scalars())
    if name in names:
        numbers = connection.execute(select(snapshots.c.number).where(snapshots.c.name == name)).scalars()
        return NotFound(f"no snapshot {ref}", fix=f"{name} was cut as {', '.join(f'@{n}' for n in sorted(numbers))}")
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return NotFound(f"no snapshot {ref} (nearest: '{near[0]}')", fix="see: rlhf snapshot list")
    return NotFound(f"no snapshot {ref}", fix=f"cut one with: rlhf snapshot cut {name}")


def _entry(row: Row[Any]) -> SnapshotEntry:
    return SnapshotEntry(
        row.name,
        row.number,
        row.digest,
        json.loads(row.rule),
        row.n_pairs,
        {"train": row.n_train, "test": row.n_test},
        row.path,
        row.actor,
        row.created_at,
    )
