"""Erasing from frozen rows, a snapshot's or a suite's: the words go, the digests stay, so the root still verifies; what lost
words can't be read any more.

An erased pair's row keeps its id, side, group and digest. An erased labeler's judgement keeps its digest alone, as
`{"erased": digest}`. The manifest counts the rows that were touched; cutting or importing the name again gives one without them.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from rlhf.errors import Damaged
from rlhf.ids import canonical_json
from rlhf.snapshots.rows import ERASED, erased_judgements, judgements_of, read_columns
from rlhf.store import Workspace

_TEXTS = ("prompt", "reply_a", "reply_b")
_SUBJECT = "subject"  # a suite's rows name whose words they are


class Frozen(Protocol):
    """Published rows; `path` is relative to the artifact root."""

    @property
    def path(self) -> str: ...


def holds(workspace: Workspace, entry: Frozen, pair_ids: Collection[str], labeler: tuple[str, str] | None) -> bool:
    """Does the snapshot have a row of these pairs, or a judgement of (source, labeler)?"""
    columns = ("pair_id", "judgements")
    return any(
        pair_id in pair_ids or (labeler is not None and _names(said, labeler))
        for pair_id, said in read_columns(_shards(workspace, entry), columns)
    )


def erase_in(workspace: Workspace, entry: Frozen, pair_ids: Collection[str], labeler: tuple[str, str] | None) -> int:
    """Rewrite the shards that hold them; returns how many rows were changed. Running it again finds nothing to do."""
    changed = 0
    for shard in _shards(workspace, entry):
        table = pq.read_table(shard)
        records = table.to_pylist()
        n = sum(_erase(record, pair_ids, labeler) for record in records)
        if not n:
            continue
        changed += n
        with workspace.artifacts.staging() as folder:
            schema = pa.schema([field.with_nullable(field.name in _TEXTS) for field in table.schema])
            pq.write_table(pa.Table.from_pylist(records, schema), folder / shard.name, compression="zstd")
            workspace.artifacts.rewrite(workspace.database, f"{entry.path}/{shard.name}", folder / shard.name)
    count = n_erased(_shards(workspace, entry))
    file = folder_of(workspace, entry) / "manifest.json"
    manifest: dict[str, Any] = json.loads(file.read_text("utf-8"))
    if manifest.get("erased_rows", 0) != count:
        with workspace.artifacts.staging() as folder:
            (folder / "manifest.json").write_bytes(canonical_json({**manifest, "erased_rows": count}) + b"\n")
            workspace.artifacts.rewrite(workspace.database, f"{entry.path}/manifest.json", folder / "manifest.json")
    return changed


def n_erased(shards: list[Path]) -> int:
    """Rows that have lost a text or a judgement."""
    columns = ("prompt", "judgements")
    return sum(prompt is None or ERASED in said for prompt, said in read_columns(shards, columns))


def _erase(record: dict[str, Any], pair_ids: Collection[str], labeler: tuple[str, str] | None) -> bool:
    if record["pair_id"] in pair_ids:
        had = any(record[name] is not None for name in _TEXTS)
        record.update(dict.fromkeys(_TEXTS))
        record.update({_SUBJECT: ""} if _SUBJECT in record else {})
        return had
    if labeler is None or not _names(record["judgements"], labeler):
        return False
    kept = [{**item, "digest": judgement.digest} for item, judgement in _said(record["judgements"], record["pair_id"])]
    gone = [i for i, item in enumerate(kept) if (item["source"], item["labeler"]) == labeler]
    for i in gone:
        kept[i] = {ERASED: kept[i]["digest"]}
    before = [{ERASED: digest} for digest in erased_judgements(record["judgements"])]
    own = [{k: v for k, v in item.items() if k != "digest"} for item in kept]
    record["judgements"] = json.dumps([*own, *before], ensure_ascii=False, separators=(",", ":"))
    return True


def _said(text: str, pair_id: str) -> list[tuple[dict[str, Any], Any]]:
    items = [item for item in json.loads(text) if ERASED not in item]
    return list(zip(items, judgements_of(text, pair_id), strict=True))


def _names(text: str, labeler: tuple[str, str]) -> bool:
    """The quick look first: most rows don't hold the name at all."""
    if json.dumps(labeler[1], ensure_ascii=False) not in text:
        return False
    return any((item.get("source"), item.get("labeler")) == labeler for item in json.loads(text))


def folder_of(workspace: Workspace, entry: Frozen) -> Path:
    """The folder on this disk, unchecked where a byte differs: a crash may have come between a shard and its checksum, and who
    erases must not be kept from it by that."""
    with workspace.read() as connection:
        try:
            return workspace.artifacts.open(connection, entry.path)
        except Damaged:
            return workspace.artifacts.local(entry.path)


def _shards(workspace: Workspace, entry: Frozen) -> list[Path]:
    return sorted(folder_of(workspace, entry).glob("rows-*.parquet"))
