"""A gate's rules: which report must be there, what it must say, who must have signed, and how long a canary must have run.

report: comparison
against: champion
rules:
  - {figure: win_rate_low, above: 0.5, min_n: 50}
  - repetition < 0.3
  - length_correlation.abs <= 0.2
signoffs: [evaluator, safety]
canary: 24h
review_days: 90

A rule in words is `FIGURE >= NUMBER`, with `>`, `>=`, `<`, `<=` or `=`, and ` of N` behind it for the fewest items. Rules of
several risk classes stand in one file (`gate_classes.py`).
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rlhf.config import Settings
from rlhf.registry.signing import ROLE

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_WORDS = re.compile(rf"(?P<figure>[^\s<>=]+)\s*(?P<sign>>=|<=|==?|>|<)\s*(?P<bound>{_NUMBER})(?:\s+of\s+(?P<n>\d+))?")
_SIGN_OF = {"above": ">", "at_least": ">=", "below": "<", "at_most": "<=", "equals": "="}
_FIELD_OF = {**{sign: name for name, sign in _SIGN_OF.items()}, "==": "equals"}
WORD_OF = {"above": "above", "at_least": "at least", "below": "below", "at_most": "at most", "equals": "exactly"}
_MEETS: dict[str, Callable[[float, float], bool]] = {
    "above": operator.gt,
    "at_least": operator.ge,
    "below": operator.lt,
    "at_most": operator.le,
    "equals": operator.eq,
}
_LOWER, _UPPER = ("above", "at_least", "equals"), ("below", "at_most", "equals")
_STRICT = ("above", "below")
FAIRNESS = "fairness."  # what the ways to fairness figures begin with
_OF_TEMPLATES = "fairness.reward_gap"  # no other report has it
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([mhd])")
_HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0}


class Rule(Settings):
    """One figure of the version in the report, and its bounds."""

    figure: str = Field(
        description="a figure in the report: its name, such as win_rate_low, or the way to it, such as fairness.worst_gap; .abs "
        "behind it takes its size without the sign"
    )
    above: float | None = Field(default=None, description="the figure must be greater than this")
    below: float | None = Field(default=None, description="the figure must be less than this")
    at_least: float | None = Field(default=None, description="the figure must be this or greater")
    at_most: float | None = Field(default=None, description="the figure must be this or less")
    equals: float | None = Field(default=None, description="the figure must be this, to the last digit")
    min_n: int | None = Field(
        default=None, ge=1, description="fewest items that the figure may be of; of a win rate, judged replies"
    )
    relative: bool = Field(
        default=False,
        description="bound the version's figure minus that of the one it is held against; name_low and name_high are then "
        "the ends of the report's paired difference",
    )

    @model_validator(mode="before")
    @classmethod
    def _in_words(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        said = _WORDS.fullmatch(given.strip())
        if said is None:
            raise ValueError(
                f"{given!r} is no rule: wanted for instance 'accuracy_low >= 0.6' or 'accuracy_low >= 0.6 of 50'"
            )
        found: dict[str, Any] = {"figure": said["figure"], _FIELD_OF[said["sign"]]: float(said["bound"])}
        return {**found, "min_n": int(said["n"])} if said["n"] else found

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if not self.bounds:
            raise ValueError("a rule wants above, at_least, below, at_most or equals")
        if self.equals is not None and len(self.bounds) > 1:
            raise ValueError("equals leaves no room for another bound")
        for low in (self.above, self.at_least):
            for high in (self.below, self.at_most):
                if (
                    low is not None
                    and high is not None
                    and (low > high or (low == high and None in (self.at_least, self.at_most)))
                ):
                    raise ValueError(f"nothing is between {low} and {high}")
        if self.above is not None and self.at_least is not None:
            raise ValueError("above and at_least are one bound: give one of them")
        if self.below is not None and self.at_most is not None:
            raise ValueError("below and at_most are one bound: give one of them")
        return self

    @property
    def bounds(self) -> dict[str, float]:
        """Field -> bound, of those that are given."""
        given = {name: getattr(self, name) for name in WORD_OF}
        return {name: bound for name, bound in given.items() if bound is not None}

    @property
    def words(self) -> str:
        """As a rule is written in words."""
        what = f"{self.figure}{' minus the other' if self.relative else ''}"
        few = f" of {self.min_n}" if self.min_n else ""
        return " and ".join(f"{what} {_SIGN_OF[name]} {bound:g}" for name, bound in self.bounds.items()) + few

    def broken(self, value: float) -> str | None:
        """The bound that the value doesn't meet, in words; None where it meets all."""
        for name, bound in self.bounds.items():
            if not _MEETS[name](value, bound):
                return f"{WORD_OF[name]} {bound:g}"
        return None


def contradiction(rules: Sequence[Rule]) -> str:
    """Two rules on one figure that no value meets, in words; '' where there are none. Bounds are intervals: where each two leave
    room, all do."""
    for one, other in combinations(rules, 2):
        if (one.figure, one.relative) == (other.figure, other.relative) and not _leave_room(one, other):
            return f"nothing meets both '{one.words}' and '{other.words}'"
    return ""


