"""Risk classes: one file, named rules, one class on top of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.errors import BadUsage
from rlhf.registry import GateRules, Rule, read_classes, read_rules
from rlhf.registry.gate_rules import contradiction

PROJECT = Path(__file__).parent.parent
FILE = """
classes:
  low:
    report: evaluation
    rules: [accuracy_low >= 0.55, length_correlation.abs <= 0.2]
    signoffs: [evaluator]
    review_days: 180
  standard:
    extends: low
    rules:
      - accuracy_low >= 0.60 of 50
  high:
    extends: standard
    rules: [fairness.worst_gap <= 0.05]
    signoffs: [safety]
    canary: 24h
    review_days: 30
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "classes.yaml"
    made.write_text(FILE)
    return made


def test_a_class_has_its_own_rules_and_those_of_what_it_extends(file: Path) -> None:
    high = read_rules(file, "high")
    assert high == GateRules(
        report="evaluation",
        rules=(
            Rule(figure="length_correlation.abs", at_most=0.2),
            Rule(figure="accuracy_low", at_least=0.6, min_n=50),
            Rule(figure="fairness.worst_gap", at_most=0.05),
        ),
        signoffs=("evaluator", "safety"),
        canary="24h",
        review_days=30,
        risk_class="high",
    )
    assert high.canary_hours == 24
    assert {name: rules.review_days for name, rules in read_classes(file).items()} == {
        "low": 180, "standard": 180, "high": 30
    }  # fmt: skip


def test_the_class_must_be_named_and_be_there(file: Path) -> None:
    with pytest.raises(BadUsage, match="has the classes low, standard, high") as unsaid:
        read_rules(file)
    assert "--class" in unsaid.value.fix
    with pytest.raises(BadUsage, match="there is no class 'hihg'"):
        read_rules(file, "hihg")
    file.write_text("rules: [accuracy_low >= 0.6]\nreport: evaluation\n")
    with pytest.raises(BadUsage, match="no classes"):
        read_rules(file, "high")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classes: {a: {extends: b, rules: []}, b: {extends: a}}", "a extends b extends a, round and round"),
        ("classes: {a: {extends: z}}", "there is no class 'z'"),
        ("classes: {a: {extends: b, rules: [accuracy ~ 3]}, b: {rules: []}}", "'accuracy ~ 3' is no rule"),
        ("classes: {a: {rules: [x > 1], cannary: 24h}}", "unknown setting 'cannary' (nearest: 'canary')"),
        ("classes: {a: {rules: [x > 1], canary: soon}}", "wanted a time above 0 such as 30m, 24h or 2d"),
        ("classes: {a: {rules: [x > 1], canary: 0h}}", "wanted a time above 0"),
        ("classes: {a: {}}", "a gate wants rules, signoffs or a canary"),
        ("classes: {a: 3}", "'a' = 3: wanted rules"),
        ("classes: []", "'classes' = []: wanted name: rules"),
        ("classes: {a: {rules: [x > 1]}}\nreport: evaluation", "has 'report' beside its classes"),
        ("classes: {a: {rules: 3, extends: b}, b: {}}", "'rules' = 3: wanted a list of rules"),
        ("classes: {a: {signoffs: [x, x]}}", "a role stands twice"),
        (
            "classes: {a: {rules: [x >= 0.5, y > 1, x <= 0.4 of 9]}}",
            "class a: nothing meets both 'x >= 0.5' and 'x <= 0.4 of 9'",
        ),
    ],
)
def test_what_is_wrong_with_a_class_is_said(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "classes.yaml"
    file.write_text(text)
    with pytest.raises(BadUsage) as refused:
        read_rules(file, "a")
    assert said in refused.value.message, refused.value.message


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ("accuracy_low >= 0.60", Rule(figure="accuracy_low", at_least=0.6)),
        ("a.b.c<=-1e-3", Rule(figure="a.b.c", at_most=-0.001)),
        ("win_rate_low > .5 of 50", Rule(figure="win_rate_low", above=0.5, min_n=50)),
        ("repetition < 1", Rule(figure="repetition", below=1.0)),
        ("seen_openings == 0", Rule(figure="seen_openings", equals=0.0)),
        ("seen_openings = 0", Rule(figure="seen_openings", equals=0.0)),
    ],
)
def test_a_rule_in_words_is_the_rule_with_its_field(words: str, rule: Rule) -> None:
    assert Rule.model_validate(words) == rule
    assert Rule.model_validate(rule.words) == rule


@pytest.mark.parametrize(
    "words", ["accuracy", "accuracy >", "> 0.5", "accuracy >> 0.5", "accuracy >= high", "a b > 1", ""]
)
def test_what_is_no_rule_is_refused(words: str) -> None:
    with pytest.raises(ValueError, match="is no rule"):
        Rule.model_validate(words)


@pytest.mark.parametrize(
    ("rule", "met", "broken"),
    [
        (Rule(figure="x", above=0.5), 0.51, 0.5),
        (Rule(figure="x", at_least=0.5), 0.5, 0.49),
        (Rule(figure="x", below=0.5), 0.49, 0.5),
        (Rule(figure="x", at_most=0.5), 0.5, 0.51),
        (Rule(figure="x", equals=0.0), -0.0, 0.01),
        (Rule(figure="x", at_least=0.5, at_most=0.5), 0.5, 0.6),
    ],
)
def test_bounds_are_as_their_words_say(rule: Rule, met: float, broken: float) -> None:
    assert rule.broken(met) is None and rule.broken(broken) is not None


@pytest.mark.parametrize(
    ("rules", "meets"),
    [
        (("x >= 0.5", "x <= 0.5"), True),
        (("x > 0.5", "x <= 0.5"), False),
        (("x >= 0.5", "x < 0.5"), False),
        (("x = 0.5", "x >= 0.5"), True),
        (("x = 0.5", "x < 0.5"), False),
        (("x = 0.5", "x = 0.6"), False),
        (("x > 0.4", "x >= 0.5", "x < 0.6"), True),
        (("x > 0.4", "y < 0.3"), True),
        (("x < 0.4", "x < 0.3"), True),
    ],
)
def test_two_rules_on_one_figure_that_nothing_meets_are_refused(
    tmp_path: Path, rules: tuple[str, ...], meets: bool
) -> None:
    assert (contradiction([Rule.model_validate(words) for words in rules]) == "") == meets
    file = tmp_path / "gate.yaml"
    file.write_text(f"rules: {list(rules)}")
    if meets:
        assert len(read_rules(file).rules) == len(rules)
    else:
        with pytest.raises(BadUsage, match=f"{file}: nothing meets both '{rules[0]}' and '{rules[1]}'"):
            read_rules(file)


def test_a_bound_on_the_difference_is_another_one_than_on_the_figure() -> None:
    assert not contradiction([Rule(figure="x", above=0.5), Rule(figure="x", at_most=0.1, relative=True)])


def test_what_extends_may_turn_a_bound_round(file: Path) -> None:
    file.write_text(f"{FILE}  odd: {{extends: high, rules: [accuracy_low <= 0.4]}}\n")
    assert [rule.words for rule in read_rules(file, "odd").rules if rule.figure == "accuracy_low"] == [
        "accuracy_low <= 0.4"
    ]


def test_the_classes_that_come_with_the_project_are_read() -> None:
    classes = read_classes(PROJECT / "configs" / "gates" / "classes.yaml")
    assert list(classes) == ["low", "standard", "high"]
    assert set(classes["low"].signoffs) < set(classes["standard"].signoffs) < set(classes["high"].signoffs)
    assert classes["high"].canary == "24h"
