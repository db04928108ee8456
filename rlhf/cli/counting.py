"""Counts on standard error while something long goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable


def counting(did: str, things: str) -> Callable[[int, int], None]:
    """`scored 30/300 pairs` for did = scored, things = pairs: rewritten in place on a terminal, else a line every tenth."""
    last = -1

    def show(done: int, total: int) -> None:
        nonlocal last
        tenth = done * 10 // total if total else 10
        said = f"{did} {done}/{total} {things}"
        if sys.stderr.isatty():
            print(f"\r{said}", end="\n" if done >= total else "", file=sys.stderr, flush=True)
        elif tenth != last:
            print(said, file=sys.stderr, flush=True)
        last = tenth

    return show
