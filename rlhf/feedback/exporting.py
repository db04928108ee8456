"""Exporting: judgements as TRL rows, one row each, and what TRL rows can't say in a file beside it.

`pairs.jsonl` gets prompt, chosen, rejected (messages), labeler, source, kind and what else is known; ties, both_bad,
skips and pairs that nobody judged go to `pairs.undecided.jsonl` as prompt, reply_a, reply_b, choice. Both files
import again to the same pairs. A file is written whole beside its place and then moved there.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rlhf.errors import BadInput, BadUsage, NotFound
from rlhf.feedback.consent import as_column
from rlhf.feedback.reading import read_pairs
from rlhf.ids import new_id
from rlhf.records import Judgement, Pair
from rlhf.store import Workspace

_EXTRA = ("labeler", "source", "kind", "strength", "seconds", "shown", "cohort", "submitted_at", "note", "consent")
_DECIDED = ("prompt", "chosen", "rejected", *_EXTRA)
_ENDINGS = (".jsonl", ".csv", ".parquet", ".jsonl.gz", ".csv.gz")
_PARQUET_ROWS = 2_000


class Sink(Protocol):
    """Where rows go."""

    def add(self, row: dict[str, Any]) -> None: ...


def export(workspace: Workspace, path: str | Path, *, source: str | None = None) -> dict[str, Any]:
    """Write the judgements in force to `path` (.jsonl, .csv, also .gz; .parquet) and what is undecided beside it.

    Returns counts: decided, tie, both_bad, skip, unjudged, pairs, and the two files' names. Raises BadUsage on
    another ending, NotFound where there is nothing to export, BadInput where the file can't be written.
    """
    target = Path(path)
    ending = next((e for e in sorted(_ENDINGS, key=len, reverse=True) if target.name.lower().endswith(e)), None)
    if ending is None:
        raise BadUsage(
            f"{target.name} has no ending that says how to write it", fix=f"end it in one of {', '.join(_ENDINGS)}"
        )
    beside = target.with_name(
        target.name[: -len(ending)] + ".undecided.jsonl" + (".gz" if ending.endswith(".gz") else "")
    )
    counts: Counter[str] = Counter(decided=0, tie=0, both_bad=0, skip=0, unjudged=0, pairs=0)
    try:
        with (
            _whole(target) as new,
            _whole(beside) as new_beside,
            _sink(new, ending) as decided,
            _sink(new_beside, beside.name) as undecided,
            workspace.read() as connection,
        ):
            for pair, judgements, names in read_pairs(connection, sources=(source,) if source is not None else ()):
                counts["pairs"] += 1
                _write_pair(pair, judgements, names, decided, undecided, counts)
            if not counts["pairs"]:
                raise NotFound(
                    "there are no pairs to export" + (f" from a source '{source}'" if source else ""),
                    fix="see: rlhf feedback list",
                )
    except OSError as error:
        raise BadInput(
            f"{target} can't be written: {error.strerror or error}",
            fix="check the folder, its permissions and the free space",
        ) from None
    with workspace.write() as write:  # data left the workspace: that is worth a line
        write.audit("feedback.export", target.name, {"source": source, **counts})
    return {**counts, "file": str(target), "undecided_file": str(beside)}


def _write_pair(
    pair: Pair,
    judgements: tuple[Judgement, ...],
    names: tuple[str, ...],
    decided: Sink,
    undecided: Sink,
    counts: Counter[str],
) -> None:
    prompt = [turn.as_json() for turn in pair.prompt]
    for j in judgements:
        about = {name: getattr(j, name) for name in _EXTRA if name != "consent"} | {
            "consent": as_column(j.consent) or "none"
        }
        if j.choice in ("a", "b"):
            won, lost = (pair.reply_a, pair.reply_b) if j.choice == "a" else (pair.reply_b, pair.reply_a)
            # The order shown is told for the row's own order, chosen first.
            about["shown"] = None if j.shown is None else "ab" if j.shown[0] == j.choice else "ba"
            decided.add({"prompt": prompt, "chosen": _assistant(won), "rejected": _assistant(lost), **about})
            counts["decided"] += 1
        else:
            undecided.add(
                {"prompt": prompt, "reply_a": pair.reply_a, "reply_b": pair.reply_b, "choice": j.choice, **about}
            )
            counts[j.choice] += 1
    if not judgements:
        undecided.add(
            {
                "prompt": prompt,
                "reply_a": pair.reply_a,
                "reply_b": pair.reply_b,
                "choice": None,
                "source": names[0] if names else None,
            }
        )
        counts["unjudged"] += 1


def _assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A name beside the target that becomes the target at the end, or goes."""
    new = target.with_name(f".{target.name}.{new_id()}.new")
    try:
        yield new
        os.replace(new, target)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def _sink(path: Path, ending: str) -> Iterator[Sink]:
    if ending.endswith(".parquet"):
        parquet = _Parquet(path)
        yield parquet
        parquet.close()
        return
    with open(path, "wb") as file:
        # No name and no time in the packed file: the same rows, the same bytes.
        stream: Any = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if ending.endswith(".gz") else file
        with io.TextIOWrapper(stream, "utf-8", newline="") as text:
            yield _Csv(text) if ".csv" in ending else _Jsonl(text)


class _Jsonl:
    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def add(self, row: dict[str, Any]) -> None:
        kept = {key: value for key, value in row.items() if value is not None or key == "choice"}
        self._text.write(json.dumps(kept, ensure_ascii=False) + "\n")


class _Csv:
    """Messages are JSON in their cells. A cell that a spreadsheet would run as a formula gets a quote before it."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._writer = csv.DictWriter(text, _DECIDED)
        self._writer.writeheader()

    def add(self, row: dict[str, Any]) -> None:
        self._writer.writerow({key: self._cell(value) for key, value in row.items()})

    @staticmethod
    def _cell(value: Any) -> Any:
        if isinstance(value, list):
            return json.dumps(value, ensure_ascii=False)
        return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


class _Parquet:
    def __init__(self, path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        turns = pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))
        kinds = {
            "prompt": turns,
            "chosen": turns,
            "rejected": turns,
            "strength": pyarrow.int64(),
            "seconds": pyarrow.float64(),
        }
        self._schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in _DECIDED])
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema)
        self._table = pyarrow.Table
        self._waiting: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        self._waiting.append(row)
        if len(self._waiting) >= _PARQUET_ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(self._table.from_pylist(self._waiting, schema=self._schema))
            self._waiting = []
