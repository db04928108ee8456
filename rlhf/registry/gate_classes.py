"""Risk classes: one file of gates, each with a name, where a class may extend another.

classes:
  low:
    report: evaluation
    rules: [accuracy_low >= 0.60]
    review_days: 180
  high:
    extends: low
    rules: [fairness.worst_gap <= 0.05]
    signoffs: [evaluator, safety]
    canary: 24h
    review_days: 30

What extends has the other's rules and sign-offs and its own beside them; a rule on the same figure, and any other setting, stands
in the other's place. An alias keeps the rules as they were read when its gate was set: a file changed later changes no gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlhf import config
from rlhf.errors import BadUsage
from rlhf.registry.gate_rules import GateRules, Rule, contradiction

_CLASSES, _EXTENDS = "classes", "extends"


def read_rules(file: Path, risk_class: str | None = None) -> GateRules:
    """The rules of a YAML file; of the class, where it has several. Raises BadUsage naming everything that is wrong with them."""
    classes = _classes(file)
    if classes is None:
        if risk_class is not None:
            raise BadUsage(
                f"{file} has the rules of one gate, and no classes", fix="leave --class out, or name another file"
            )
        return _meetable(config.load(GateRules, file), str(file))
    if risk_class is None:
        raise BadUsage(f"{file} has the classes {', '.join(classes)}", fix="say which with --class")
    return _rules(classes, risk_class)


def read_classes(file: Path) -> dict[str, GateRules]:
    """Every class of the file, each with what it extends in it. Raises BadUsage naming what is wrong with the first that is."""
    classes = _classes(file)
    if classes is None:
        raise BadUsage(f"{file} has no classes", fix="write `classes:` and, under each name, its rules")
    return {name: _rules(classes, name) for name in classes}


def _classes(file: Path) -> dict[str, Any] | None:
    """None where the file holds one gate's rules."""
    if not file.is_file():
        raise BadUsage(f"no rules at {file}", fix="check the path given to --rules")
    given = config.given(file)
    if _CLASSES not in given:
        return None
    classes, others = given.pop(_CLASSES), sorted(given)
    if others:
        raise BadUsage(f"{file} has {', '.join(map(repr, others))} beside its classes", fix="put it into the classes")
    if not isinstance(classes, Mapping) or not classes:
        raise BadUsage(f"{file}: 'classes' = {classes!r}: wanted name: rules", fix="see configs/gates/classes.yaml")
    return {str(name): one for name, one in classes.items()}


def _rules(classes: Mapping[str, Any], name: str) -> GateRules:
    try:
        rules = config.load(GateRules, **{**_extended(classes, name, ()), "risk_class": name})
    except BadUsage as error:
        raise BadUsage(f"class {name}: {error.message}", fix=error.fix) from None
    return _meetable(rules, f"class {name}")


def _meetable(rules: GateRules, where: str) -> GateRules:
    if said := contradiction(rules.rules):
        raise BadUsage(f"{where}: {said}", fix="drop one of the two, or correct its bound")
    return rules


def _extended(classes: Mapping[str, Any], name: str, below: tuple[str, ...]) -> dict[str, Any]:
    """The class's settings with those of what it extends under them."""
    if name in below:
        raise BadUsage(f"{' extends '.join((*below, name))}, round and round", fix="let one of them extend nothing")
    if name not in classes:
        raise BadUsage(f"there is no class {name!r}", fix=f"the classes are {', '.join(classes)}")
    own = classes[name]
    if not isinstance(own, Mapping):
        raise BadUsage(f"{name!r} = {own!r}: wanted rules, as key: value", fix="see configs/gates/classes.yaml")
    own = {str(key): value for key, value in own.items()}
    extends = own.pop(_EXTENDS, None)
    if extends is None:
        return own
    under = _extended(classes, str(extends), (*below, name))
    mine, theirs = (_parsed(one.get("rules")) for one in (own, under))
    replaced = {(rule.figure, rule.relative) for rule in mine}
    kept = tuple(rule for rule in theirs if (rule.figure, rule.relative) not in replaced)
    roles = dict.fromkeys((*(under.get("signoffs") or ()), *(own.get("signoffs") or ())))
    return {**under, **own, "rules": (*kept, *mine), "signoffs": tuple(roles)}


def _parsed(rules: Any) -> tuple[Rule, ...]:
    """Rules of one class, checked before they are put together with another's."""
    if not isinstance(rules, list | tuple | None):
        raise BadUsage(f"'rules' = {rules!r}: wanted a list of rules", fix="write each behind a dash")
    problems: list[str] = []
    found: list[Rule] = []
    for one in rules or ():
        try:
            found.append(Rule.model_validate(one))
        except ValidationError as error:
            problems += config.problems_of(Rule, error)
    if problems:
        raise BadUsage("; ".join(problems), fix="correct the rules")
    return tuple(found)
