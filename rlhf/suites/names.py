"""Which suite is meant: `name` (its latest), `name@2`, `name@latest`, or `sha256:` and 12 or more hex digits, as snapshots are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from rlhf.snapshots.names import Shelf, find_row
from rlhf.store import Workspace
from rlhf.store.tables import suites

SUITES = Shelf(suites, "suite", "import one with: rlhf suite import", "imported")


@dataclass(frozen=True, slots=True)
class SuiteEntry:
    """What the store records of a suite; `path` is relative to the artifact root. origin: the files or the snapshot that it is
    from. held_out: as declared, and never of one cut from a train side."""

    name: str
    number: int
    digest: str
    path: str
    held_out: bool
    n_pairs: int
    n_prompts: int
    origin: Mapping[str, Any]
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
            "held_out": self.held_out,
            "pairs": self.n_pairs,
            "prompts": self.n_prompts,
            "origin": dict(self.origin),
            "actor": self.actor,
            "created_at": self.created_at,
        }


def list_suites(workspace: Workspace) -> tuple[SuiteEntry, ...]:
    """Every suite, by name and number. Reads the store alone; nothing is opened or checked."""
    with workspace.read() as connection:
        return tuple(_entry(row) for row in connection.execute(select(suites).order_by(suites.c.name, suites.c.number)))


def find(connection: Connection, ref: str) -> SuiteEntry:
    """The entry that `ref` names. Raises NotFound with what is there instead, BadUsage where it can't be a reference."""
    return _entry(find_row(connection, ref, SUITES))


def is_train_side(origin: Mapping[str, Any]) -> bool:
    """Whether it was cut from what versions are trained on."""
    return origin.get("split") == "train"


def _entry(row: Row[Any]) -> SuiteEntry:
    origin = json.loads(row.origin)
    return SuiteEntry(
        row.name,
        row.number,
        row.digest,
        row.path,
        bool(row.held_out) and not is_train_side(origin),  # rows from before this was refused say so still
        row.n_pairs,
        row.n_prompts,
        origin,
        row.actor,
        row.created_at,
    )
