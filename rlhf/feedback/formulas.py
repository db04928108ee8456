"""Formulas: what a spreadsheet would run is guarded when a CSV is written, and is the very same text when it is read again.

A cell that begins with = + - @, their full-width forms, a tab or a line break, after any apostrophes and space, gets an apostrophe
before it. That is undone only in files with the columns of our own exports, and there for every cell that was guarded and for no
other: what the apostrophe was put before begins with a formula's sign too, so no two texts are written alike.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_RUNS = re.compile(r"['\s]*[=+\-@＝＋－＠\t\r\n]")
_GUARD = "'"
OURS = frozenset({"prompt", "chosen", "rejected", "labeler", "source", "kind", "strength", "cohort", "consent"})


def guarded(text: str) -> str:
    """The cell for a text; a number is no text and stays a number, a negative one too."""
    return _GUARD + text if _RUNS.match(text) else text


def bare(cell: str) -> str:
    """The text that `guarded` made this cell of."""
    return cell[1:] if cell.startswith(_GUARD) and _RUNS.match(cell, 1) else cell


def is_ours(header: Collection[str]) -> bool:
    """Whether a CSV with these columns was written by `feedback export` or `snapshot export`."""
    return set(header) >= OURS
