"""Which snapshot is meant: `name` (its latest cut), `name@2`, `name@latest`, or `sha256:` and 12 or more hex digits.

Suites are named in the same way; what is looked up, and what people call it, is a `Shelf`.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Table, select

from rlhf.errors import BadUsage, NotFound
from rlhf.store import Workspace
from rlhf.store.tables import snapshots

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{12,64})")


@dataclass(frozen=True, slots=True)
class Shelf:
    """A table of frozen things with names and numbers. noun: what people call one. make: the command that makes one, before its
    name."""

    table: Table
    noun: str
    make: str
    made: str

    @property
    def see(self) -> str:
        return f"see: rlhf {self.noun} list"


SNAPSHOTS = Shelf(snapshots, "snapshot", "cut one with: rlhf snapshot cut", "cut")


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


def check_name(name: str, noun: str = "snapshot") -> None:
    """Refuse what couldn't be told from a number, a digest, a folder or an option."""
    if not _NAME.fullmatch(name) or name.isdigit():
        raise BadUsage(
            f"'{name}' is no {noun} name",
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
    return _entry(find_row(connection, ref, SNAPSHOTS))


def find_row(connection: Connection, ref: str, shelf: Shelf) -> Row[Any]:
    """`find` on any shelf: the row itself."""
    table = shelf.table
    if ref.startswith("sha256:"):
        return _by_digest(connection, ref, shelf)
    name, at, number = ref.partition("@")
    check_name(name, shelf.noun)
    query = select(table).where(table.c.name == name).order_by(table.c.number.desc())
    if at and number != "latest":
        if not re.fullmatch(r"[1-9][0-9]{0,8}", number):
            raise BadUsage(f"'{ref}' is no {shelf.noun}", fix="write name, name@2, name@latest or sha256:…")
        query = query.where(table.c.number == int(number))
    row = connection.execute(query.limit(1)).first()
    if row is None:
        raise _unknown(connection, ref, name, shelf)
    return row


def _by_digest(connection: Connection, ref: str, shelf: Shelf) -> Row[Any]:
    match, table = _DIGEST.fullmatch(ref), shelf.table
    if match is None:
        raise BadUsage(f"'{ref}' is no digest", fix="write sha256: and 12 to 64 hex digits, in lower case")
    found = connection.execute(
        select(table).where(table.c.digest.startswith(match[1])).order_by(table.c.created_at.desc())
    ).all()
    if len({row.digest for row in found}) > 1:
        raise BadUsage(f"'{ref}' begins more than one {shelf.noun}'s digest", fix="write more of its digits")
    if not found:
        raise NotFound(f"no {shelf.noun} has the digest {ref}", fix=shelf.see)
    return found[0]


def _unknown(connection: Connection, ref: str, name: str, shelf: Shelf) -> NotFound:
    table = shelf.table
    names = sorted(connection.execute(select(table.c.name).distinct()).scalars())
    if name in names:
        numbers = connection.execute(select(table.c.number).where(table.c.name == name)).scalars()
        there = ", ".join(f"@{n}" for n in sorted(numbers))
        return NotFound(f"no {shelf.noun} {ref}", fix=f"{name} was {shelf.made} as {there}")
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return NotFound(f"no {shelf.noun} {ref} (nearest: '{near[0]}')", fix=shelf.see)
    return NotFound(f"no {shelf.noun} {ref}", fix=f"{shelf.make} {name}")


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
