"""What is wrong with a request's body, in words: which field, what was seen there, what was wanted. Pure.

Pydantic tells of each branch of a union by itself, under a name of its own making; here a field is named as the client spelled it,
and what its branches want is one sentence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_LONGEST = 40  # characters of a value that is shown
_NUMBER = "a number"
_WANTED: Mapping[str, str] = {
    "string_type": "a text",
    "string_unicode": "a text of whole characters",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
_BOUNDED: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda c: f"more than {c['gt']:g}",
    "greater_than_equal": lambda c: f"{c['ge']:g} or more",
    "less_than": lambda c: f"less than {c['lt']:g}",
    "less_than_equal": lambda c: f"{c['le']:g} or less",
    "string_too_short": lambda c: f"{c['min_length']} or more characters",
    "string_too_long": lambda c: f"at most {c['max_length']} characters",
    "string_pattern_mismatch": lambda c: (
        "a text without the character \\u0000" if "x00" in c["pattern"] else f"a text that matches {c['pattern']}"
    ),
    "too_short": lambda c: f"{c['min_length']} or more",
    "too_long": lambda c: f"at most {c['max_length']}",
    "literal_error": lambda c: str(c["expected"]).replace("'", ""),
}

# Of the right kind, and wrong in another way: the branch of a union that was meant.
_NEAR = {*_BOUNDED, "value_error", "missing", "extra_forbidden"}


def said_of(errors: Sequence[Mapping[str, Any]], body: Any) -> tuple[str, str | None]:
    """What is wrong, in one line, and the first field that is (None = the body itself). errors: pydantic's, `loc` beginning with
    where the value came from; body: the JSON value that was read."""
    placed = [(entry, *_known(entry, body)) for entry in errors]
    unions: dict[str, list[tuple[bool, int]]] = {}
    for entry, place, is_branch in placed:
        if is_branch:
            unions.setdefault(str(place[0]), []).append((entry["type"] in _NEAR, len(place)))
    places: dict[str, list[Mapping[str, Any]]] = {}
    for entry, place, is_branch in placed:
        if not is_branch or (entry["type"] in _NEAR, len(place)) == max(unions[str(place[0])]):
            places.setdefault(_spelled(place), []).append(entry)
    said = "; ".join(_problem(place, found) for place, found in places.items())
    first = next(iter(places), "").partition(".")[0].partition("[")[0]
    return _plain(said), _plain(first) or None


def _problem(place: str, found: Sequence[Mapping[str, Any]]) -> str:
    first = found[0]
    kind, name = first["type"], place or "the body"
    if kind == "json_invalid":
        return f"the body is no JSON: {first.get('ctx', {}).get('error', 'it ends too early')} at character {first['loc'][-1]}"
    if kind == "missing":
        return f"{place} is missing" if place else "the request has no body, wanted a JSON object"
    if kind == "extra_forbidden":
        return f"there is no field {name[:60]!r}"
    wanted = " or ".join(dict.fromkeys(_wanted(entry) for entry in found))
    if kind == "value_error" and not wanted.startswith("wanted "):
        return f"{name}: {wanted}"
    wanted = wanted.removeprefix("wanted ")
    return f"{name} is {_seen(first.get('input'))}, wanted {wanted}"


def _wanted(entry: Mapping[str, Any]) -> str:
    kind, ctx = entry["type"], entry.get("ctx", {})
    if kind in _BOUNDED:
        return _BOUNDED[kind](ctx)
    if kind in _WANTED:
        return _WANTED[kind]
    return str(entry["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")


def _seen(value: Any) -> str:
    """A value as it may be shown: what is long or has parts by its kind alone."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, str) and len(value) > _LONGEST:
        return f"a text of {len(value)} characters"
    return json.dumps(value, ensure_ascii=False, default=lambda one: type(one).__name__)


def _known(entry: Mapping[str, Any], body: Any) -> tuple[list[int | str], bool]:
    """The place as the client wrote it, and whether it is one branch of a union, whose names are pydantic's."""
    known: list[int | str] = []
    inner = entry["loc"][1:]
    if entry["type"] == "json_invalid":
        return known, False
    is_missing, there = entry["type"] == "missing", body
    for part in inner[:-1] if is_missing else inner:
        if part in there if isinstance(there, Mapping) else isinstance(there, list) and isinstance(part, int):
            there = there[part]
            known.append(part)
    if is_missing:
        known += inner[-1:]
    return known, bool(known) and len(known) < len(inner)


def _plain(text: str) -> str:
    """With halves of characters escaped: no answer could carry them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _spelled(place: Sequence[int | str]) -> str:
    """`messages[0].content`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")[:200]
