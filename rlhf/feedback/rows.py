"""Rows: the records of a file, one at a time, each with its line (or item) number, whatever is wrong with some of them.

JSON lines, CSV with a header, a JSON list or Parquet; plain or gzip, told by their first bytes and not by their
names. Memory is bounded: at most `MAX_RECORD_BYTES` of one record are held, a longer one is passed over and given as
one bad row.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rlhf.errors import BadInput
from rlhf.feedback.csv_records import csv_records
from rlhf.feedback.fields import json_kind
from rlhf.feedback.json_items import items_of

MAX_RECORD_BYTES = 8 << 20
_PEEK_BYTES = 1 << 16
_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
Layout = Literal["jsonl", "json", "csv", "parquet"]


class Row(NamedTuple):
    """line: 1-based line, CSV record's first line, or item's number. Either a record, or the reason why there is
    none.
    """

    line: int
    record: dict[str, Any] | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file as the user named it, how it is laid out, and the digest of its content (unpacked, so that packing is no
    change).
    """

    name: str
    path: Path
    layout: Layout
    sha256: str
    n_bytes: int

    @property
    def unit(self) -> str:
        """What a row's number counts."""
        return {"json": "item", "parquet": "row"}.get(self.layout, "line")

    def rows(self) -> Iterator[Row]:
        """Each record in order; blank lines are none."""
        if self.layout == "parquet":
            yield from _parquet_rows(self.path)
            return
        with _opened(self.path) as stream:
            try:
                if stream.peek(3)[:3] == b"\xef\xbb\xbf":  # a byte order mark is no part of the text
                    stream.read(3)
            except _DAMAGE as error:  # from the start; the next read would find an end and no damage
                yield Row(1, None, damage(error))
                return
            if self.layout == "json":
                yield from (
                    Row(n, *_parsed(raw, problem)) for n, raw, problem in items_of(_chunks(stream), MAX_RECORD_BYTES)
                )
            elif self.layout == "csv":
                yield from (Row(*entry) for entry in csv_records(_lines(stream), self.name, MAX_RECORD_BYTES))
            else:
                yield from (
                    Row(n, *_parsed(raw, problem)) for n, raw, problem in _lines(stream) if problem or raw.strip()
                )


def open_input(name: str) -> InputFile:
    """Look at a file: is it there, readable, not empty, and how is it laid out. Raises BadInput."""
    path = Path(name).expanduser()
    try:
        if not name:
            raise BadInput("a file's name is empty", fix="name a file")
        if _ADDRESS.match(name) and not path.exists():
            raise BadInput(f"{name} is an address; nothing is fetched from one", fix="download it, and name the file")
        if not path.exists():
            raise BadInput(f"no file at {name}", fix="check the path")
        if path.is_dir():
            raise BadInput(
                f"{name} is a folder", fix="name the files in it, for instance " + f"{name.rstrip('/')}/*.jsonl"
            )
        if not path.is_file():
            raise BadInput(f"{name} is no regular file, and it must be read twice", fix="save it to a file first")
        sha256, n_bytes = _content_digest(path)
        with _opened(path) as stream:
            head = _head(stream)
    except OSError as error:
        raise BadInput(
            f"{name} can't be read: {error.strerror or error}", fix="check the file and its permissions"
        ) from None
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise BadInput(
            f"{name} is empty" if not n_bytes else f"{name} holds nothing but space", fix="name a file with rows in it"
        )
    return InputFile(name, path, _layout(head, path), sha256, n_bytes)


def _opened(path: Path) -> io.BufferedReader:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    raw: Any = gzip.GzipFile(path) if packed else io.FileIO(path)
    return io.BufferedReader(raw, 1 << 17)


def _content_digest(path: Path) -> tuple[str, int]:
    digest, n_bytes = hashlib.sha256(), 0
    with _opened(path) as stream:
        for chunk in _chunks(stream):
            if isinstance(chunk, bytes):
                digest.update(chunk)
                n_bytes += len(chunk)
    return digest.hexdigest(), n_bytes


