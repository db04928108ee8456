"""How the canary of a version went, for a gate that asks: hours, replies, users, and what the guards say now."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, distinct, func, select

from rlhf.ids import now
from rlhf.registry import Trial
from rlhf.serving import guardrails, log
from rlhf.serving.log import Rollout
from rlhf.serving.settings import CONTROL
from rlhf.store.tables import exposures, rollouts

_SHADOW = "shadow"
_RUNNING = "running"
_SECONDS = 3600.0


def trial_of(connection: Connection, alias: str, digest: str) -> Trial | None:
    """The newest rollout of the alias with this version as an arm; None where it never was one. Nothing is changed.

    The guards are asked now, not read from the log: what nobody has tended yet counts as well.
    """
    query = select(rollouts.c.id).where(rollouts.c.alias == alias, rollouts.c.spec.contains(digest, autoescape=True))
    for rollout_id in connection.execute(query.order_by(rollouts.c.id.desc())).scalars():
        rollout = log.get(connection, rollout_id)
        arm = next((name for name, of in rollout.arms.items() if of == digest and name != CONTROL), None)
        if arm is not None:
            return _trial(connection, rollout, arm)
    return None


def _trial(connection: Connection, rollout: Rollout, arm: str) -> Trial:
    mine = (exposures.c.rollout_id == rollout.id) & (exposures.c.arm == arm) & (exposures.c.rule != _SHADOW)
    counted = select(func.count(), func.count(distinct(exposures.c.unit))).where(mine)
    n_replies, n_units = connection.execute(counted).one()
    ended = "" if rollout.is_live else f"is {rollout.status} ({rollout.who}: {rollout.why:.200})"
    harm = _harm(connection, rollout) if rollout.is_live else ""
    hours = hours_of(connection, rollout)
    return Trial(rollout.id, arm, rollout.settings.kind, hours, n_replies, n_units, harm, ended)


def _harm(connection: Connection, rollout: Rollout) -> str:
    verdict = guardrails.judge(connection, rollout)
    if verdict.action == "roll_back":
        return verdict.why
    return "units came in other shares than were drawn, so its figures can't be trusted" if verdict.blocked else ""


def hours_of(connection: Connection, rollout: Rollout) -> float:
    """That it ran; while it waited or was paused it proved nothing."""
    entries = log.entries(connection, rollout.id)
    ends = [*(datetime.fromisoformat(entry["at"]) for entry in entries[1:]), now()]
    spans = zip(entries, ends, strict=True)
    ran = [end - datetime.fromisoformat(entry["at"]) for entry, end in spans if entry["status"] == _RUNNING]
    return sum(span.total_seconds() for span in ran) / _SECONDS
