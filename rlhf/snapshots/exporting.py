"""Exporting a snapshot as TRL preference rows, one for each judgement that decides, and the others in a file beside it.

`hh.jsonl` gets prompt, chosen and rejected (messages), split, labeler, source, kind, strength, cohort and consent;
ties, both_bad and skips go to `hh.undecided.jsonl` as prompt, reply_a, reply_b and choice. Both are written whole
beside their places and then moved there. Names and layout are those of `rlhf feedback export`, with the side added.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhf.errors import BadInput, BadUsage
from rlhf.ids import new_id
from rlhf.records import Judgement, SnapshotRow
from rlhf.snapshots.opening import open_snapshot
from rlhf.store import Workspace

COLUMNS = ("prompt", "chosen", "rejected", "split", "labeler", "source", "kind", "strength", "cohort", "consent")
ENDINGS = (".jsonl.gz", ".csv.gz", ".jsonl", ".csv", ".parquet")
_PARQUET_ROWS = 2_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run

Add = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Exported:
    """Files and counts: rows + undecided = the snapshot's judgements."""

    snapshot: str
    file: str
    rows: int
    undecided_file: str
    undecided: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def export(workspace: Workspace, ref: str, path: str | Path) -> Exported:
    """Write the snapshot to `path` (.jsonl, .csv, .parquet; .gz may follow the first two), streamed and verified.

    Raises BadUsage on another ending, BadInput where the file can't be written, and what `open_snapshot` raises.
    """
    target = Path(path)
    ending = next((ending for ending in ENDINGS if target.name.lower().endswith(ending)), None)
    if ending is None:
        raise BadUsage(f"{target.name} doesn't end in a format", fix=f"name a file that ends in {', '.join(ENDINGS)}")
    packed = ".gz" if ending.endswith(".gz") else ""
    beside = target.with_name(f"{target.name[: -len(ending)]}.undecided.jsonl{packed}")
    snapshot = open_snapshot(workspace, ref)
    rows = undecided = 0
    try:
        with ExitStack() as stack:
            add = stack.enter_context(_written_whole(target, ending))
            add_beside = stack.enter_context(_written_whole(beside, f".jsonl{packed}"))
            for row in snapshot.rows():
                for judgement in row.judgements:
                    if judgement.choice in ("a", "b"):
                        add(_decided(row, judgement))
                        rows += 1
                    else:
                        add_beside(_undecided(row, judgement))
                        undecided += 1
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"{target} can't be written: {reason}", fix="check the folder and the free space") from None
    with workspace.write() as write:  # data leaves the workspace: that is worth an entry
        write.audit("snapshot.export", snapshot.ref, {"file": target.name, "rows": rows, "undecided": undecided})
    return Exported(snapshot.ref, str(target), rows, str(beside), undecided)


def _decided(row: SnapshotRow, judgement: Judgement) -> dict[str, Any]:
    replies = (row.pair.reply_a, row.pair.reply_b)
    chosen, rejected = replies if judgement.choice == "a" else replies[::-1]
    return {
        "prompt": [message.as_json() for message in row.pair.prompt],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        **_about(row, judgement),
    }


def _undecided(row: SnapshotRow, judgement: Judgement) -> dict[str, Any]:
    prompt = [message.as_json() for message in row.pair.prompt]
    return {
        "prompt": prompt,
        "reply_a": row.pair.reply_a,
        "reply_b": row.pair.reply_b,
        "choice": judgement.choice,
        **_about(row, judgement),
    }


def _about(row: SnapshotRow, judgement: Judgement) -> dict[str, Any]:
    return {
        "split": row.split,
        "labeler": judgement.labeler,
        "source": judgement.source,
        "kind": judgement.kind,
        "strength": judgement.strength,
        "cohort": judgement.cohort,
        "consent": ",".join(judgement.consent) or "none",
    }


@contextmanager
def _written_whole(target: Path, ending: str) -> Iterator[Add]:
    """Rows go to a file beside the target and take its place at the end; on an error the target stays as it was."""
    new = target.with_name(f".{target.name}.{new_id()}")
    try:
        with _parquet(new) if ending == ".parquet" else _text(new, ending) as add:
            yield add
        os.replace(new, target)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def _text(path: Path, ending: str) -> Iterator[Add]:
    with ExitStack() as stack:
        file: Any = stack.enter_context(open(path, "wb"))
        if ending.endswith(".gz"):
            file = stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))  # no time: same rows, same bytes
        text = stack.enter_context(io.TextIOWrapper(file, "utf-8", newline=""))
        if not ending.startswith(".csv"):
            yield lambda row: print(json.dumps(_without_none(row), ensure_ascii=False), file=text)
            return
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()

        def add(row: Mapping[str, Any]) -> None:
            writer.writerow({name: _cell(value) for name, value in row.items()})

        yield add


@contextmanager
def _parquet(path: Path) -> Iterator[Add]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    kinds = {"prompt": messages, "chosen": messages, "rejected": messages, "strength": pa.int64()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    waiting: list[Mapping[str, Any]] = []
    with pq.ParquetWriter(path, schema) as writer:

        def add(row: Mapping[str, Any]) -> None:
            waiting.append(row)
            if len(waiting) == _PARQUET_ROWS:
                writer.write_table(pa.Table.from_pylist(waiting, schema))
                waiting.clear()

        yield add
        writer.write_table(pa.Table.from_pylist(waiting, schema))


def _without_none(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _cell(value: Any) -> Any:
    """Messages as JSON; a text that a spreadsheet would run as a formula gets a quote before it."""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
