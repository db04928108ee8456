"""Items of a JSON list, cut out of a stream of bytes without reading the list whole.

The scanner follows strings and brackets only, so an item that is no JSON costs that item, and one over the limit is
passed over without being held.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_OUTSIDE = re.compile(rb'["\[\]{},]')
_INSIDE = re.compile(rb'["\\]')


def items_of(chunks: Iterable[bytes | str], limit: int) -> Iterator[tuple[int, bytes, str]]:
    """(number, item's bytes, '') or (number, b'', problem). A chunk of text is a problem that ends the stream."""
    number, depth, in_string, skip_one = 1, 0, False, False
    item, n_bytes, closed = bytearray(), 0, False

    def cut() -> tuple[int, bytes, str]:
        if n_bytes > limit:
            return number, b"", f"the item is {n_bytes:,} bytes, over the limit of {limit:,} for one row"
        return number, bytes(item), ""

    for chunk in chunks:
        if isinstance(chunk, str):
            yield number, b"", chunk
            return
        if closed:
            if chunk.strip():
                yield number, b"", "text follows after the end of the list"
                return
            continue
        start = position = 0
        if skip_one:
            position, skip_one = 1, False
        while found := (_INSIDE if in_string else _OUTSIDE).search(chunk, position):
            mark, position = found.group(), found.end()
            if mark == b"\\":
                skip_one = position >= len(chunk)
                position += 1
            elif mark == b'"':
                in_string = not in_string
            elif mark in b"[{":
                depth += 1
                start = position if depth == 1 else start
            elif depth > 1:
                depth -= mark in b"]}"
            elif mark != b"}":  # a comma or bracket of the list itself: the item ends
                n_bytes += found.start() - start
                if n_bytes <= limit:
                    item += chunk[start : found.start()]
                start, closed = position, mark == b"]"
                if item.strip() or n_bytes > limit or mark == b"," or number > 1:
                    yield cut()
                    number += 1
                item, n_bytes = bytearray(), 0
                if closed:
                    break
        if closed:
            if chunk[position:].strip():
                yield number, b"", "text follows after the end of the list"
                return
            continue
        if depth:
            n_bytes += len(chunk) - start
            if n_bytes <= limit:
                item += chunk[start:]
    if not closed:
        yield number, b"", "the list isn't closed: this item and whatever followed it are lost"
