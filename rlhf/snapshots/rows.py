"""A snapshot's row: its digest, its line in a Parquet shard, and back.

The digest covers the pair's id (and so its text), its side, its judgements and its sources; no time, place or number. A
row read back is rebuilt from its text and must give the digest that was stored beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from rlhf.errors import Damaged
from rlhf.ids import digest_of
from rlhf.records import Judgement, Message, Pair, SnapshotRow

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SHARD_ROWS = 50_000
_GROUP_ROWS = 2_000  # written and read so many at a time: what memory a cut of any size takes
_COLUMNS = ("pair_id", "split", "group", "prompt", "reply_a", "reply_b", "judgements", "sources", "row_digest")
SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in _COLUMNS])
# What a judgement's digest covers, hence all that a snapshot keeps of it.
ERASED = "erased"  # what stands in the place of an erased person's judgement, with its digest
_JUDGEMENT_FIELDS = ("labeler", "choice", "strength", "kind", "source", "cohort", "consent", "guideline")


def row_of(pair: Pair, judgements: Iterable[Judgement], split: Split, sources: Iterable[str]) -> SnapshotRow:
    """The row with its digest; judgements in order of their digests, sources in order of their names."""
    digested = sorted((judgement.digest, place, judgement) for place, judgement in enumerate(judgements))
    named = tuple(sorted(sources))
    content = {"pair": pair.id, "split": split, "judgements": [d for d, _, _ in digested], "sources": list(named)}
    return SnapshotRow(pair, tuple(j for _, _, j in digested), split, named, digest_of(content))


def write_shards(folder: Path, rows: Iterable[SnapshotRow]) -> list[str]:
    """Write `rows-00000.parquet` and so on as the rows come; returns the file names. Holds some 2,000 rows in
    memory."""
    return write_records(folder, map(_record, rows), SCHEMA)


def write_records(folder: Path, records: Iterable[Mapping[str, str]], schema: pa.Schema) -> list[str]:
    """`write_shards` of lines that are ready, with columns of their own."""
    names: list[str] = []
    writer, n_rows, buffered = None, 0, []
    try:
        for record in records:
            if writer is None:
                names.append(f"rows-{len(names):05d}.parquet")
                writer = pq.ParquetWriter(folder / names[-1], schema, compression="zstd")
            buffered.append(record)
            n_rows += 1
            if len(buffered) == _GROUP_ROWS or n_rows % SHARD_ROWS == 0:
                writer.write_table(pa.Table.from_pylist(buffered, schema))
                buffered = []
            if n_rows % SHARD_ROWS == 0:
                writer.close()
                writer = None
        if writer is not None and buffered:
            writer.write_table(pa.Table.from_pylist(buffered, schema))
    finally:
        if writer is not None:
            writer.close()
    return names


def read_columns(shards: Sequence[Path], columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The named columns of every row, in the order asked for. Raises Damaged where a shard can't be read."""
    for shard in shards:
        try:
            with pq.ParquetFile(shard) as file:
                for batch in file.iter_batches(batch_size=_GROUP_ROWS, columns=list(columns)):
                    yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise _damaged(shard, f"can't be read: {error}") from None


def read_rows(shards: Sequence[Path], split: Split | None = None) -> Iterator[SnapshotRow]:
    """The rows in order of pair id, each rebuilt from its text and checked. Raises Damaged naming the shard."""
    for shard in shards:
        for values in read_columns([shard], _COLUMNS):
            if split is None or values[1] == split:
                yield _checked_row(dict(zip(_COLUMNS, values, strict=True)), shard)


def judgements_of(text: str, pair_id: str) -> tuple[Judgement, ...]:
    """The judgements of a row's JSON column, without those of erased persons."""
    items = [item for item in json.loads(text) if ERASED not in item]
    return tuple(Judgement(pair_id=pair_id, **{**item, "consent": tuple(item["consent"])}) for item in items)


def judgements_text(judgements: Iterable[Judgement]) -> str:
    """Judgements as a row's JSON column holds them."""
    return as_text([{name: getattr(j, name) for name in _JUDGEMENT_FIELDS} for j in judgements])


def erased_judgements(text: str) -> list[str]:
    """Digests of the judgements of erased persons in a row's JSON column."""
    return [item[ERASED] for item in json.loads(text) if ERASED in item]


def _record(row: SnapshotRow) -> dict[str, str]:
    return {
        "pair_id": row.pair.id,
        "split": row.split,
        "group": row.pair.group,
        "prompt": as_text([message.as_json() for message in row.pair.prompt]),
        "reply_a": row.pair.reply_a,
        "reply_b": row.pair.reply_b,
        "judgements": judgements_text(row.judgements),
        "sources": as_text(list(row.sources)),
        "row_digest": row.digest,
    }


def _checked_row(record: Mapping[str, Any], shard: Path) -> SnapshotRow:
    try:
        prompt = tuple(Message(**message) for message in json.loads(record["prompt"]))
        pair = Pair.of(prompt, record["reply_a"], record["reply_b"])
        judgements = judgements_of(record["judgements"], pair.id)
        row = row_of(pair, judgements, record["split"], json.loads(record["sources"]))
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(shard, f"has an unreadable row {record['pair_id']}: {error}") from None
    if row.digest != record["row_digest"] or pair.id != record["pair_id"] or pair.group != record["group"]:
        raise _damaged(shard, f"has a row whose text doesn't give its digest: pair {record['pair_id']}")
    return row


def as_text(value: Any) -> str:
    """JSON as a column holds it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _damaged(shard: Path, what: str) -> Damaged:
    return Damaged(f"{shard.name} {what}", fix="restore the snapshot's folder from a backup, or cut a new one")
