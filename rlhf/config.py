"""Settings: YAML and `key=value` words become one typed, frozen record, or one error that names everything that is wrong.

A setting lives once: a pydantic field whose description is its help. `--help`, commented YAML and the documentation are
printed from it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from rlhf.errors import BadUsage


class Settings(BaseModel):
    """Base of every settings record: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


S = TypeVar("S", bound=Settings)


def load(kind: type[S], file: Path | None = None, words: Iterable[str] = (), **flags: Any) -> S:
    """Settings from a YAML file, then `key=value` words, then flags that are not None; later ones win.

    Raises BadUsage naming every unknown key (with the nearest known one) and every bad value at once.
    """
    values = given(file, words)
    values.update({key: value for key, value in flags.items() if value is not None})
    try:
        return kind(**values)
    except ValidationError as error:
        raise BadUsage(_all_problems(kind, error), fix=_fix(kind, error)) from None


def given(file: Path | None = None, words: Iterable[str] = ()) -> dict[str, Any]:
    """What a YAML file and `key=value` words say, unchecked; words win. Raises BadUsage where they can't be read."""
    values: dict[str, Any] = dict(_read_yaml(file)) if file else {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise BadUsage(f"'{word}' is no setting", fix="write settings as key=value, for instance epochs=2")
        values[key] = _read_value(word, text)
    return values


def to_yaml(settings: Settings, *, command: str | None = None) -> str:
    """YAML with each field's help as a comment above it; opens with the command that runs it."""
    lines = [f"# {command}"] if command else []
    for name, field in type(settings).model_fields.items():
        if field.description:
            lines.append(f"# {field.description}")
        value = settings.model_dump(mode="json")[name]
        lines.append(yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True).rstrip("\n"))
    return "\n".join(lines) + "\n"


def describe(kind: type[Settings]) -> str:
    """One line a setting: `name=default  help`."""
    rows = [
        (f"{n}={f.get_default(call_default_factory=True)!r}" if not f.is_required() else n, f.description or "")
        for n, f in kind.model_fields.items()
    ]
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"  {left:<{width}}  {help_text}" for left, help_text in rows)


def _read_yaml(file: Path) -> Mapping[str, Any]:
    try:
        loaded = yaml.safe_load(file.read_text("utf-8"))
    except FileNotFoundError:
        raise BadUsage(f"no settings file at {file}", fix="check the path given to --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadUsage(f"{file} can't be read: {error}", fix="give --config a readable UTF-8 YAML file") from None
    except yaml.YAMLError as error:
        raise BadUsage(f"{file} is not YAML: {error}", fix="mend the file; each line is `key: value`") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, Mapping):
        raise BadUsage(f"{file} holds a {type(loaded).__name__}, not settings", fix="each line is `key: value`")
    return {str(key): value for key, value in loaded.items()}


def _read_value(word: str, text: str) -> Any:
    """`key=value` words are read as YAML, with 2e-4 taken as a number (YAML 1.1 wants a dot)."""
    try:
        return float(text) if "e" in text.lower() else yaml.safe_load(text)
    except ValueError:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise BadUsage(
            f"'{word}' has a value that is not YAML", fix="quote the value, for instance 'key=\"a: b\"'"
        ) from None


def _all_problems(kind: type[Settings], error: ValidationError) -> str:
    problems = []
    for entry in error.errors():
        name = ".".join(str(part) for part in entry["loc"])
        if entry["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, kind.model_fields, n=1)
            problems.append(f"unknown setting '{name}'" + (f" (nearest: '{near[0]}')" if near else ""))
        elif entry["type"] == "missing":
            problems.append(f"'{name}' is missing")
        elif not name:  # settings that don't go together: the message says which
            problems.append(str(entry["msg"]).removeprefix("Value error, "))
        else:
            problems.append(f"'{name}' = {entry.get('input')!r}: {entry['msg']}")
    return "; ".join(problems)


def _fix(kind: type[Settings], error: ValidationError) -> str:
    known = ", ".join(kind.model_fields)
    return f"correct {'it' if error.error_count() == 1 else 'them'}; the settings are {known}"
