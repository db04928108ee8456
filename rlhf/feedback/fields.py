"""Fields: one value out of a raw record, checked, or `Rejected` with the field's name and what is wrong with it.

Every text that may be stored passes `check_text`: PostgreSQL takes no NUL, UTF-8 no lone surrogate, and a page no 10
MB field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rlhf.feedback.drafts import Rejected
from rlhf.records import CONSENT_SCOPES, ROLES, Message

MAX_FIELD_BYTES = 1_000_000  # of UTF-8, one field
_MAX_NAME = 200  # characters of a labeler, source or cohort: the columns' width
_KINDS = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def json_kind(value: Any) -> str:
    """What a value is in JSON's words; what JSON hasn't (a Parquet file's date, say) keeps its type's name."""
    return _KINDS.get(type(value), type(value).__name__)


def check_text(name: str, value: Any) -> str:
    """Text that can be stored, blank or not."""
    if not isinstance(value, str):
        raise Rejected(f"'{name}' is {json_kind(value)}, not text")
    if "\x00" in value:
        raise Rejected(f"'{name}' holds a NUL character")
    if not value.isascii():
        try:
            n_bytes = len(value.encode("utf-8"))
        except UnicodeEncodeError:
            raise Rejected(f"'{name}' holds a lone surrogate, which is no character") from None
    else:
        n_bytes = len(value)
    if n_bytes > MAX_FIELD_BYTES:
        raise Rejected(f"'{name}' is {n_bytes:,} bytes, over the limit of {MAX_FIELD_BYTES:,}")
    return value


def filled(name: str, value: Any) -> str:
    """Text with something in it."""
    if not check_text(name, value).strip():
        raise Rejected(f"'{name}' is empty" if not value else f"'{name}' is blank")
    return str(value)


def key_of(record: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Which of these names the record has; the first wins."""
    for name in names:
        if name in record:
            return name
    return None


def required(record: Mapping[str, Any], names: Sequence[str]) -> tuple[str, Any]:
    """The name and value of the first of these fields that is there."""
    name = key_of(record, names)
    if name is None:
        raise Rejected(f"field '{names[0]}' is missing")
    return name, record[name]


def short(record: Mapping[str, Any], names: Sequence[str], limit: int = _MAX_NAME) -> str | None:
    """A name such as a labeler's: text or a whole number; None where absent, null or empty."""
    name = key_of(record, names)
    value = record[name] if name else None
    if name is None or value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    text = check_text(name, value).strip()
    if len(text) > limit:
        raise Rejected(f"'{name}' is {len(text):,} characters, over the limit of {limit}")
    return text or None


def note(record: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Free text; None where absent, null or blank."""
    name = key_of(record, names)
    if name is None or record[name] is None:
        return None
    return check_text(name, record[name]) if str(record[name]).strip() else None


def number(record: Mapping[str, Any], names: Sequence[str], *, least: float = -math.inf) -> float | None:
    """A finite number, also written as text (CSV has nothing else); None where absent, null or empty."""
    name = key_of(record, names)
    value = record[name] if name else None
    if name is None or value is None or value == "":
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        found = float(value)
    except (ValueError, OverflowError):
        raise Rejected(f"'{name}' is {brief(value)}, not a number") from None
    if not math.isfinite(found) or found < least:
        raise Rejected(
            f"'{name}' is {brief(value)}; wanted is a finite number"
            + (f" of at least {least:g}" if least > -math.inf else "")
        )
    return found


def consent_of(record: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Scopes that the row itself names, comma-separated or a list; None where it names none."""
    value = record.get("consent")
    if value is None or value == "":
        return None
    words = value if isinstance(value, list) else str(value).split(",")
    scopes = {str(word).strip() for word in words} - {"", "none"}
    if unknown := scopes - set(CONSENT_SCOPES):
        raise Rejected(f"'consent' names {brief(min(unknown))}, not {', '.join(CONSENT_SCOPES)} or none")
    return tuple(sorted(scopes))


def prompt_of(name: str, value: Any) -> tuple[Message, ...]:
    """A prompt as messages: a list of them, or one text that is the user's."""
    value = unfolded(value)
    if isinstance(value, str):
        return (Message("user", filled(name, value)),)
    turns = messages_of(name, value)
    if not turns:
        raise Rejected(f"'{name}' is empty")
    check_order(name, turns)
    if turns[-1].role not in ("user", "tool"):
        raise Rejected(f"'{name}' has its roles out of order: it ends with {turns[-1].role}, not user")
    return turns


def unfolded(value: Any) -> Any:
    """A CSV cell that holds a JSON list of messages, as that list; anything else unchanged."""
    if isinstance(value, str) and value.startswith('[{"'):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def messages_of(name: str, value: Any) -> tuple[Message, ...]:
    """A list of {"role", "content"} as messages; the contents are checked, the order is not."""
    if not isinstance(value, list):
        raise Rejected(f"'{name}' is {json_kind(value)}, not text or a list of messages")
    turns = []
    for number, item in enumerate(value, 1):
        if not isinstance(item, Mapping) or "role" not in item or "content" not in item:
            raise Rejected(f"'{name}' message {number} is no object with 'role' and 'content'")
        if item["role"] not in ROLES:
            raise Rejected(f"'{name}' message {number} has the role {brief(item['role'])}, not {', '.join(ROLES)}")
        turns.append(Message(item["role"], filled(f"{name}' message {number} '{item['role']}", item["content"])))
    return tuple(turns)


_MAY_FOLLOW = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


def check_order(name: str, turns: Sequence[Message]) -> None:
    """System first if at all, then user and assistant in turn; a tool answers an assistant."""
    before: str = ""
    for number, turn in enumerate(turns, 1):
        if turn.role not in _MAY_FOLLOW[before]:
            where = f"after {before}" if before else "first"
            raise Rejected(f"'{name}' has its roles out of order: message {number} is {turn.role}, {where}")
        before = turn.role


def details_of(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, str | int | float]:
    """Those of these fields that are plain values, checked: what is kept beside a pair and decides nothing."""
    found: dict[str, str | int | float] = {}
    for name in names:
        value = record.get(name)
        if isinstance(value, str):
            found[name] = check_text(name, value)
        elif isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
            found[name] = value
    return found


def shown_of(record: Mapping[str, Any]) -> Literal["first", "second"] | None:
    """Which reply stood left, where the record says so as 'ab' or 'ba'."""
    return {"ab": "first", "ba": "second"}.get(str(record.get("shown")))  # type: ignore[return-value]


def brief(value: Any) -> str:
    """A value in an error: escaped, so that it can be printed, and short."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
