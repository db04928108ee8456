"""How aliases and rollouts stand, as the operator's page reads it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from rlhf.ids import now_text
from rlhf.registry import aliases, gates
from rlhf.serving import Rollout, guardrails, lately, log, monitor, rollouts
from rlhf.serving.settings import CONTROL
from rlhf.store import Workspace
from rlhf.store.room import Room, room_of
from rlhf.store.tables import effects, versions
from rlhf.store.tables import rollouts as rollout_rows

_MOST = 200  # entries of a log that are told, the newest
_AT_MOST_ONE_IN = 10  # part of the time that reckoning may take
_AT_LEAST_S = 4.0
_MOST_KEPT = 100
_ROOM_S = 60.0


@dataclass(frozen=True, slots=True)
class _Version:
    name: str
    is_retired: bool


@dataclass(frozen=True, slots=True)
class _Kept:
    seq: int
    until: float  # on the monotonic clock
    told: Mapping[str, Any]

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self.until


class Figures:
    """Figures and verdicts of rollouts, reckoned once for everybody who looks: anew after an entry, else after four seconds, or
    ten times as long as reckoning took. So labelers don't wait for operators, however much was served."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._kept: dict[str, _Kept] = {}
        self._lock, self._walking = threading.Lock(), threading.Lock()
        self._room: tuple[float, Room] | None = None

    def room(self) -> Room:
        """What the workspace takes of its disk, looked at once a minute: that is a walk through all its files."""
        with self._walking:
            if self._room is None or time.monotonic() >= self._room[0]:
                found = room_of(self._workspace)
                self._room = time.monotonic() + _ROOM_S, found
            return self._room[1]

    def of(self, rollout: Rollout) -> Mapping[str, Any]:
        """{"figures": by arm, "verdict", "time_to_effect", "figures_at"}; while another thread reckons, what there was before."""
        kept = self._of_entry(rollout)
        if kept is not None and (not kept.is_due or not self._lock.acquire(blocking=False)):
            return kept.told
        if kept is None:
            self._lock.acquire()
        try:
            kept = self._of_entry(rollout)
            if kept is None or kept.is_due:
                kept = self._kept[rollout.id] = self._reckoned(rollout)
            return kept.told
        finally:
            self._lock.release()

    def _of_entry(self, rollout: Rollout) -> _Kept | None:
        kept = self._kept.get(rollout.id)
        return kept if kept is not None and kept.seq == rollout.seq else None

    def _reckoned(self, rollout: Rollout) -> _Kept:
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        began, at = time.monotonic(), now_text()
        with self._workspace.read() as connection:
            rows = monitor.served(connection, rollout)
            told = {
                "figures": monitor.figures(rollout, rows),
                "verdict": guardrails.judge(connection, rollout, rows).as_json(),
                "time_to_effect": monitor.time_to_effect(connection, rollout),
                "figures_at": at,
            }
        ended = time.monotonic()
        return _Kept(rollout.seq, ended + max(_AT_LEAST_S, _AT_MOST_ONE_IN * (ended - began)), told)


def of_all(workspace: Workspace, figures: Figures) -> list[dict[str, Any]]:
    """Every alias in force, its last minutes, and its rollout with figures where it has one."""
    in_force = {rollout.alias: rollout for rollout in rollouts.in_force(workspace)}
    now_there = aliases.list_aliases(workspace)
    before = {one.alias: aliases.one_back(workspace, one.alias) for one in now_there}
    with workspace.read() as connection:
        digests = [digest for rollout in in_force.values() for digest in rollout.arms.values()]
        known = _versions(connection, [*digests, *(move.to_digest for move in before.values() if move is not None)])
        served = lately.by_alias(connection)
        told: list[dict[str, Any]] = []
        for one in now_there:
            back, recent = before[one.alias], served.get(one.alias)
            told.append(
                {
                    "alias": one.alias,
                    "role": one.version.role,
                    "version": str(one.version),
                    "digest": one.version.digest,
                    "since": one.at,
                    "who": one.who,
                    "why": one.why,
                    "seq": one.seq,
                    "back": None if back is None else known[back.to_digest].name,
                    "lately": None if recent is None else recent.as_json(),
                    "effect": _effect(connection, one.alias, one.seq),
                }
            )
    for entry in told:
        rollout = in_force.get(entry["alias"])
        entry["gate"] = gates.gate_of(workspace, entry["alias"]) is not None
        entry["rollout"] = None if rollout is None else {**_rollout(rollout, known), **figures.of(rollout)}
    return told


