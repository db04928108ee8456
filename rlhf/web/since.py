"""What the regular review looks at: what came in since the last one, what was decided, what it changed, and what is overdue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from rlhf.errors import RlhfError
from rlhf.ids import first_id_at
from rlhf.records import VersionRef
from rlhf.registry import Gate, aliases, decisions, gates, list_versions
from rlhf.registry.decisions import Standing
from rlhf.serving import Rollout, rollouts, trial_of
from rlhf.serving.trials import hours_of
from rlhf.store import Workspace
from rlhf.store.tables import audit, comments, imports, items, judgements, pauses

_MOVES = ("promotion", "rollback")
_MOST_FIGURES = 10
_MOST_REASONS = 4
_MOST_SOURCES = 8
_ERASED = "feedback.erase"


def gathered(workspace: Workspace) -> dict[str, Any]:
    """Everything, as of now. workspace: of whom who looks: a gate with four eyes asks who would move."""
    with workspace.read() as connection:
        review = decisions.last_review(connection)
        came_in = _came_in(connection, review.at if review else None)
    every = decisions.list_decisions(workspace)
    fresh = [one for one in every if one.decision.number > (review.number if review else 0)]
    held = (
        None if review is None else {"decision": review.number, "who": review.who, "at": review.at, "notes": review.why}
    )
    return {
        "review": held,
        "last": every[-1].decision.number if every else 0,
        "came_in": came_in,
        "decided": [one.as_json() for one in reversed(fresh)],
        "changed": _changed(fresh),
        "overdue": {
            "reviews": [one.as_json() for one in every if one.is_overdue],
            "gates": _unmet(workspace, every),
            "canaries": _waiting(workspace),
        },
    }


def _came_in(connection: Connection, since: str | None) -> dict[str, Any]:
    """Counts of rows since then; of judgements by the key, which goes by time, for there may be millions."""
    at = since or ""
    fresh = judgements.c.id > (first_id_at(datetime.fromisoformat(since).timestamp()) if since else "")
    kinds = select(judgements.c.kind, func.count().label("n")).where(fresh).group_by(judgements.c.kind)
    by_kind = {row.kind: int(row.n) for row in connection.execute(kinds)}
    people = (
        select(judgements.c.source, judgements.c.labeler).where(fresh, judgements.c.labeler.is_not(None)).distinct()
    )
    sources = connection.execute(select(judgements.c.source).distinct().where(fresh).order_by(judgements.c.source))
    names = list(sources.scalars())

    def count(table: Any, *where: Any) -> int:
        return int(connection.scalar(select(func.count()).select_from(table).where(*where)) or 0)

    return {
        "judgements": sum(by_kind.values()),
        "by_kind": by_kind,
        "labelers": int(connection.scalar(select(func.count()).select_from(people.subquery())) or 0),
        "n_sources": len(names),
        "sources": names[:_MOST_SOURCES],
        "imports": count(imports, imports.c.created_at > at),
        "comments": count(comments, comments.c.created_at > at),
        "items": count(items, items.c.created_at > at),
        "erasures": count(audit, audit.c.action == _ERASED, audit.c.at > at),
        "appeals": count(pauses, pauses.c.action == "appeal", pauses.c.at > at),
    }


def _changed(fresh: Sequence[Standing]) -> list[dict[str, Any]]:
    """Each alias that moved: where it stood, where it stands, and the figures of both from the report of its last promotion."""
    of_alias: dict[str, list[Standing]] = {}
    for one in fresh:
        if one.decision.kind in _MOVES:
            of_alias.setdefault(str(one.decision.alias), []).append(one)
    changed = []
    for alias, moves in sorted(of_alias.items()):
        first, last = moves[0], moves[-1]
        is_back = first.decision.from_digest == last.decision.to_digest
        shown = None if is_back or last.decision.kind != "promotion" else last.decision
        is_whole = shown is not None and shown.from_digest == first.decision.from_digest
        changed.append(
            {
                "alias": alias,
                "from": first.from_version,
                "to": last.to_version,
                "moves": len(moves),
                "is_back": is_back,
                "decision": last.decision.number,
                "report": shown.content["report"] if shown else None,
                "figures": _beside(shown.content["figures"], is_whole) if shown else [],
            }
        )
    return changed


def _beside(figures: Mapping[str, Any], is_whole: bool) -> list[dict[str, Any]]:
    """Those with an interval, else all. is_whole: the report is against where the alias stood at the last review."""
    to: Mapping[str, Any] = figures["to"] or {}
    before: Mapping[str, Any] = (figures["from"] or {}) if is_whole else {}
    named = [name for name in to if f"{name}_low" in to] or list(to)

    def told(of: Mapping[str, Any], name: str) -> dict[str, Any] | None:
        value = of.get(name)
        return None if value is None else {"value": value, "low": of.get(f"{name}_low"), "high": of.get(f"{name}_high")}

    found = [{"figure": name, "from": told(before, name), "to": told(to, name)} for name in named]
    return [one for one in found if one["to"] is not None][:_MOST_FIGURES]


def _unmet(workspace: Workspace, every: Sequence[Standing]) -> list[dict[str, Any]]:
    """Of each alias with a gate: whether what it points at came through the gate that it has now, and what keeps the newest
    version of its name from it."""
    pointing = {one.alias: one.version for one in aliases.list_aliases(workspace)}
    newest: dict[str, VersionRef] = {}
    for row in list_versions(workspace):
        if row.retired_at is None and row.ref.number > getattr(newest.get(row.ref.name), "number", 0):
            newest[row.ref.name] = row.ref
    found = []
    for gate in gates.list_gates(workspace):
        now_there, candidate = pointing.get(gate.alias), newest.get(gate.alias.partition("@")[0])
        if now_there is not None and not _came_through(gate, every):
            reason = "It came there otherwise than through the gate that is there now."
            found.append(
                {"alias": gate.alias, "version": str(now_there), "in_force": True, "reasons": [reason], "fix": ""}
            )
        if candidate is not None and candidate.number > (now_there.number if now_there else 0):
            found += _kept_out(workspace, gate, candidate)
    return found


def _came_through(gate: Gate, every: Sequence[Standing]) -> bool:
    """The promotion at which the alias stands, a rollback's too, met the rules in force now."""
    for one in every:
        if one.in_force and one.decision.alias == gate.alias and one.decision.kind == "promotion":
            met = one.decision.content["gate"]
            return met is not None and met["digest"] == gate.digest
    return False


