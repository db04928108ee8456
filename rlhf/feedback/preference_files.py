"""The two files of an export: TRL preference rows, and beside them, in JSON lines, what such a row can't say.

`pairs.jsonl` gets prompt, chosen and rejected (messages) and further columns; `pairs.undecided.jsonl` gets prompt,
reply_a, reply_b, choice and the same columns. Both are written whole beside their places before either is moved there,
and the same rows give the same bytes, packed or not.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.errors import BadInput, BadUsage
from rlhf.feedback.consent import as_column
from rlhf.feedback.formulas import guarded
from rlhf.ids import new_id
from rlhf.records import Judgement, Pair

ENDINGS = (".jsonl.gz", ".csv.gz", ".jsonl", ".csv", ".parquet")
_MESSAGES = ("prompt", "chosen", "rejected")
_NUMBERS = {"strength": "int64", "seconds": "float64"}  # in Parquet; every other column is text
_ALWAYS = ("choice", "split", "labeler", "source")  # promised to whoever reads the lines: null where it isn't known
_PARQUET_ROWS = 2_000

Add = Callable[[Mapping[str, Any]], None]


@dataclass
class PreferenceFiles:
    """Where the judgements go; `n_rows` counts them by choice, pairs that nobody judged as `unjudged`."""

    file: Path
    undecided_file: Path
    columns: tuple[str, ...]
    _decided: Add
    _undecided: Add
    n_rows: Counter[str] = field(default_factory=Counter)

    def add(self, pair: Pair, judgement: Judgement, **more: Any) -> None:
        """One row. more: the columns that are no field of a judgement, such as `split`."""
        prompt = [turn.as_json() for turn in pair.prompt]
        about = {name: more[name] if name in more else _told(judgement, name) for name in self.columns}
        if judgement.choice in ("a", "b"):
            replies = (pair.reply_a, pair.reply_b)
            chosen, rejected = replies if judgement.choice == "a" else replies[::-1]
            if about.get("shown"):  # told for the row's own order, chosen first
                about["shown"] = "ab" if about["shown"][0] == judgement.choice else "ba"
            self._decided({"prompt": prompt, "chosen": _assistant(chosen), "rejected": _assistant(rejected), **about})
        else:
            row = {"prompt": prompt, "reply_a": pair.reply_a, "reply_b": pair.reply_b, "choice": judgement.choice}
            self._undecided({**row, **about})
        self.n_rows[judgement.choice] += 1

    def add_unjudged(self, pair: Pair, **more: Any) -> None:
        """A pair that nobody judged: its choice is null."""
        prompt = [turn.as_json() for turn in pair.prompt]
        row = {"prompt": prompt, "reply_a": pair.reply_a, "reply_b": pair.reply_b, "choice": None}
        self._undecided({**row, **more})
        self.n_rows["unjudged"] += 1


@contextmanager
def preference_files(path: str | Path, columns: Sequence[str]) -> Iterator[PreferenceFiles]:
    """The files for `path` (.jsonl, .csv, also .gz; .parquet), each with `columns` behind the replies.

    They are in their places at the end; on an error what was there stays. Raises BadUsage on another ending, BadInput
    where a file can't be written.
    """
    target = Path(path)
    if not target.name:
        raise BadUsage("the file to write to has no name", fix=f"name one that ends in {', '.join(ENDINGS)}")
    ending = next((ending for ending in ENDINGS if target.name.lower().endswith(ending)), None)
    if ending is None:
        raise BadUsage(
            f"{target.name} doesn't end in a format that can be written", fix=f"end it in one of {', '.join(ENDINGS)}"
        )
    packed = ".gz" if ending.endswith(".gz") else ""
    beside = target.with_name(f"{target.name[: -len(ending)]}.undecided.jsonl{packed}")
    columns = tuple(columns)
    try:
        with _whole(target) as new, _whole(beside) as new_beside, ExitStack() as open_files:
            decided = open_files.enter_context(_rows(new, ending, (*_MESSAGES, *columns)))
            undecided = open_files.enter_context(_rows(new_beside, f".jsonl{packed}", ()))
            yield PreferenceFiles(target, beside, columns, decided, undecided)
    except OSError as error:
        raise BadInput(
            f"{target} can't be written: {error.strerror or error}",
            fix="check the folder, its permissions and the free space",
        ) from None


def _told(judgement: Judgement, column: str) -> Any:
    value = getattr(judgement, column)
    return (as_column(value) or "none") if column == "consent" else value


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
def _rows(path: Path, ending: str, columns: tuple[str, ...]) -> Iterator[Add]:
    with _parquet(path, columns) if ending == ".parquet" else _text(path, ending, columns) as add:
        yield add


@contextmanager
def _text(path: Path, ending: str, columns: tuple[str, ...]) -> Iterator[Add]:
    with ExitStack() as stack:
        file: Any = stack.enter_context(open(path, "wb"))
        if ending.endswith(".gz"):  # no name and no time in the packed file: the same rows, the same bytes
            file = stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))
        text = stack.enter_context(io.TextIOWrapper(file, "utf-8", newline=""))
        if not ending.startswith(".csv"):
            yield lambda row: print(json.dumps(_without_none(row), ensure_ascii=False), file=text)
            return
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        yield lambda row: writer.writerow({name: _cell(value) for name, value in row.items()})


@contextmanager
def _parquet(path: Path, columns: tuple[str, ...]) -> Iterator[Add]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    kinds = dict.fromkeys(_MESSAGES, messages) | {name: pa.type_for_alias(kind) for name, kind in _NUMBERS.items()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in columns])
    waiting: list[Mapping[str, Any]] = []
    # Opened here: the writer's own complaint would name the file that stands in for the target.
    with open(path, "wb") as file, pq.ParquetWriter(file, schema) as writer:

        def add(row: Mapping[str, Any]) -> None:
            waiting.append(row)
            if len(waiting) == _PARQUET_ROWS:
                writer.write_table(pa.Table.from_pylist(waiting, schema))
                waiting.clear()

        yield add
        if waiting:
            writer.write_table(pa.Table.from_pylist(waiting, schema))


def _without_none(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None or name in _ALWAYS}


def _cell(value: Any) -> Any:
    """Messages as JSON, other text so that no spreadsheet runs it."""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return guarded(value) if isinstance(value, str) else value
