"""An opened snapshot: checked, frozen, read as rows or as a `datasets.Dataset`.

Nothing published changes (promise 8). Opening checks every byte of its files against the store's checksums and the
Merkle root over its rows' digests against the recorded digest; reading rebuilds every row from its text and checks that
against its digest.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.errors import Conflict, Damaged
from rlhf.ids import merkle_root
from rlhf.measures.votes import majority
from rlhf.people import took_back, withdrawn
from rlhf.records import SnapshotRow
from rlhf.snapshots.names import SnapshotEntry, find
from rlhf.snapshots.rows import SPLITS, Split, read_columns, read_rows, row_of
from rlhf.store import Workspace

if TYPE_CHECKING:
    from datasets import Dataset

SCHEMA_VERSION = 1


class Erased(Conflict):
    """A snapshot from which somebody was erased."""

    code = "erased"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A checked snapshot. `path`: its folder on this disk. `splits`: pairs on each side. `rule`: how it was cut.

    `withdrawn`: accounts that have taken their consent back: what they judged stays in the frozen file and in the digest, and is
    read by nobody.
    """

    name: str
    number: int
    digest: str
    rule: Mapping[str, Any]
    n_pairs: int
    splits: Mapping[str, int]
    path: Path
    withdrawn: frozenset[str] = frozenset()

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.number}"

    @property
    def manifest(self) -> dict[str, Any]:
        """Counts by side, source, kind and choice, what was left out, the rule, the shards."""
        manifest: dict[str, Any] = json.loads((self.path / "manifest.json").read_text("utf-8"))
        return manifest

    @property
    def card(self) -> str:
        """The datasheet, Markdown."""
        return (self.path / "card.md").read_text("utf-8")

    @property
    def shards(self) -> list[Path]:
        return sorted(self.path.glob("rows-*.parquet"))

    def rows(self, split: Split | None = None) -> Iterator[SnapshotRow]:
        """The rows in order of pair id, of one side or both; streamed. Raises Damaged where a text and its digest differ.

        Raises Erased where an erasure took words from it. Without the judgements of those who took their consent back; a row that
        has no other is passed over.
        """
        self.require_whole()
        if split is not None and split not in SPLITS:
            raise ValueError(f"split = {split!r}; wanted 'train', 'test' or None")
        return self._readable(read_rows(self.shards, split))

    @property
    def n_erased(self) -> int:
        """Rows from which an erasure took a text or a judgement."""
        return int(self.manifest.get("erased_rows", 0))

    def require_whole(self) -> None:
        """Raises Erased where somebody's words are gone: what is left isn't what its digest names, and nothing trains on it."""
        if self.n_erased:
            raise Erased(
                f"{self.n_erased} of the {self.n_pairs} rows of {self.ref} were erased, so it can't be read any more",
                fix=f"cut it again: rlhf snapshot cut {self.name}",
            )

    def _readable(self, rows: Iterable[SnapshotRow]) -> Iterator[SnapshotRow]:
        for row in rows:
            kept = tuple(j for j in row.judgements if not took_back(j, self.withdrawn))
            if len(kept) == len(row.judgements):
                yield row
            elif kept:
                yield row_of(row.pair, kept, row.split, row.sources)  # another row, with its own digest

    def dataset(self, split: Split | None = None) -> Dataset:
        """TRL preference rows by majority: `prompt`, `chosen` and `rejected` as lists of messages, and `pair_id`.

        Pairs without a strict majority, or with a majority of ties, are left out; `info.description` says how many.
        """
        import pyarrow as pa
        from datasets import Dataset

        message = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
        schema = pa.schema([("prompt", message), ("chosen", message), ("rejected", message), ("pair_id", pa.string())])
        records, left_out = [], 0
        for row in self.rows(split):
            winner = majority(j.choice for j in row.judgements)
            if winner in ("a", "b"):
                records.append(_preference(row, winner))
            else:
                left_out += 1
        made = Dataset(pa.Table.from_pylist(records, schema))
        decided = f"{len(records)} decided, {left_out} without a majority left out"
        made.info.description = f"{self.ref} {split or 'both sides'}: {decided}"
        return made


def open_snapshot(workspace: Workspace, ref: str) -> Snapshot:
    """The snapshot that `ref` names (`name`, `name@2`, `name@latest`, `sha256:…`), checked.

    Raises NotFound with the nearest name, Damaged naming the file that changed or saying that the rows don't give the
    digest.
    """
    with workspace.read() as connection:
        entry = find(connection, ref)
        folder = workspace.artifacts.open(connection, entry.path)
        gone = frozenset(withdrawn(connection))
    snapshot = Snapshot(entry.name, entry.number, entry.digest, entry.rule, entry.n_pairs, entry.splits, folder, gone)
    _check_rows(snapshot, entry)
    return snapshot


def _check_rows(snapshot: Snapshot, entry: SnapshotEntry) -> None:
    splits: Counter[str] = Counter()
    digests = bytearray()  # 32 bytes a row
    for digest, split in read_columns(snapshot.shards, ("row_digest", "split")):
        digests += bytes.fromhex(digest)
        splits[split] += 1
    root = merkle_root(digests[i : i + 32].hex() for i in range(0, len(digests), 32))
    if root != entry.digest or splits.total() != entry.n_pairs or any(splits[s] != entry.splits[s] for s in SPLITS):
        raise Damaged(
            f"the rows of {entry.ref} in {entry.path} give the digest {root[:12]}…, recorded is {entry.digest[:12]}…",
            fix="restore the snapshot's folder and the database from one backup, or cut a new one",
        )


def _preference(row: SnapshotRow, winner: str) -> dict[str, Any]:
    chosen, rejected = (row.pair.reply_a, row.pair.reply_b) if winner == "a" else (row.pair.reply_b, row.pair.reply_a)
    return {
        "prompt": [m.as_json() for m in row.pair.prompt],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "pair_id": row.pair.id,
    }