def _leave_room(*rules: Rule) -> bool:
    bounds = [pair for rule in rules for pair in rule.bounds.items()]
    low, over = max(((bound, name in _STRICT) for name, bound in bounds if name in _LOWER), default=(-math.inf, False))
    high, not_under = min(
        ((bound, name not in _STRICT) for name, bound in bounds if name in _UPPER), default=(math.inf, True)
    )
    return low < high or (low == high and not over and not_under)


class GateRules(Settings):
    """What a version must bring before the alias may move to it. The newest report that fits decides, so an older and
    better one can't be picked.
    """

    report: Literal["comparison", "evaluation"] = Field(default="comparison", description="kind of the report")
    against: Literal["champion", "base", "any"] = Field(
        default="champion",
        description="whom the report must hold the version against: what the alias points at now (champion; the base where "
        "it points at nothing yet), the version's base, or any",
    )
    snapshot: str | None = Field(
        default=None,
        description="data set that the report must be on: a snapshot as name@2, a suite as suite:name@2; None = whichever",
    )
    judge: str | None = Field(
        default=None,
        description="judge of the comparison: people, a rule's name, a reward version or an alias of one; None = whichever",
    )
    rules: tuple[Rule, ...] = Field(default=(), description="each: figure, above and/or below, min_n, relative")
    signoffs: tuple[str, ...] = Field(
        default=(), description="roles that must have signed the version with that report"
    )
    four_eyes: bool = Field(default=False, description="who moves the alias can't be the one who signed")
    canary: str | None = Field(
        default=None,
        description="so long must the version have been an arm of a running rollout of this alias, without a guardrail's harm: "
        "30m, 24h, 2d",
    )
    review_days: int | None = Field(
        default=None,
        ge=1,
        le=3650,
        description="after so many days a promotion through this gate is due for another look",
    )
    risk_class: str | None = Field(
        default=None, description="the class that these rules are of, where a file has several"
    )

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self.rules and not self.signoffs and self.canary is None:
            raise ValueError("a gate wants rules, signoffs or a canary")
        if self.four_eyes and not self.signoffs:
            raise ValueError("four_eyes is about signoffs, and none are wanted")
        if self.report == "evaluation" and self.against == "base":
            raise ValueError("a base has no scores to evaluate: hold the version against champion or any")
        if self.report == "evaluation" and self.judge is not None:
            raise ValueError("a judge is for comparisons: an evaluation is by the snapshot's judgements")
        if self.against == "any" and any(rule.relative for rule in self.rules):
            raise ValueError("a relative rule wants to know against whom: champion or base")
        if wrong := [role for role in self.signoffs if not ROLE.fullmatch(role)]:
            raise ValueError(f"{wrong[0]!r} is no role; name it in up to 40 letters, for instance evaluator")
        if len(set(self.signoffs)) < len(self.signoffs):
            raise ValueError("signoffs: a role stands twice")
        if self.canary is not None and not (_SPAN.fullmatch(self.canary) and self.canary_hours):
            raise ValueError(f"canary = {self.canary!r}: wanted a time above 0 such as 30m, 24h or 2d")
        return self

    @property
    def canary_hours(self) -> float:
        """0 where no canary is wanted."""
        span = _SPAN.fullmatch(self.canary or "")
        return float(span[1]) * _HOURS[span[2]] if span else 0.0

    @property
    def needs_report(self) -> bool:
        return bool(self.rules or self.signoffs)

    @property
    def is_of_fairness(self) -> bool:
        """Whether every figure that is asked for is one of fairness: such a gate alone reads reports on templates."""
        return bool(self.rules) and all(rule.figure.startswith(FAIRNESS) for rule in self.rules)

    @property
    def cautions(self) -> tuple[str, ...]:
        """What holds less, or more, than who set the gate may think."""
        said = []
        if self.needs_report and self.snapshot is None:
            said.append(
                f"it names no data set: the newest {self.report} report on any suite or snapshot counts; "
                "pin one with snapshot: suite:NAME@1"
            )
        if not self.is_of_fairness and any(rule.figure.startswith(_OF_TEMPLATES) for rule in self.rules):
            said.append(
                f"{_OF_TEMPLATES} stands in reports on templates alone, which count for no figure but {FAIRNESS}*: "
                "no one report meets all of its rules"
            )
        return tuple(said)

    @property
    def words(self) -> tuple[str, ...]:
        """Everything that is asked, each in words: what two gates are told apart by."""
        held = [f"report {self.report} against {self.against}"] if self.needs_report else []
        held += [f"snapshot {self.snapshot}"] if self.snapshot else []
        held += [f"judge {self.judge}"] if self.judge else []
        signed = [f"signed by {role}" for role in self.signoffs] + (["four eyes"] if self.four_eyes else [])
        rest = ([f"canary {self.canary}"] if self.canary else []) + (
            [f"review in {self.review_days} days"] if self.review_days else []
        )
        return (*held, *(rule.words for rule in self.rules), *signed, *rest)
