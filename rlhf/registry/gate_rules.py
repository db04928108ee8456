"""A gate's rules: which report must be there, what it must say, and who must have signed.

report: comparison
against: champion
rules:
  - {figure: win_rate_low, above: 0.5, min_n: 50}
  - {figure: repetition, below: 0.3}
signoffs: [evaluator]
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from rlhf import config
from rlhf.config import Settings
from rlhf.errors import BadUsage
from rlhf.registry.signing import ROLE


class Rule(Settings):
    """One figure of the version in the report, and its bounds. A figure that is equal to a bound doesn't meet it."""

    figure: str = Field(description="name of a figure in the report, such as win_rate_low or accuracy")
    above: float | None = Field(default=None, description="the figure must be greater than this")
    below: float | None = Field(default=None, description="the figure must be less than this")
    min_n: int | None = Field(
        default=None, ge=1, description="fewest items that the figure may be of; of a win rate, judged replies"
    )
    relative: bool = Field(
        default=False,
        description="bound the version's figure minus that of the one it is held against; name_low and name_high are then "
        "the ends of the report's paired difference",
    )

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("a rule wants above, below or both")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError(f"nothing is above {self.above} and below {self.below}")
        return self


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
        default=None, description="snapshot that the report must be on, as name@2: a frozen suite; None = whichever"
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

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self.rules and not self.signoffs:
            raise ValueError("a gate wants rules, signoffs or both")
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
        return self


def read_rules(file: Path) -> GateRules:
    """Rules from a YAML file. Raises BadUsage naming everything that is wrong with it."""
    if not file.is_file():
        raise BadUsage(f"no rules at {file}", fix="check the path given to --rules")
    return config.load(GateRules, file)
