"""Mixing: the new train rows of a snapshot, and a seeded share of the old ones, as a snapshot of its own.

What a training that goes on from an earlier one sees. Everything comes from frozen rows, so the same mix has the same digest;
the test side is kept whole, so no row changes sides.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence, Set
from typing import Any

from rlhf.errors import BadInput, BadUsage
from rlhf.feedback.holds import held_pairs
from rlhf.ids import digest_of, merkle_root, unit_interval
from rlhf.records import SnapshotRow
from rlhf.snapshots.cutting import n_tombstones, publish
from rlhf.snapshots.names import check_name, list_snapshots
from rlhf.snapshots.opening import SCHEMA_VERSION, Snapshot, open_snapshot
from rlhf.snapshots.rows import read_columns, write_shards
from rlhf.snapshots.tally import Tally
from rlhf.store import Workspace


def mix(workspace: Workspace, name: str, *, of: str, seen: Sequence[str], replay: float, seed: int = 0) -> Snapshot:
    """Freeze, as the next cut of `name`: of the snapshot `of` its whole test side, each train row that none of the snapshots
    `seen` has on its train side, and `round(replay × new rows)` of the others, the lowest by `unit_interval(seed, pair id)`.

    Without the pairs that a safety item holds. A pair with a judgement more is a new row. The same mix again is the cut that is
    there. Raises BadUsage (name, replay), NotFound (a snapshot), BadInput where no train row is new. Memory: 32 bytes a row of
    `seen`, and the drawn pairs' ids.
    """
    check_name(name)
    if replay < 0:
        raise BadUsage(f"replay = {replay}; wanted old rows for each new one, 0 or more", fix="for instance replay=1")
    whole = open_snapshot(workspace, of)
    before = [open_snapshot(workspace, ref) for ref in seen]
    held = _held_in(workspace, whole)
    drawn, n_new, n_old = _drawn(whole, before, replay, seed, held)
    if not n_new:
        raise BadInput(
            f"{whole.ref} has no train pair that is not in {', '.join(s.ref for s in before)}",
            fix="import or label more feedback and cut again",
        )
    n_replayed = len(drawn) - n_new
    rule = {
        **whole.rule,
        "mix": {
            "of": whole.ref,
            "of_digest": whole.digest,
            "seen": [snapshot.ref for snapshot in before],
            "seen_digests": [snapshot.digest for snapshot in before],
            "replay": float(replay),
            "seed": seed,
            "new": n_new,
            "old": n_old,
            "replayed": n_replayed,
            **({"held": len(held), "held_digest": digest_of(sorted(held))} if held else {}),
        },
    }
    return _again(workspace, name, rule) or _written(workspace, name, whole, drawn, rule, held)


def _held_in(workspace: Workspace, whole: Snapshot) -> set[str]:
    """Its pairs that a safety item holds now: they were reported after it was cut."""
    with workspace.read() as connection:
        held = held_pairs(connection)
    return {pair_id for (pair_id,) in read_columns(whole.shards, ("pair_id",)) if pair_id in held} if held else set()


def _drawn(
    whole: Snapshot, before: Sequence[Snapshot], replay: float, seed: int, held: Set[str]
) -> tuple[set[str], int, int]:
    """Ids of the train pairs that are in the mix; how many train rows are new, and how many are old."""
    known = {bytes.fromhex(digest) for snapshot in before for digest in _train_digests(snapshot)}
    new: set[str] = set()
    old: list[tuple[float, str]] = []
    for pair_id, split, digest in read_columns(whole.shards, ("pair_id", "split", "row_digest")):
        if split != "train" or pair_id in held:
            continue
        if bytes.fromhex(digest) in known:
            old.append((unit_interval(seed, pair_id), pair_id))
        else:
            new.add(pair_id)
    replayed = heapq.nsmallest(round(replay * len(new)), old)
    return new | {pair_id for _, pair_id in replayed}, len(new), len(old)


def _train_digests(snapshot: Snapshot) -> list[str]:
    return [digest for digest, split in read_columns(snapshot.shards, ("row_digest", "split")) if split == "train"]


def _again(workspace: Workspace, name: str, rule: dict[str, Any]) -> Snapshot | None:
    """The last cut of the name where it is this very mix: its rule names what it is mixed from by digest."""
    cuts = [entry for entry in list_snapshots(workspace) if entry.name == name]
    return open_snapshot(workspace, cuts[-1].ref) if cuts and cuts[-1].rule == rule else None


def _written(
    workspace: Workspace, name: str, whole: Snapshot, drawn: Set[str], rule: dict[str, Any], held: Set[str]
) -> Snapshot:
    tally, digests = Tally(), bytearray()
    with workspace.read() as connection:
        erased_before = n_tombstones(connection)
    whole.require_whole()
    with workspace.artifacts.staging() as folder:

        def rows() -> Iterator[SnapshotRow]:
            for row in whole.rows():
                if row.pair.id in held:
                    tally.left_out["pairs_awaiting_safety_review"] += 1
                elif row.split == "test" or row.pair.id in drawn:
                    tally.add(row)
                    digests.extend(bytes.fromhex(row.digest))
                    yield row

        shards = write_shards(folder, rows())
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "digest": merkle_root(digests[i : i + 32].hex() for i in range(0, len(digests), 32)),
            "rule": rule,
            **tally.as_json(),
            "masked": whole.manifest["masked"],
            "shards": shards,
        }
        number = publish(workspace, folder, name, manifest, erased_before)
    return open_snapshot(workspace, f"{name}@{number}")
