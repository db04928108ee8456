"""A bandit's log from a CSV file, plain or gzipped, read row by row: what was shown, what it earned, with which chance.

A row that can't be read stops the reading and is named: to leave rows out would change what is estimated.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rlhf.errors import BadInput
from rlhf.measures import off_policy
from rlhf.measures.off_policy import Log

if TYPE_CHECKING:
    from _csv import Reader

UNIFORM = "uniform"
_GZIP = b"\x1f\x8b"
_SUM = 1e-6


def read_log(
    file: Path, *, action: str, reward: str, propensity: str, context: str | None = None, unit: str | None = None
) -> Log:
    """The log in these columns. Raises BadInput naming the columns that the file lacks, or the line and what is wrong with it:
    a reward that is no number, a propensity outside 0 to 1, an empty action, a line of another length."""
    wanted = [action, reward, propensity, *(name for name in (context, unit) if name is not None)]
    actions, contexts, units = _Names(), _Names(), _Names()
    rewards, propensities = array("d"), array("d")
    for line, cells in _records(file, wanted):
        if not cells[0]:
            raise _bad(file, line, f"{action} is empty")
        actions.add(cells[0])
        rewards.append(_number(file, line, reward, cells[1]))
        propensities.append(_propensity(file, line, propensity, cells[2]))
        if context is not None:
            contexts.add(cells[3])
        if unit is not None:
            units.add(cells[-1])
    if not rewards:
        raise BadInput(f"{file} has a header and no rows", fix="give a log with a row for each decision")
    log = {"action_N": actions.codes, "reward_N": np.array(rewards), "propensity_N": np.array(propensities)}
    log["context_N"] = np.zeros(len(rewards), dtype=np.intp) if context is None else contexts.codes
    try:
        return Log(
            **log,
            actions=actions.names,
            contexts=("",) if context is None else contexts.names,
            unit_N=None if unit is None else units.codes,
        )
    except ValueError as error:
        raise BadInput(f"{file}: {error}", fix="name a context with fewer values, or none") from None


def target_of(
    word: str, log: Log, *, action: str = "action", context: str | None = None
) -> tuple[Log, NDArray[np.float64]]:
    """The policy that a word names, and the log with any actions that it alone knows: `uniform` (over the actions seen), a CSV file
    of `action, probability` (and `context`), or one action. Raises BadInput for a file that is no policy.

    action, context: what the log calls these columns; the file may call them so too.
    """
    if word == UNIFORM:
        return log, off_policy.uniform(log)
    if word not in log.actions and (word.endswith((".csv", ".csv.gz")) or Path(word).is_file()):
        return _read_target(Path(word), log, action, context)
    log = with_actions(log, [word])
    return log, off_policy.always(log, log.actions.index(word))


def with_actions(log: Log, names: Sequence[str]) -> Log:
    """The log, these actions among its own whether it shows them or not."""
    return replace(log, actions=[*log.actions, *(name for name in dict.fromkeys(names) if name not in log.actions)])


def _read_target(file: Path, log: Log, action: str, context: str | None) -> tuple[Log, NDArray[np.float64]]:
    header = _header(file)
    columns = [_either(file, header, action, "action"), _either(file, header, "probability", "propensity")]
    by_context = context is not None and (context in header or "context" in header)
    if by_context:
        columns.append(_either(file, header, str(context), "context"))
    rows = [
        (line, cells[0], _propensity(file, line, columns[1], cells[1]), cells[2] if by_context else "")
        for line, cells in _records(file, columns)
    ]
    log = with_actions(log, [name for _, name, _, _ in rows])
    place = {name: i for i, name in enumerate(log.actions)}
    number = {name: i for i, name in enumerate(log.contexts)} if by_context else {"": 0}
    target = np.zeros((len(number), len(log.actions)))
    for _, name, p, where in rows:
        if where in number:  # contexts that the log never met ask for nothing
            target[number[where], place[name]] += p
    for where, total in zip(number, target.sum(axis=1), strict=True):
        if abs(total - 1) > _SUM:
            of = f" in context {where}" if by_context else ""
            raise BadInput(
                f"{file}: the probabilities{of} sum to {total:.6g}, wanted 1", fix="give one for each action"
            )
    return log, target if by_context else np.tile(target, (len(log.contexts), 1))


def _either(file: Path, header: Sequence[str], first: str, other: str) -> str:
    for name in (first, other):
        if name in header:
            return name
    raise _lacking(file, [first], header)


class _Names:
    """Words to numbers in the order in which they come, 4 bytes a row."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}
        self._codes = array("i")

    def add(self, word: str) -> None:
        self._codes.append(self._of.setdefault(word, len(self._of)))

    @property
    def names(self) -> list[str]:
        return list(self._of)

    @property
    def codes(self) -> NDArray[np.intp]:
        return np.array(self._codes, dtype=np.intp)


def _header(file: Path) -> list[str]:
    with _opened(file) as reader:
        return _first(file, reader)


def _records(file: Path, wanted: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(line, the wanted cells) of each record."""
    with _opened(file) as reader:
        header = _first(file, reader)
        if missing := [name for name in dict.fromkeys(wanted) if name not in header]:
            raise _lacking(file, missing, header)
        at = [header.index(name) for name in wanted]
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise _bad(file, reader.line_num, f"it has {len(cells)} columns where the header has {len(header)}")
            yield reader.line_num, [cells[i].strip() for i in at]


@contextmanager
def _opened(file: Path) -> Iterator[Reader]:
    """A reader of the file's records; whatever goes wrong while it is read is said of the file."""
    reader = None
    try:
        with open(file, "rb") as raw:
            is_packed = raw.peek(2)[:2] == _GZIP
            with io.TextIOWrapper(gzip.open(raw) if is_packed else raw, "utf-8-sig", newline="") as text:
                reader = csv.reader(text, strict=True)
                yield reader
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise BadInput(f"{file} can't be unpacked: {error}", fix="copy the file again") from None
        raise BadInput(f"{file} can't be read: {error.strerror}", fix="give the path of a readable CSV file") from None
    except (EOFError, zlib.error) as error:
        raise BadInput(f"{file} can't be unpacked: {error}", fix="copy the file again") from None
    except UnicodeDecodeError:
        raise BadInput(f"{file} is not UTF-8", fix="save the file as UTF-8, comma-separated") from None
    except csv.Error as error:
        line = reader.line_num if reader is not None else 0
        raise BadInput(f"{file} line {line} is not CSV: {error}", fix="mend the line's quotes") from None


def _first(file: Path, reader: Reader) -> list[str]:
    header = [cell.strip() for cell in next(reader, [])]
    if not any(header):
        raise BadInput(f"{file} has no header", fix="put the columns' names first, with commas between")
    return header


def _lacking(file: Path, missing: Sequence[str], header: Sequence[str]) -> BadInput:
    shown = ", ".join(name for name in header[:12] if name) + (", …" if len(header) > 12 else "")
    return BadInput(
        f"{file} has no column {', '.join(missing)}; it has {shown}",
        fix="name its columns with --action, --reward, --propensity and --context",
    )


def _number(file: Path, line: int, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _bad(file, line, f"{column} is {cell!r:.40}, wanted a number")
    return value


def _propensity(file: Path, line: int, column: str, cell: str) -> float:
    value = _number(file, line, column, cell)
    if not 0 <= value <= 1:
        raise _bad(file, line, f"{column} is {cell:.40}, wanted a chance above 0 and up to 1")
    return value


def _bad(file: Path, line: int, what: str) -> BadInput:
    return BadInput(
        f"{file} line {line}: {what}", fix="mend the line; none is left out, for that would change the estimate"
    )
