"""Settings: YAML and `key=value` words become one typed, frozen record, or one error that names everything that is wrong.

A setting lives once: a pydantic field whose description is its help. `--help`, commented YAML and the documentation are
printed from it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from rlhf.errors import BadUsage


class Settings(BaseModel):
    """Base of every settings record: frozen, and an unknown key is an error. LISTED_BY: the command that lists them all."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    LISTED_BY: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _off_is_a_word(cls, values: Any) -> Any:
        """YAML reads `off` as false: where a setting knows the word, that is what was meant."""
        if not isinstance(values, Mapping):
            return values
        known = {name for name, field in cls.model_fields.items() if "off" in get_args(field.annotation)}
        return {name: "off" if value is False and name in known else value for name, value in values.items()}


def require_together(*wanted: tuple[bool, str]) -> None:
    """For a record's validator: raise ValueError with the words of everything that isn't so, at once."""
    if problems := [words for is_so, words in wanted if not is_so]:
        raise ValueError("; ".join(problems))


S = TypeVar("S", bound=Settings)
_NEAREST = 3  # known settings that an error names for an unknown one
_CLOSE, _FAR = 0.75, 0.6  # likeness from which several are named, and the best alone


def load(kind: type[S], /, file: Path | None = None, words: Iterable[str] = (), **flags: Any) -> S:
    """Settings from a YAML file, then `key=value` words, then flags that are not None; later ones win.

    A setting of a section is `section.key=value` as a word; what the file says of the section's others is kept. Raises
    BadUsage naming every word that is no setting, every unknown key (with the nearest known ones) and every bad value at once.
    """
    values, problems = _given(file, words)
    values = _nested(kind, values, problems)
    values.update({key: value for key, value in flags.items() if value is not None})
    try:
        settings = kind(**values)
    except ValidationError as error:
        problems += problems_of(kind, error) + _not_together(kind, values, error)
    if problems:
        fix = f"correct {'it' if len(problems) == 1 else 'them'}"
        raise BadUsage("; ".join(problems), fix=f"{fix}; {_where_listed(kind)}")
    return settings


def given(
    file: Path | None = None, words: Iterable[str] = (), *, what: str = "setting", example: str = "epochs=2"
) -> dict[str, Any]:
    """What a YAML file and `key=value` words say, unchecked; words win. what, example: of the words, for errors. Raises BadUsage
    where they can't be read."""
    values, problems = _given(file, words, what)
    if problems:
        raise BadUsage("; ".join(problems), fix=f"write each {what} as key=value, for instance {example}")
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


def _given(file: Path | None, words: Iterable[str], what: str = "setting") -> tuple[dict[str, Any], list[str]]:
    """What was said, and each word that says nothing."""
    values: dict[str, Any] = dict(_read_yaml(file)) if file else {}
    problems = []
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            problems.append(f"'{word}' is no {what} (wanted key=value)")
            continue
        try:
            values[key] = _read_value(text)
        except yaml.YAMLError:
            problems.append(f"'{word}' has a value that is not YAML (quote it, for instance '{key}=\"a: b\"')")
    return values, problems


def _read_value(text: str) -> Any:
    """Values of words are read as YAML, with 2e-4 taken as a number (YAML 1.1 wants a dot)."""
    try:
        return float(text) if "e" in text.lower() else yaml.safe_load(text)
    except ValueError:
        return yaml.safe_load(text)


def _nested(kind: type[Settings], flat: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """`policy.beta` into the section `policy`; a key that names no section stays as it was spelled, to be refused so."""
    values: dict[str, Any] = {}
    for key, value in flat.items():
        section, dot, inner = key.partition(".")
        if not dot or _section(kind, section) is None:
            values[key] = value
        elif isinstance(there := values.get(section) or {}, Mapping):
            values[section] = {**there, inner: value}
        else:
            problems.append(f"'{section}' = {there!r}: wanted settings, of which '{key}' is one")
            del values[section]
    return values


def _not_together(kind: type[Settings], values: Mapping[str, Any], error: ValidationError) -> list[str]:
    """What doesn't go together in the settings that can be read, where others can't: pydantic itself stops at those."""
    bad = {str(entry["loc"][0]) for entry in error.errors() if entry["loc"]}
    if not bad:
        return []  # it has been said already
    try:
        kind(**{key: value for key, value in values.items() if key not in bad})
    except ValidationError as rest:
        return [_problem(kind, entry) for entry in rest.errors() if entry["type"] == "value_error" and not entry["loc"]]
    return []


def problems_of(kind: type[Settings], error: ValidationError) -> list[str]:
    """Everything that is wrong, each in the spelling that a user would write."""
    return list(dict.fromkeys(_problem(kind, entry) for entry in error.errors()))


def _problem(kind: type[Settings], entry: Any) -> str:
    name, what, said = _spelled(entry["loc"]), entry["type"], str(entry["msg"])
    if what == "extra_forbidden":
        near = nearest(kind, name)
        return f"unknown setting '{name}'" + (f" (nearest: {', '.join(map(repr, near))})" if near else "")
    if what == "missing":
        return f"'{name}' is missing"
    if what == "value_error":  # settings that don't go together: the message says which
        said = said.removeprefix("Value error, ")
        return f"'{name}': {said}" if name else said
    if what in ("model_type", "dict_type"):
        return f"'{name}' = {entry['input']!r}: wanted settings, as key: value"
    wanted = said.replace("Input should be", "wanted").partition(", unable to parse")[0]
    return f"'{name}' = {entry['input']!r}: {wanted}"


def nearest(kind: type[Settings], name: str) -> list[str]:
    """Up to three known settings that `name` may have been meant for; one of a section by its own name too."""
    known = list(_keys(kind))
    inner = name.rpartition(".")[2]
    if same := [key for key in known if key.rpartition(".")[2] == inner]:
        return same[:_NEAREST]
    for cutoff in (_CLOSE, _FAR):
        for word in (name, inner):
            if close := difflib.get_close_matches(word, known, n=_NEAREST if cutoff == _CLOSE else 1, cutoff=cutoff):
                return close
    return []


def _keys(kind: type[Settings]) -> Iterator[str]:
    """Every key, those of sections too: `policy`, `policy.beta`; of a list of sections, as errors spell them, without place."""
    for key in kind.model_fields:
        yield key
        section = _section(kind, key)
        yield from (f"{key}.{inner}" for inner in section.model_fields) if section else ()


def _section(kind: type[Settings], key: str) -> type[Settings] | None:
    """The record that a setting holds, alone, optional or in a list; None for a plain value."""
    field = kind.model_fields.get(key)
    waiting = [field.annotation] if field else []
    while waiting:
        one = waiting.pop()
        if isinstance(one, type) and issubclass(one, Settings):
            return one
        waiting += get_args(one)
    return None


def _spelled(place: Iterable[int | str]) -> str:
    """`policy.beta`, `rules[2].figure`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _where_listed(kind: type[Settings]) -> str:
    if kind.LISTED_BY:
        return f"every setting: {kind.LISTED_BY}"
    return f"the settings are {', '.join(kind.model_fields)}"
