"""What differs between two snapshots, row by row."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rlhf.snapshots.opening import Snapshot, open_snapshot
from rlhf.snapshots.rows import read_columns
from rlhf.store import Workspace

EXAMPLES = 5
KINDS_OF_CHANGE = ("added", "removed", "side_moved", "judgements_changed", "sources_changed")
_COLUMNS = ("pair_id", "split", "row_digest", "judgements", "sources")


@dataclass(frozen=True, slots=True)
class SnapshotDiff:
    """From `before` to `after`: counts by kind of change with example pair ids. A row may change in several ways."""

    before: str
    after: str
    same_digest: bool
    unchanged: int
    counts: Mapping[str, int]
    examples: Mapping[str, tuple[str, ...]]

    def as_json(self) -> dict[str, Any]:
        return {
            "a": self.before,
            "b": self.after,
            "same": self.same_digest,
            "unchanged": self.unchanged,
            **self.counts,
            "examples": {kind: list(ids) for kind, ids in self.examples.items()},
        }


def diff(workspace: Workspace, before: str, after: str) -> SnapshotDiff:
    """Rows added and removed, sides moved, judgements and sources changed. Both are opened and checked; memory stays
    flat."""
    one, other = open_snapshot(workspace, before), open_snapshot(workspace, after)
    counts = dict.fromkeys(KINDS_OF_CHANGE, 0)
    examples: dict[str, list[str]] = {kind: [] for kind in KINDS_OF_CHANGE}
    unchanged = 0
    merged = heapq.merge(_marked(one, 0), _marked(other, 1), key=lambda entry: (entry[1], entry[0]))
    for pair_id, entries in groupby(merged, key=lambda entry: entry[1]):
        changes = _changes(list(entries))
        unchanged += not changes
        for kind in changes:
            counts[kind] += 1
            if len(examples[kind]) < EXAMPLES:
                examples[kind].append(pair_id)
    return SnapshotDiff(
        one.ref,
        other.ref,
        one.digest == other.digest,
        unchanged,
        counts,
        {kind: tuple(ids) for kind, ids in examples.items()},
    )


def _marked(snapshot: Snapshot, mark: int) -> Iterator[tuple[Any, ...]]:
    return ((mark, *values) for values in read_columns(snapshot.shards, _COLUMNS))


def _changes(entries: list[tuple[Any, ...]]) -> list[str]:
    if len(entries) == 1:
        return ["added" if entries[0][0] else "removed"]
    (_, _, split, digest, judgements, sources), (_, _, new_split, new_digest, new_judgements, new_sources) = entries
    if digest == new_digest:
        return []
    changed = ["side_moved"] if split != new_split else []
    if json.loads(judgements) != json.loads(new_judgements):
        changed.append("judgements_changed")
    if sources != new_sources:
        changed.append("sources_changed")
    return changed
