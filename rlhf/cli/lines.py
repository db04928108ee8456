"""JSONL that a command reads whole before it does anything: a bad line is an error with its number."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from pathlib import Path
from typing import Any

from rlhf.errors import BadInput

_GZIP = b"\x1f\x8b"


def json_lines(file: Path) -> list[tuple[int, Any]]:
    """(line number, value) of each line that isn't blank, plain or gzipped; `-` reads standard input. Raises BadInput naming file
    and line."""
    name = named(file)
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise BadInput(
            f"{name} can't be read: {error.strerror}", fix="give the path of a readable JSONL file"
        ) from None
    if raw.startswith(_GZIP):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput(f"{name} can't be unpacked: {error}", fix="copy the file again") from None
    found = []
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            found.append((number, _value(line.decode("utf-8-sig" if number == 1 else "utf-8"))))
        except UnicodeDecodeError:
            raise BadInput(f"{name} line {number} is not UTF-8", fix="save the file as UTF-8") from None
        except UnicodeEncodeError:
            raise BadInput(
                f"{name} line {number} holds half of a surrogate pair, which is no character", fix="mend the escape"
            ) from None
        except RecursionError:
            raise BadInput(f"{name} line {number} is nested too deep", fix="each line is one JSON object") from None
        except ValueError as error:
            raise BadInput(f"{name} line {number} is not JSON: {error}", fix="each line is one JSON object") from None
    if not found:
        raise BadInput(f"{name} holds no line", fix="each line is one JSON object")
    return found


def named(file: Path) -> str:
    """What errors call the file."""
    return "standard input" if str(file) == "-" else str(file)


def _value(text: str) -> Any:
    value = json.loads(text, parse_constant=_refuse)
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")
