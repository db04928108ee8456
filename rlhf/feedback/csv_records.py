"""CSV records with the line that each begins at, out of numbered lines; a stray quote costs one row and not the rest
of the file.

The delimiter is the one of comma, semicolon and tab that the header has most of. Quoted cells may span lines.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rlhf.errors import BadInput
from rlhf.feedback.formulas import bare, is_ours

NumberedLine = tuple[int, bytes, str]  # number, bytes, problem


class _Unusable(Exception):
    """The record can't be read on: an oversized or damaged line, or too much since a quote was opened."""


def csv_records(
    lines: Iterable[NumberedLine], name: str, limit: int
) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    """(first line, record by the header's names, '') or (first line, None, problem). Raises BadInput on an unusable
    header.

    limit: bytes of one record.
    """
    records = _cells(lines, limit)
    _, header, _, problem = next(records, (0, None, 0, "it is empty"))
    if header is None:
        raise BadInput(f"{name} has no header that can be read: {problem}", fix="put the columns' names first")
    header = [cell.strip() for cell in header]
    if twice := {cell for cell in header if header.count(cell) > 1}:
        raise BadInput(f"{name} has two columns named '{min(twice)}'", fix="rename one of them")
    text_of: Callable[[str], str] = bare if is_ours(header) else str
    for line, cells, last, problem in records:
        if cells is None:
            yield line, None, problem
        elif len(cells) != len(header):
            where = f" (lines {line} to {last})" if last > line else ""
            yield line, None, f"{len(cells)} columns where the header has {len(header)}{where}"
        else:
            yield line, dict(zip(header, map(text_of, cells), strict=True)), ""


def _cells(lines: Iterable[NumberedLine], limit: int) -> Iterator[tuple[int, list[str] | None, int, str]]:
    """(first line, cells or None, last line, problem). After an error reading goes on at the line after the record's
    first.
    """
    csv.field_size_limit(limit)  # the module's own limit is 128 KB a cell, for the whole process
    feed = _Feed(lines, limit)
    delimiter = feed.delimiter()
    while True:
        feed.taken.clear()
        problem, cells = "", None
        try:
            cells = next(csv.reader(feed.record(), delimiter=delimiter, strict=True))
        except StopIteration:
            return
        except _Unusable as error:
            problem = str(error) if len(feed.taken) == 1 else "a quote is opened and not closed"
        except csv.Error as error:
            problem = f"not CSV ({str(error).lower()})"
        line, last = feed.taken[0][0], feed.taken[-1][0]
        if problem:
            feed.read_again()
        elif cells and any(
            "\udc80" <= character <= "\udcff" for cell in cells if not cell.isascii() for character in cell
        ):
            problem = "not UTF-8"
        if problem or cells:
            yield line, None if problem else cells, last, problem


class _Feed:
    """Lines for one record at a time, which can be read again but for the first."""

    def __init__(self, lines: Iterable[NumberedLine], limit: int) -> None:
        self.taken: list[NumberedLine] = []
        self._source, self._limit = iter(lines), limit
        self._waiting: list[NumberedLine] = []  # the next one last

    def delimiter(self) -> str:
        head = next(self._source, None)
        if head is None:
            return ","
        self._waiting.append(head)
        return max(",;\t", key=lambda mark: head[1].count(mark.encode()))

    def record(self) -> Iterator[str]:
        held = 0
        while (entry := self._waiting.pop() if self._waiting else next(self._source, None)) is not None:
            self.taken.append(entry)
            held += len(entry[1])
            if entry[2] or held > self._limit:
                raise _Unusable(entry[2] or "a quote is opened and not closed")
            yield entry[1].decode("utf-8", "surrogateescape")

    def read_again(self) -> None:
        self._waiting.extend(reversed(self.taken[1:]))
