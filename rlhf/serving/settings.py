"""What a rollout is: arms, how they grow, who is asked, what takes them back. One typed record, refused with all errors at once.

kind: canary
arms: {new: {version: assistant@7}}
ramp: [{share: 1, units: 200}, {share: 10, hours: 2, units: 1000}, {share: 50, hours: 12}, {share: 100}]
audience: {field: country, in: [AT, DE]}
toggles: {staff: new, partners: control}
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rlhf.config import Settings
from rlhf.errors import BadInput
from rlhf.serving.assignment import BUCKETS
from rlhf.serving.audience import Rule, read_rule

CONTROL = "control"  # what the alias points at: an arm of every rollout
Kind = Literal["ab", "canary", "shadow", "bandit"]
Metric = Literal["error_rate", "latency", "refusal", "reply_length", "reward", "satisfaction"]
Harm = Literal["higher", "lower", "either"]
RAMP = (1.0, 5.0, 10.0, 25.0, 50.0, 100.0)
_ARM = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@-]{0,99}")


class Arm(Settings):
    """One version under trial."""

    version: str = Field(description="name@7, name@alias or sha256:…; fixed to its digest at the start")
    share: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="percent of units (ab), of shadowed units (shadow); null = an even part (ab), all (shadow)",
    )


class Stage(Settings):
    """A canary's step, and what must have come in before the next. Neither hours nor units: somebody advances it."""

    share: float = Field(gt=0, le=100, description="percent of units")
    hours: float | None = Field(default=None, gt=0, description="at least so long")
    units: int | None = Field(default=None, gt=0, description="at least so many units were served by the new version")


class Judge(Settings):
    """A reward version that gives points to replies after they were answered: what the guard `reward` compares."""

    version: str = Field(description="a reward: name@7, name@alias or sha256:…; fixed to its digest at the start")
    share: float = Field(
        default=10.0, gt=0, le=100, description="percent of replies that it judges, the same in each arm"
    )


class Guard(Settings):
    """One metric that is watched. Harm of a guardrail rolls back by itself, of a signal pauses."""

    metric: Metric = Field(
        description="error_rate, latency, refusal, reply_length, reward, satisfaction (thumbs up less thumbs down)"
    )
    role: Literal["guardrail", "signal"] = Field(
        default="guardrail", description="guardrail = roll back, signal = pause"
    )
    harm: Harm | None = Field(
        default=None,
        description="which way is harm; null = lower for reward and satisfaction, higher for the others; either = any "
        "drift from the control",
    )
    tolerance: float = Field(
        default=0.0,
        ge=0,
        description="harm that is borne: as a share of the control's value (0.1 = 10 % more); of a reward in its points",
    )

    @property
    def direction(self) -> Harm:
        return self.harm or ("lower" if self.metric in ("reward", "satisfaction") else "higher")

    @property
    def name(self) -> str:
        return f"{self.metric} {self.direction}"

    @model_validator(mode="after")
    def _tests_what_can_be(self) -> Self:
        if self.metric in ("error_rate", "refusal") and self.direction == "lower":
            raise ValueError(f"fewer of {self.metric} is no harm")
        if self.metric == "satisfaction" and (self.direction != "lower" or self.tolerance):
            raise ValueError("satisfaction is harmed where it is lower, and has no tolerance")
        return self


GUARDS = (
    Guard(metric="error_rate", tolerance=0.1),
    Guard(metric="latency", role="signal", tolerance=0.25),
    Guard(metric="satisfaction", role="signal"),
)


