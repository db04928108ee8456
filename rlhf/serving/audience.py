"""Audience rules: small typed operators on a request's context, read from YAML or JSON, with everything wrong said at once. Pure.

    all:
      - {field: country, in: [AT, DE]}
      - any:
          - {field: plan, equals: paid}
          - {field: age_days, at_least: 30}

Operators: equals, in, not_in, prefix, less, at_least, exists; `all` and `any` join them. A field that the context lacks, or
whose value is of another type than the operator's, fits none of them but `exists: false`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rlhf.errors import BadInput

_DEEPEST, _MOST = 8, 100
_MOST_VALUES, _LONGEST = 1000, 200


class Rule(Protocol):
    """Holds or not; as text it is the rule in words."""

    def holds(self, context: Mapping[str, Any]) -> bool: ...


@dataclass(frozen=True, slots=True)
class FieldRule:
    """One operator on one field."""

    field: str
    operator: str
    value: Any

    def holds(self, context: Mapping[str, Any]) -> bool:
        if self.operator == "exists":
            return (self.field in context) is self.value
        return self.field in context and _HOLDS[self.operator](context[self.field], self.value)

    def __str__(self) -> str:
        if self.operator == "exists":
            return f"{self.field} is {'there' if self.value else 'absent'}"
        said = list(self.value) if isinstance(self.value, tuple) else self.value
        return f"{self.field} {_WORDS[self.operator]} {said!r}"


@dataclass(frozen=True, slots=True)
class Joined:
    """All or any of some rules."""

    how: str
    rules: tuple[Rule, ...]

    def holds(self, context: Mapping[str, Any]) -> bool:
        return (all if self.how == "all" else any)(rule.holds(context) for rule in self.rules)

    def __str__(self) -> str:
        between = " and " if self.how == "all" else " or "
        return between.join(f"({rule})" if isinstance(rule, Joined) else str(rule) for rule in self.rules)


def read_rule(stored: Any) -> Rule:
    """The rule. Raises BadInput naming all that is wrong, each with its place."""
    problems: list[str] = []
    left = [_MOST]
    rule = _read(stored, "audience", 1, left, problems)
    if left[0] < 0:
        problems.append(f"audience: more than {_MOST} rules")
    if problems or rule is None:
        raise BadInput("; ".join(problems), fix=f"operators: {', '.join(_WANTS)}; join rules by all: or any:")
    return rule


def _read(stored: Any, place: str, depth: int, left: list[int], problems: list[str]) -> Rule | None:
    left[0] -= 1
    if left[0] < 0:
        return None
    if not isinstance(stored, Mapping):
        problems.append(f"{place} = {stored!r:.60}: wanted a rule, as field and operator, or all: or any: and a list")
        return None
    joins = [how for how in ("all", "any") if how in stored]
    if joins:
        return _read_joined(stored, joins[0], place, depth, left, problems)
    field = stored.get("field")
    operators = [key for key in stored if key != "field"]
    before = len(problems)
    if not isinstance(field, str) or not 0 < len(field) <= _LONGEST:
        problems.append(f"{place}.field = {field!r:.60}: wanted the name of a field of the context")
    if len(operators) != 1:
        problems.append(f"{place} has {len(operators)} operators; wanted one")
    for operator in operators:
        if operator not in _WANTS:
            problems.append(f"{place}.{operator!s:.40} is no operator")
        elif not _WANTS[operator][0](stored[operator]):
            problems.append(f"{place}.{operator} = {stored[operator]!r:.60}: wanted {_WANTS[operator][1]}")
    if len(problems) > before:
        return None
    value = stored[operators[0]]
    return FieldRule(str(field), operators[0], tuple(value) if isinstance(value, list | tuple) else value)


def _read_joined(
    stored: Mapping[Any, Any], how: str, place: str, depth: int, left: list[int], problems: list[str]
) -> Rule | None:
    inner = stored[how]
    if len(stored) > 1:
        problems.append(f"{place}: {how} stands beside {', '.join(str(key) for key in stored if key != how)}")
    if not isinstance(inner, list | tuple) or not inner:
        problems.append(f"{place}.{how} = {inner!r:.60}: wanted a list of rules")
        return None
    if depth >= _DEEPEST:
        problems.append(f"{place} is deeper than {_DEEPEST} rules in one another")
        return None
    rules = [_read(one, f"{place}.{how}[{i}]", depth + 1, left, problems) for i, one in enumerate(inner)]
    return Joined(how, tuple(rule for rule in rules if rule is not None))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _is_value(value: Any) -> bool:
    return isinstance(value, bool) or _is_number(value) or (isinstance(value, str) and len(value) <= _LONGEST)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and 0 < len(value) <= _MOST_VALUES and all(map(_is_value, value))


def _same(seen: Any, wanted: Any) -> bool:
    """Equal, and of one type: True is not 1, 1 is 1.0, "1" is neither."""
    return isinstance(seen, bool) is isinstance(wanted, bool) and bool(seen == wanted)


_HOLDS: dict[str, Callable[[Any, Any], bool]] = {
    "equals": _same,
    "in": lambda seen, wanted: any(_same(seen, one) for one in wanted),
    "not_in": lambda seen, wanted: not any(_same(seen, one) for one in wanted),
    "prefix": lambda seen, wanted: isinstance(seen, str) and seen.startswith(wanted),
    "less": lambda seen, wanted: _is_number(seen) and seen < wanted,
    "at_least": lambda seen, wanted: _is_number(seen) and seen >= wanted,
}
_WORDS = {
    "equals": "is",
    "in": "is one of",
    "not_in": "is none of",
    "prefix": "begins with",
    "less": "is less than",
    "at_least": "is at least",
}
_A_LIST = (_is_list, f"a list of 1 to {_MOST_VALUES} texts, numbers or truth values")
_A_NUMBER = (_is_number, "a number")
_WANTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "equals": (_is_value, "a text, a number or a truth value"),
    "in": _A_LIST,
    "not_in": _A_LIST,
    "prefix": (lambda value: isinstance(value, str) and 0 < len(value) <= _LONGEST, "a text"),
    "less": _A_NUMBER,
    "at_least": _A_NUMBER,
    "exists": (lambda value: isinstance(value, bool), "true or false"),
}
