"""Tending: what rollouts do by themselves. Harm rolls back or pauses, a canary's done stage advances, a bandit's shares move.

Whatever is decided is an entry with the figures that it was decided by, in the audit log, in the name of `ACTOR`. Several servers
may tend one store: each step is a compare-and-set, and who comes second does nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import DatabaseError

from rlhf.errors import Conflict, RlhfError
from rlhf.ids import now
from rlhf.serving import bandit, guardrails, monitor, rollouts
from rlhf.serving.guardrails import Verdict
from rlhf.serving.log import Rollout
from rlhf.serving.monitor import Served
from rlhf.serving.settings import CONTROL
from rlhf.store import Workspace
from rlhf.store.tables import exposures, outcomes, versions

ACTOR = "guardrails"
GATE = "gate"  # among a rollout's signals: the alias's gate kept it from completing by itself
_REST = 9  # seconds without a look for each second of one
_LEAST_MOVE = 100  # basis points that a bandit's share must move by, for an entry


@dataclass(frozen=True, slots=True)
class Deed:
    """What was done to a rollout, and why."""

    rollout_id: str
    alias: str
    what: str
    why: str


def tend(workspace: Workspace, seen: dict[str, tuple[int, ...]] | None = None) -> list[Deed]:
    """Look at every rollout that serves once, and do what is due. seen: kept by the caller between calls, so that evidence isn't
    reckoned again where nothing came in."""
    deeds = []
    guarded = workspace.as_actor(ACTOR)
    for rollout in rollouts.in_force(workspace):
        if not rollout.serves:
            continue
        try:
            deed = _tend_one(guarded, rollout, seen if seen is not None else {})
        except Conflict:
            continue  # somebody was first: the next look sees what they did
        if deed is not None:
            deeds.append(deed)
    return deeds


class Tender:
    """A thread that tends every `every_s` seconds until `close`; less often where a look takes long, as it does with hundreds of
    thousands of replies, so that a tenth of a core is the most that it costs."""

    def __init__(self, workspace: Workspace, every_s: float = 5.0) -> None:
        self._workspace, self._every_s = workspace, every_s
        self._end = threading.Event()
        self.trouble: str | None = None  # why it can't, just now
        self._thread = threading.Thread(target=self._run, name="tender", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        seen: dict[str, tuple[int, ...]] = {}
        wait_s = self._every_s
        while not self._end.wait(wait_s):
            began = time.monotonic()
            try:
                tend(self._workspace, seen)
                self.trouble = None
            except (RlhfError, DatabaseError) as error:
                self.trouble = str(error).partition("\n")[0]
            wait_s = max(self._every_s, _REST * (time.monotonic() - began))


def _tend_one(workspace: Workspace, rollout: Rollout, seen: dict[str, tuple[int, ...]]) -> Deed | None:
    if retired := _retired(workspace, rollout):
        why = f"its arm {retired} was retired"
        rollouts.roll_back(workspace, rollout.id, why=why, expect=rollout.seq)
        return Deed(rollout.id, rollout.alias, "roll_back", why)
    size = _size(workspace, rollout)
    if seen.get(rollout.id) != size:
        with workspace.read() as connection:
            rows = monitor.served(connection, rollout)
            verdict = guardrails.judge(connection, rollout, rows)
        deed = _obey(workspace, rollout, verdict) or _reweigh(workspace, rollout, rows, verdict)
        if deed is not None:
            return deed
        if verdict.blocked:
            return None  # looked at again with every tick: nothing advances on figures that can't be trusted
        seen[rollout.id] = size
    return _climb(workspace, rollout)


def _retired(workspace: Workspace, rollout: Rollout) -> str:
    """The arms whose versions were retired under the rollout, in words; '' where there are none."""
    query = select(versions.c.digest).where(
        versions.c.digest.in_(rollout.arms.values()), versions.c.retired_at.is_not(None)
    )
    with workspace.read() as connection:
        digests = set(connection.execute(query).scalars())
    return ", ".join(arm for arm, digest in rollout.arms.items() if digest in digests)


def _size(workspace: Workspace, rollout: Rollout) -> tuple[int, ...]:
    """How much there is to judge."""
    mine = exposures.c.rollout_id == rollout.id
    joined = outcomes.join(exposures, exposures.c.request_id == outcomes.c.request_id)
    with workspace.read() as connection:
        n_served, n_judged = connection.execute(select(func.count(), func.count(exposures.c.reward)).where(mine)).one()
        n_told = connection.scalar(select(func.count()).select_from(joined).where(mine)) or 0
    return rollout.seq, n_served, n_judged, n_told


def _obey(workspace: Workspace, rollout: Rollout, verdict: Verdict) -> Deed | None:
    said: dict[str, Any] = {"why": verdict.why, "figures": verdict.as_json(), "expect": rollout.seq}
    if verdict.action == "roll_back":
        rollouts.roll_back(workspace, rollout.id, **said)
    elif verdict.action == "pause" and rollout.status == "running":
        rollouts.pause(workspace, rollout.id, fired=verdict.fired, **said)
    else:
        return None
    return Deed(rollout.id, rollout.alias, verdict.action, verdict.why)


def _reweigh(workspace: Workspace, rollout: Rollout, rows: Sequence[Served], verdict: Verdict) -> Deed | None:
    """A bandit's new shares, by the first thumb of each unit."""
    settings = rollout.settings
    is_due = now() - datetime.fromisoformat(rollout.stage_at) >= timedelta(minutes=settings.reweigh_minutes)
    if settings.kind != "bandit" or rollout.status != "running" or verdict.blocked or not is_due:
        return None
    told = {row.unit: row for row in reversed(monitor.compared(rows)) if row.thumb is not None}
    trials = {arm: sum(row.arm == arm for row in told.values()) for arm in rollout.arms}
    ups = {arm: sum(row.arm == arm and row.thumb == 1.0 for row in told.values()) for arm in rollout.arms}
    weights = bandit.weights(ups, trials, settings.floor)
    if max(abs(weights[arm] - rollout.allocation.weights.get(arm, 0)) for arm in weights) < _LEAST_MOVE:
        return None
    why = "thumbs up of thumbs: " + ", ".join(f"{arm} {ups[arm]} of {trials[arm]}" for arm in weights)
    rollouts.weigh(workspace, rollout.id, weights, why=why, expect=rollout.seq)
    return Deed(rollout.id, rollout.alias, "weigh", why)


