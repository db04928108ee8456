"""A figure in a report, found by its name or by the way to it: `accuracy_low`, `fairness.worst_gap`, `length_correlation.abs`.

A way goes from key to key; a key that has dots in it (a source's name) is found whole. What is found may be a number, or a measure
(`{"value", "low", "high", "n", "level", "method"}`), whose value counts; `_low`, `_high`, `.low` and `.high` are its interval's
ends, `.abs` behind all else is its size without the sign.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

_ENDS = ("low", "high")
_ABS = ".abs"
_NEAR = 3  # known figures that a missing one may have been meant for
_SHOWN = 6  # plain figures where nothing is near


@dataclass(frozen=True, slots=True)
class Figure:
    """value: None where there is none, and `trouble` says why. n: of how many `items`; low, high, level, method: its interval."""

    value: float | None
    trouble: str | None = None
    n: int | None = None
    items: str = "items"
    low: float | None = None
    high: float | None = None
    level: float | None = None
    method: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "n": self.n,
            "low": self.low,
            "high": self.high,
            "level": self.level,
            "method": self.method,
        }


def find(figures: Mapping[str, Any], way: str) -> Figure:
    """The figure of a version's figures; its trouble reads behind "the report"."""
    chain = _walk(figures, way.split("."))
    if chain is None and way.endswith(_ABS):
        return _sized(find(figures, way.removesuffix(_ABS)))
    if chain is None:
        return Figure(None, f"has no figure '{way}'", *_count(figures, {}))
    key, parent, leaf = chain
    measure = leaf if isinstance(leaf, Mapping) else _measure(figures, parent, key)
    n, items = _count(parent if "n" in parent else figures, measure)
    value = leaf.get("value") if isinstance(leaf, Mapping) else leaf
    if isinstance(leaf, Mapping) and "value" not in leaf:
        return Figure(None, f"has several figures under '{way}': {', '.join(sorted(map(str, leaf)))[:200]}", n, items)
    low, high, level = (_number(measure.get(part)) for part in (*_ENDS, "level"))
    found = Figure(None, None, n, items, low, high, level, measure.get("method"))
    if is_number(value):
        return replace(found, value=float(value))
    return replace(found, trouble=f"gives no {way}" if value is None else f"has no number under '{way}'")


def ways(figures: Mapping[str, Any]) -> list[str]:
    """The ways to every number and measure, in order; parts of a measure, and lists, are no figures of their own."""
    return sorted(_ways(figures, ""))


def flat(figures: Mapping[str, Any]) -> dict[str, float | int | None]:
    """The figures that have a plain name."""
    return {key: value for key, value in figures.items() if value is None or is_number(value)}


def near(figures: Mapping[str, Any], way: str) -> str:
    """What may have been meant, in words; where nothing is near, what there is."""
    known = ways(figures)
    close = nearest(known, way)
    return f"the nearest are {', '.join(close)}" if close else f"it has {grouped(known)}"


def nearest(known: Sequence[str], way: str) -> list[str]:
    """Of known ways those that this one may have been meant for, the nearest first."""
    return difflib.get_close_matches(way, known, n=_NEAR, cutoff=0.7)


def grouped(known: Sequence[str]) -> str:
    """What there is, in a line: `accuracy, n, fairness.*`; of dozens of figures a few plain ones stand for the rest."""
    plain = sorted(way for way in known if "." not in way)
    groups = sorted({f"{way.partition('.')[0]}.*" for way in known if "." in way})
    more = [f"{len(plain) - _SHOWN} more plain ones"] if len(plain) > _SHOWN else []
    return ", ".join((*plain[:_SHOWN], *more, *groups))


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def stem(figure: str) -> tuple[str, str]:
    """`accuracy_low` → (`accuracy`, `low`); `accuracy` → (`accuracy`, ``)."""
    name, _, end = figure.rpartition("_")
    return (name, end) if end in _ENDS else (figure, "")


def _walk(node: Mapping[str, Any], parts: list[str]) -> tuple[str, Mapping[str, Any], Any] | None:
    """(last key, what holds it, what stands there); None where the way leads nowhere."""
    for taken in range(len(parts), 0, -1):
        key, rest = ".".join(parts[:taken]), parts[taken:]
        if key not in node:
            continue
        if not rest:
            return key, node, node[key]
        if isinstance(node[key], Mapping) and (found := _walk(node[key], rest)) is not None:
            return found
    name, end = stem(".".join(parts))
    measure = node.get(name)
    if end and isinstance(measure, Mapping) and end in measure:
        return end, measure, measure[end]
    return None


def _measure(figures: Mapping[str, Any], parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The measure that a plain number is of: what holds it, or what stands under `measures` beside it."""
    if "value" in parent and "method" in parent:
        return parent
    beside = (parent.get("measures") or {}) if isinstance(parent.get("measures"), Mapping) else {}
    found = beside.get(stem(key)[0]) or (figures.get("measures") or {}).get(key)
    return found if isinstance(found, Mapping) else {}


def _count(holder: Mapping[str, Any], measure: Mapping[str, Any]) -> tuple[int | None, str]:
    """Of how many it is: its own number where there is one. Of a win rate the pairs that the judge told apart or called a tie:
    neither coins nor equal texts, which nobody has judged."""
    n = measure.get("n_judged", measure.get("n", holder.get("n")))
    return (int(n) if is_number(n) else None), "judged replies" if "n_judged" in measure else "items"


def _sized(figure: Figure) -> Figure:
    if figure.value is None:
        return figure
    ends = [abs(end) for end in (figure.low, figure.high) if end is not None]
    spans_zero = figure.low is not None and figure.high is not None and figure.low <= 0 <= figure.high
    low = (0.0 if spans_zero else min(ends)) if len(ends) == 2 else None
    return replace(figure, value=abs(figure.value), low=low, high=max(ends) if len(ends) == 2 else None)


def _ways(node: Mapping[str, Any], before: str) -> Iterator[str]:
    for key, value in node.items():
        if key == "measures":
            continue
        if is_number(value) or value is None or (isinstance(value, Mapping) and "value" in value):
            yield f"{before}{key}"
        elif isinstance(value, Mapping):
            yield from _ways(value, f"{before}{key}.")


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None