def _chunks(stream: io.BufferedReader) -> Iterator[bytes | str]:
    """The file's bytes; where the packing is damaged a last item of text says how."""
    while True:
        try:
            chunk = stream.read1(1 << 17)
        except _DAMAGE as error:
            yield damage(error)
            return
        if not chunk:
            return
        yield chunk


def damage(error: Exception) -> str:
    """What a broken gzip file is called in a receipt."""
    return (
        f"the gzip file is damaged here ({str(error).rstrip('.').lower()}): this row and whatever followed it are lost"
    )


def _head(stream: io.BufferedReader) -> bytes:
    head = b""
    for chunk in _chunks(stream):
        if isinstance(chunk, str):
            return head or b"?"  # damaged from the start: read as lines, so that the receipt says so
        head += chunk
        if len(head) >= _PEEK_BYTES:
            break
    return head


def _layout(head: bytes, path: Path) -> Layout:
    """Content first, the name only where the first line says nothing."""
    if head.startswith(b"PAR1"):
        return "parquet"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"["):
        line, newline, rest = text.partition(b"\n")
        return "jsonl" if newline and rest.strip() and rest.strip() != b"]" and _parsed_whole(line) else "json"
    if text.startswith(b"{"):
        return "jsonl"
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if any(suffix in (".jsonl", ".json", ".ndjson") for suffix in suffixes):
        return "jsonl"
    first = text.partition(b"\n")[0]
    return "csv" if {".csv", ".tsv"} & set(suffixes) or re.search(rb"[,;\t]", first) else "jsonl"


def _parsed_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _lines(stream: io.BufferedReader) -> Iterator[tuple[int, bytes, str]]:
    """(number, line, '') or (number, b'', problem); never more than MAX_RECORD_BYTES of a line in memory."""
    number = 0
    while True:
        number += 1
        try:
            line = stream.readline(MAX_RECORD_BYTES + 1)
            n_bytes = len(line)
            while n_bytes > MAX_RECORD_BYTES and not line.endswith(b"\n"):
                line = stream.readline(1 << 16)
                if not line:
                    break
                n_bytes += len(line)
        except _DAMAGE as error:
            yield number, b"", damage(error)
            return
        if n_bytes > MAX_RECORD_BYTES:
            yield number, b"", f"the line is {n_bytes:,} bytes, over the limit of {MAX_RECORD_BYTES:,} for one row"
        elif not line:
            return
        else:
            yield number, line, ""


class _DuplicateKey(ValueError):
    pass


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _DuplicateKey(f"the key {twice!r:.60} stands twice in one object")
    return record


def _no_constant(word: str) -> Any:
    raise _DuplicateKey(f"{word} is no JSON number")


_decoder = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant)


def _parsed(raw: bytes, problem: str) -> tuple[dict[str, Any] | None, str]:
    if problem:
        return None, problem
    try:
        value = _decoder.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 (byte {error.start + 1} of the row)"
    except _DuplicateKey as error:
        return None, str(error)
    except RecursionError:
        return None, "not JSON that can be read: nested too deeply"
    except json.JSONDecodeError as error:
        return None, f"not JSON ({error.msg.lower()}, character {error.pos + 1})"
    except ValueError as error:
        return None, f"not JSON that can be read ({str(error).split(';')[0].lower()})"
    if not isinstance(value, dict):
        return None, f"{json_kind(value)}, not an object"
    return value, ""


def _parquet_rows(path: Path) -> Iterator[Row]:
    """Our own exports, back in; needs pyarrow, and reads one batch at a time."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(1000):
            for record in batch.to_pylist():
                number += 1
                yield Row(number, {key: value for key, value in record.items() if value is not None})
    except pyarrow.ArrowException as error:
        yield Row(
            number + 1, None, f"the Parquet file is damaged here ({str(error).splitlines()[0]}): the rest is lost"
        )