def _climb(workspace: Workspace, rollout: Rollout) -> Deed | None:
    """A canary's next stage, or its end, once what its stage waits for has come in."""
    if rollout.settings.kind != "canary" or rollout.status != "running":
        return None
    stage = rollout.settings.stages[rollout.stage]
    if stage.hours is None and stage.units is None:
        return None
    hours = (now() - datetime.fromisoformat(rollout.stage_at)).total_seconds() / 3600
    if stage.hours is not None and hours < stage.hours:
        return None
    with workspace.read() as connection:
        units = monitor.counts(connection, rollout)
    n_new = sum(n for arm, n in units.items() if arm != CONTROL)
    if stage.units is not None and n_new < stage.units:
        return None
    why = f"{stage.share:g} % for {hours:.2g} h and {n_new} units, and no harm is shown"
    if rollout.stage + 1 < len(rollout.settings.stages):
        rollouts.advance(workspace, rollout.id, why=why, figures={"hours": hours, "units": units}, expect=rollout.seq)
        return Deed(rollout.id, rollout.alias, "advance", why)
    if rollout.settings.complete != "auto" or GATE in rollout.signals or stage.share < 100:
        return None
    return _complete(workspace, rollout, why)


def _complete(workspace: Workspace, rollout: Rollout, why: str) -> Deed:
    try:
        rollouts.complete(workspace, rollout.id, why=why, expect=rollout.seq)
    except Conflict as refusal:  # the gate; or somebody was first, and then the pause is refused too
        rollouts.pause(workspace, rollout.id, why=refusal.message, fired=(GATE,), expect=rollout.seq)
        return Deed(rollout.id, rollout.alias, "pause", refusal.message)
    return Deed(rollout.id, rollout.alias, "complete", why)