def _kept_out(workspace: Workspace, gate: Gate, candidate: VersionRef) -> list[dict[str, Any]]:
    told: dict[str, Any] = {"alias": gate.alias, "version": str(candidate), "in_force": False}
    try:
        verdict = gates.check(workspace, gate.alias, candidate, trials=trial_of)
    except RlhfError as error:
        return [{**told, "reasons": [error.message], "fix": error.fix}]
    if verdict.passed:
        return []
    return [{**told, "reasons": list(verdict.reasons[:_MOST_REASONS]), "fix": verdict.fix}]


def _waiting(workspace: Workspace) -> list[dict[str, Any]]:
    """Rollouts that wait for somebody."""
    wanted = {gate.alias: gate.rules.canary_hours for gate in gates.list_gates(workspace)}
    found = []
    for rollout in rollouts.in_force(workspace):
        with workspace.read() as connection:
            hours = hours_of(connection, rollout)
        if why := _waits_for(rollout, hours, wanted.get(rollout.alias, 0.0)):
            told = {
                "alias": rollout.alias,
                "kind": rollout.settings.kind,
                "status": rollout.status,
                "since": rollout.at,
            }
            found.append({**told, "rollout": rollout.id, "hours": hours, "waits_for": why})
    return found


def _waits_for(rollout: Rollout, hours: float, wanted: float) -> str:
    """What for, in words; '' where it goes on by itself or its time isn't over."""
    if rollout.status == "pending":
        return "somebody to begin it"
    if rollout.status == "paused":
        return f"somebody to go on or to roll back: {rollout.why}"
    settings = rollout.settings
    if settings.kind != "canary":
        return ""
    stage = settings.stages[rollout.stage]
    is_last = rollout.stage + 1 == len(settings.stages)
    if is_last and settings.complete != "auto":
        return "somebody to complete it" if hours >= wanted else ""
    return "somebody to advance it" if stage.hours is None and stage.units is None else ""
