"""`rlhf report diff A B` for people: each figure of both with interval and n, the change, and paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_NOTE = (
    "Intervals (95 %) that overlap are no test: two figures may differ though theirs do. Only a paired difference is one: where "
    "its interval holds 0, none is shown."
)
Row = tuple[str, ...]


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The answer of `rlhf.evaluation.diff` as lines."""
    for side in ("a", "b"):
        yield f"{side.upper()}  {found[side]['title']}  (report {found[side]['report'][:12]}, seed {found[side]['seed']})"
    yield (
        "same pairs"
        if found["same_pairs"]
        else "other pairs: a change may come from the data, and no difference is paired"
    )
    for entry in found["figures"]:
        yield ""
        yield f"{entry['a']} → {entry['b']}"
        yield from _table([_HEAD, *(_row(name, change) for name, change in entry["changes"].items())])
        if entry["paired"] is None:
            yield f"  no paired difference: {entry['why_unpaired']}"
        for name, m in (entry["paired"] or {}).items():
            held = "no interval" if m["low"] is None else f"{m['low']:+.3f} to {m['high']:+.3f}"
            yield f"  paired, {entry['b']} − {entry['a']}: {name} {m['value']:+.3f} ({held}, n {m['n']:,}, {m['method']})"
    yield ""
    yield _NOTE


_HEAD: Row = ("figure", "A", "95 % interval", "n", "B", "95 % interval", "n", "change")


def _row(name: str, change: Mapping[str, Any]) -> Row:
    sides = [cell for side in ("a", "b") for cell in _side(change, side)]
    return (name, *sides, _short(change["change"], "+"))


def _side(change: Mapping[str, Any], side: str) -> Row:
    low, high, n = (change.get(f"{side}_{name}") for name in ("low", "high", "n"))
    interval = "" if low is None else f"{low:.3f} to {high:.3f}"
    return _short(change[side]), interval, "" if n is None else f"{n:,}"


def _table(rows: list[Row]) -> Iterator[str]:
    """The first column to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield f"  {'  '.join(cells)}".rstrip()


def _short(value: float | None, sign: str = "") -> str:
    if value is None:
        return "–"
    return f"{value:{sign}d}" if isinstance(value, int) else f"{value:{sign}.3f}"