class RolloutSettings(Settings):
    """Settings of a rollout."""

    kind: Kind = Field(description="ab (shares that stand), canary (a ramp), shadow (never shown), bandit (Thompson)")
    arms: dict[str, Arm] = Field(description=f"name -> version and share; the alias's own version is the arm {CONTROL}")
    ramp: tuple[Stage, ...] = Field(
        default=(), description="a canary's stages; none = 1, 5, 10, 25, 50, 100 % by approval"
    )
    complete: Literal["approval", "auto"] = Field(
        default="approval",
        description="auto: after the last stage's hours and units the alias moves by itself, gate asked",
    )
    audience: dict[str, Any] | None = Field(default=None, description="rule on the request's context; null = everybody")
    toggles: dict[str, str] = Field(
        default_factory=dict,
        description="cohort, a request's metadata.cohort, -> arm: given, not drawn, not compared; audience goes first",
    )
    floor: float = Field(default=0.05, gt=0, le=0.5, description="a bandit's least share for each arm")
    reweigh_minutes: float = Field(default=10.0, gt=0, description="a bandit's shares are drawn anew so often")
    guards: tuple[Guard, ...] = Field(default=GUARDS, description="each: metric, role, harm, tolerance")
    judge: Judge | None = Field(
        default=None,
        description="version and share: its points alone are replies' reward; null = what best_of or else outcomes tell",
    )
    alpha: float = Field(
        default=0.05,
        gt=0,
        le=0.2,
        description="chance of any false alarm of the guards in the whole rollout, however often looked",
    )
    mismatch_alpha: float = Field(
        default=0.001,
        gt=0,
        le=0.05,
        description="the same for the shares' own check: more or fewer units in an arm than drawn",
    )
    salt: str | None = Field(
        default=None, max_length=100, description="of the hash; null = the rollout's id. One salt, one draw"
    )

    @field_validator("audience")
    @classmethod
    def _readable(cls, stored: dict[str, Any] | None) -> dict[str, Any] | None:
        if stored is not None:
            try:
                read_rule(stored)
            except BadInput as error:
                raise ValueError(error.message) from None
        return stored

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = [*self._arm_problems(), *self._ramp_problems()]
        known = {CONTROL, *self.arms}
        problems += [
            f"toggles.{cohort} = {arm!r}: no such arm" for cohort, arm in self.toggles.items() if arm not in known
        ]
        if self.kind == "shadow" and any(arm != CONTROL for arm in self.toggles.values()):
            problems.append("a shadow is never shown, to no cohort")
        if self.kind == "bandit" and self.floor * len(known) > 1:
            problems.append(f"floor = {self.floor}: {len(known)} arms have at most {1 / len(known):.2f} each")
        if len({guard.name for guard in self.guards}) < len(self.guards):
            problems.append("guards: a metric stands twice")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _arm_problems(self) -> list[str]:
        problems = [] if self.arms else ["arms: none; wanted one or more"]
        if len(self.arms) > 20:
            problems.append(f"arms: {len(self.arms)}; wanted 20 or fewer")
        problems += [f"arms: {arm!r:.60} is no name" for arm in self.arms if not _ARM.fullmatch(arm)]
        if CONTROL in self.arms:
            problems.append(f"arms: {CONTROL} is what the alias points at; it has what the others' shares leave")
        shares = [arm.share for arm in self.arms.values() if arm.share is not None]
        if self.kind in ("canary", "bandit") and shares:
            problems.append(f"arms: a {self.kind} has no fixed shares")
        if self.kind == "canary" and len(self.arms) > 1:
            problems.append(f"arms: a canary has one, here are {len(self.arms)}")
        if self.kind == "ab" and 0 < len(shares) < len(self.arms):
            problems.append("arms: some have a share and some have none")
        if self.kind == "ab" and sum(shares) > 100:
            problems.append(f"arms: shares of {sum(shares):g} %, wanted at most 100")
        if self.kind == "ab" and sum(shares) == 100 and self.guards:
            problems.append(
                "arms: shares of 100 % leave the control none, and the guards compare with it; or set guards: []"
            )
        problems += [f"share = {share:g}: less than a basis point" for share in shares if round(share * 100) < 1]
        return problems

    def _ramp_problems(self) -> list[str]:
        if self.kind != "canary":
            said = [("ramp", bool(self.ramp)), ("complete: auto", self.complete == "auto")]
            return [f"{word}: only a canary has it" for word, is_said in said if is_said]
        shares = [stage.share for stage in self.stages]
        problems = []
        if any(later <= before for before, later in pairwise(shares)):
            problems.append(f"ramp: {', '.join(f'{share:g}' for share in shares)}; wanted it to rise")
        if round(shares[0] * 100) < 1:
            problems.append(f"ramp: {shares[0]:g} % is less than a basis point")
        return problems

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self.ramp or tuple(Stage(share=share) for share in RAMP)

    @property
    def rule(self) -> Rule | None:
        return None if self.audience is None else read_rule(self.audience)

    def shadowed(self, arm: str) -> float | None:
        """Percent of units for whom this arm is computed and never shown; None for what is no shadow."""
        if self.kind != "shadow" or arm == CONTROL:
            return None
        share = self.arms[arm].share
        return 100.0 if share is None else share

    def weights_at(self, stage: int) -> dict[str, int]:
        """Basis points by arm, the control's too, at a canary's stage (others have one)."""
        if self.kind == "shadow":
            return {CONTROL: BUCKETS}
        if self.kind == "canary":
            given = {arm: round(self.stages[stage].share * 100) for arm in self.arms}
        else:
            even = BUCKETS // (len(self.arms) + 1)
            given = {name: even if arm.share is None else round(arm.share * 100) for name, arm in self.arms.items()}
        return {CONTROL: BUCKETS - sum(given.values()), **given}
