"""What a gate asks of a canary. How it went is told by who serves: a function that is passed in, for serving is below this room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection

from rlhf.records import VersionRef
from rlhf.registry.gate_rules import GateRules


@dataclass(frozen=True, slots=True)
class Trial:
    """The newest rollout of the alias that had the version as an arm. hours: that it ran, pauses left out; n_replies, n_units: what
    the arm answered, and to how many users; harm: what the guardrails found, '' = none; ended: why it is no longer under way, '' =
    it is."""

    rollout: str
    arm: str
    kind: str
    hours: float
    n_replies: int
    n_units: int
    harm: str = ""
    ended: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


Trials = Callable[[Connection, str, str], Trial | None]  # alias, version digest


def trial_of(
    connection: Connection, trials: Trials | None, alias: str, ref: VersionRef, rules: GateRules
) -> Trial | None:
    """Asked only where a canary is wanted: to judge a rollout reads everything that it served."""
    return trials(connection, alias, ref.digest) if trials is not None and rules.canary is not None else None


def missing(trial: Trial | None, alias: str, ref: VersionRef, rules: GateRules) -> tuple[str, str]:
    """What the trial lacks and what to do about it, in words; empty where nothing is missing."""
    look = f"look at it: rlhf rollout status {alias}"
    if trial is None:
        return (
            f"no rollout of {alias} has had {ref} as an arm, wanted one that runs for {rules.canary}",
            f"start one: rlhf rollout start {alias} {ref} --why TEXT",
        )
    what = f"rollout {trial.rollout[:10]} of {alias}"
    if trial.ended:
        return (
            f"{what}, in which {ref} was an arm, {trial.ended}",
            f"start another: rlhf rollout start {alias} {ref} --why TEXT",
        )
    if trial.harm:
        return f"{what} can't speak for {ref}: {trial.harm}", look
    if trial.hours < rules.canary_hours:
        return f"{what} has run for {trial.hours:.3g} h with {ref}, wanted {rules.canary}", f"wait, and {look}"
    if not trial.n_replies:
        return f"{what} has run for {trial.hours:.3g} h, and {ref} answered nobody in it", look
    return "", ""
