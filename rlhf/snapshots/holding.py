"""Which snapshots hold a pair: what was frozen of it, and on which side.

The rows stand in the order of pair ids, so the range of each group of a shard says whether a pair can be in it, and the others
aren't read. What is frozen doesn't change: each answer is kept, and a page may ask as often as it likes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import pyarrow.parquet as pq

from rlhf.snapshots.names import list_snapshots
from rlhf.snapshots.rows import Split
from rlhf.store import Workspace

_MOST_KEPT = 100_000
_kept: dict[tuple[str, str], Split | None] = {}  # (snapshot's digest, pair's id)
_lock = Lock()


@dataclass(frozen=True, slots=True)
class Held:
    """A pair in a frozen snapshot. names: every cut with this digest, oldest first."""

    digest: str
    names: tuple[str, ...]
    split: Split
    cut_at: str


def holding(workspace: Workspace, pair_ids: Collection[str]) -> dict[str, tuple[Held, ...]]:
    """For each of the pairs the snapshots that hold it, oldest first; nothing for a pair that is in none."""
    wanted = set(pair_ids)
    found: dict[str, tuple[Held, ...]] = {}
    cuts: dict[str, list[tuple[str, str, str]]] = {}
    for entry in sorted(list_snapshots(workspace), key=lambda e: (e.created_at, e.name, e.number)):
        cuts.setdefault(entry.digest, []).append((entry.ref, entry.created_at, entry.path))
    for digest, same in cuts.items():
        for pair_id, split in _splits(workspace, digest, same[0][2], wanted).items():
            held = Held(digest, tuple(ref for ref, _, _ in same), split, same[0][1])
            found[pair_id] = (*found.get(pair_id, ()), held)
    return found


def _splits(workspace: Workspace, digest: str, path: str, wanted: Collection[str]) -> dict[str, Split]:
    with _lock:
        known = {pair_id: _kept[digest, pair_id] for pair_id in wanted if (digest, pair_id) in _kept}
    if fresh := sorted(set(wanted) - set(known)):
        with workspace.read() as connection:
            folder = workspace.artifacts.open(connection, path)
        looked: dict[str, Split | None] = dict.fromkeys(fresh)
        for shard in sorted(folder.glob("rows-*.parquet")):
            looked.update(_splits_in(shard, fresh))
        with _lock:
            if len(_kept) > _MOST_KEPT:
                _kept.clear()
            _kept.update({(digest, pair_id): split for pair_id, split in looked.items()})
        known |= looked
    return {pair_id: split for pair_id, split in known.items() if split is not None}


def _splits_in(shard: Path, wanted: Collection[str]) -> dict[str, Split]:
    found: dict[str, Split] = {}
    with pq.ParquetFile(shard) as file:
        for number in range(file.metadata.num_row_groups):
            ids = file.metadata.row_group(number).column(0).statistics
            inside = [p for p in wanted if ids is None or not ids.has_min_max or ids.min <= p <= ids.max]
            if not inside:
                continue
            table = file.read_row_group(number, columns=["pair_id", "split"])
            rows = zip(table["pair_id"].to_pylist(), table["split"].to_pylist(), strict=True)
            found.update((pair_id, split) for pair_id, split in rows if pair_id in inside)
    return found