def of_alias(workspace: Workspace, alias: str) -> dict[str, Any]:
    """The alias's history and the log of its newest rollout, the newest entries first; what a rollback can return to.
    Raises NotFound, BadUsage."""
    moves = aliases.history(workspace, alias)
    back = aliases.one_back(workspace, alias)
    with workspace.read() as connection:
        had = connection.scalar(select(func.count()).select_from(rollout_rows).where(rollout_rows.c.alias == alias))
        rollout = log.find(connection, alias) if had else None
        digests = {move.to_digest for move in moves} | set(rollout.arms.values() if rollout else ())
        known = _versions(connection, digests)
        entries = log.entries(connection, rollout.id) if rollout else []
    set_to = dict.fromkeys(move.to_digest for move in reversed(moves) if move.action == "set")
    return {
        "alias": alias,
        "seq": moves[-1].seq,
        "version": known[moves[-1].to_digest].name,
        "back": None if back is None else known[back.to_digest].name,
        "returns": [known[d].name for d in set_to if d != moves[-1].to_digest and not known[d].is_retired],
        "n_history": len(moves),
        "history": [
            {
                "seq": move.seq,
                "action": move.action,
                "version": known[move.to_digest].name,
                "digest": move.to_digest,
                "from": None if move.from_digest is None else known[move.from_digest].name,
                "who": move.who,
                "why": move.why,
                "at": move.at,
                "rollout": move.evidence.get("rollout"),
            }
            for move in reversed(moves[-_MOST:])
        ],
        "rollout": None if rollout is None else {**_rollout(rollout, known), "entries": entries[: -_MOST - 1 : -1]},
    }


def of_rollout(workspace: Workspace, rollout: Rollout) -> dict[str, Any]:
    """How one stands, without its figures. Of an arm: share, percent of users that it answers; shadowed, percent for whom it is
    computed and not shown (null unless it is a shadow)."""
    with workspace.read() as connection:
        return _rollout(rollout, _versions(connection, rollout.arms.values()))


def _rollout(rollout: Rollout, known: Mapping[str, _Version]) -> dict[str, Any]:
    weights, settings = rollout.allocation.weights, rollout.settings
    return {
        "id": rollout.id,
        "alias": rollout.alias,
        "kind": settings.kind,
        "status": rollout.status,
        "seq": rollout.seq,
        "stage": rollout.stage,
        "stages": [stage.share for stage in settings.stages] if settings.kind == "canary" else [],
        "arms": [
            {
                "arm": arm,
                "version": known[digest].name,
                "digest": digest,
                "share": weights.get(arm, 0) / 100,
                "shadowed": settings.shadowed(arm),
            }
            for arm, digest in sorted(rollout.arms.items(), key=lambda one: (one[0] != CONTROL, one[0]))
        ],
        "started_by": rollout.started_by,
        "started_at": rollout.started_at,
        "who": rollout.who,
        "why": rollout.why,
        "at": rollout.at,
    }


def _versions(connection: Connection, digests: Iterable[str]) -> dict[str, _Version]:
    """Digest -> name@number, and whether it was retired."""
    v = versions.c
    query = select(v.digest, v.name, v.number, v.retired_at).where(v.digest.in_(set(digests)))
    rows = connection.execute(query)
    return {row.digest: _Version(f"{row.name}@{row.number}", row.retired_at is not None) for row in rows}


def _effect(connection: Connection, alias: str, seq: int) -> dict[str, Any] | None:
    """How long this entry of the alias took to be in force in the routers that follow it; None before any said so."""
    query = select(func.count(), func.max(effects.c.seconds)).where(effects.c.subject == alias, effects.c.seq == seq)
    n, most = connection.execute(query).one()
    return {"n": n, "max_s": most} if n else None
