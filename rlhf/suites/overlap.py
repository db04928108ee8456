"""Which rows of a suite the train side of a snapshot knows: the same pair, or one with the same opening turn.

Ids and digests alone are read, so a snapshot from which somebody was erased answers as before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rlhf.errors import NotFound
from rlhf.snapshots import list_snapshots, open_snapshot
from rlhf.snapshots.rows import read_columns
from rlhf.store import Workspace


@dataclass(frozen=True, slots=True)
class TrainSide:
    """What a training on the snapshot `ref` saw: pairs' ids and opening turns' digests."""

    ref: str
    digest: str
    pairs: frozenset[str]
    groups: frozenset[str]


@dataclass(frozen=True, slots=True)
class Seen:
    """A row that the train side of `snapshot` knows. same_pair: it is the very pair, not only its opening turn."""

    pair_id: str
    snapshot: str
    same_pair: bool

    def __str__(self) -> str:
        return (
            f"{self.pair_id[:12]} ({'the same pair' if self.same_pair else 'the same opening turn'} in {self.snapshot})"
        )


def train_side(workspace: Workspace, digest: str) -> TrainSide | None:
    """The train side of the snapshot with this digest; None where it isn't in this workspace."""
    try:
        snapshot = open_snapshot(workspace, f"sha256:{digest}")
    except NotFound:
        return None
    rows = [
        (pair_id, group)
        for pair_id, group, split in read_columns(snapshot.shards, ("pair_id", "group", "split"))
        if split == "train"
    ]
    return TrainSide(snapshot.ref, digest, frozenset(p for p, _ in rows), frozenset(g for _, g in rows))


def train_sides(workspace: Workspace) -> Mapping[str, TrainSide]:
    """Every snapshot's, by digest; cuts of equal content once, under the latest name."""
    digests = dict.fromkeys(entry.digest for entry in list_snapshots(workspace))
    return {digest: side for digest in digests if (side := train_side(workspace, digest)) is not None}


def seen_in(rows: Iterable[tuple[str, str]], sides: Iterable[TrainSide]) -> list[Seen]:
    """The rows (pair id, opening turn's digest) that one of the sides knows, each once, in the order given."""
    known = list(sides)
    found = []
    for pair_id, group in rows:
        side = next((one for one in known if group in one.groups or pair_id in one.pairs), None)
        if side is not None:
            found.append(Seen(pair_id, side.ref, any(pair_id in one.pairs for one in known)))
    return found
