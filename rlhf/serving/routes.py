"""What the router gives: the one version that answers a request, why that one, and what is computed beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rlhf.errors import RlhfError
from rlhf.records import Role
from rlhf.serving.exposures import JUDGE, Exposure


class Unavailable(RlhfError):
    """The version is known and can't answer: it failed its checks. Never replaced by another or by the base.

    route: what it would have been, so that a failure is recorded as the arm's (`route.exposure(..., status="error")`).
    """

    code = "unavailable"
    http_status = 503

    def __init__(self, message: str, *, fix: str, route: Route | None = None) -> None:
        super().__init__(message, fix=fix)
        self.route = route


class Retired(Unavailable):
    """The version was taken out of use for good. To ask for it is the client's mistake: no row says that an arm failed."""

    code = "retired"
    http_status = 410


@dataclass(frozen=True, slots=True)
class Shadow:
    """A version that is computed too, at low priority, and never shown."""

    arm: str
    digest: str
    version: str
    propensity: float


@dataclass(frozen=True, slots=True)
class Judge:
    """A reward version that gives points to this share, in (0, 1], of a rollout's replies."""

    digest: str
    share: float


@dataclass(frozen=True, slots=True)
class Route:
    """What answers one request, to its last token. digest None: the bare base `name`, asked for as base:NAME.

    arm, rollout_id, rollout_seq: None unless a rollout decided. rule: direct, alias, audience, toggle, weights. propensity: chance
    of this arm over the hash, exact. reason: why this arm, in words and numbers.
    """

    model_asked: str
    digest: str | None
    version: str
    name: str
    role: Role
    unit: str | None
    alias: str | None = None
    arm: str | None = None
    rollout_id: str | None = None
    rollout_seq: int | None = None
    rule: str = "direct"
    propensity: float = 1.0
    reason: Mapping[str, Any] = field(default_factory=dict)
    shadows: tuple[Shadow, ...] = ()
    cohort: str | None = None
    judge: Judge | None = None

    @property
    def judge_digest(self) -> str | None:
        return None if self.judge is None else self.judge.digest

    def judged_by(self, digest: str) -> Route:
        """With what gave the reply its points among the reasons."""
        return replace(self, reason={**self.reason, JUDGE: digest})

    def exposure(self, request_id: str, **measured: Any) -> Exposure:
        """The row of this request's reply; measured: the fields of `Exposure` that serving fills."""
        return Exposure(
            request_id=request_id,
            model_asked=self.model_asked,
            name=self.name,
            digest=self.digest,
            alias=self.alias,
            rollout_id=self.rollout_id,
            rollout_seq=self.rollout_seq,
            arm=self.arm,
            rule=self.rule,
            propensity=self.propensity,
            reason=self.reason,
            unit=self.unit,
            cohort=self.cohort,
            **measured,
        )

    def shadow_exposure(self, shadow: Shadow, request_id: str, shadow_of: str, **measured: Any) -> Exposure:
        """The row of a shadow's reply beside the one that was shown."""
        return replace(
            self.exposure(request_id, **measured),
            digest=shadow.digest,
            arm=shadow.arm,
            rule="shadow",
            propensity=shadow.propensity,
            shadow_of=shadow_of,
        )
