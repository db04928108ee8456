"""May the alias move? The gate says; a move names the round and the reports it stands on, and nothing moves past a gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf import registry
from rlhf.errors import Conflict, NotFound
from rlhf.records import VersionRef
from rlhf.registry import aliases, gates
from rlhf.rounds.settings import LoopSettings
from rlhf.serving import trial_of
from rlhf.store import Workspace

PROMOTED, PROPOSED, UNCHANGED = "promoted", "proposed", "unchanged"
_PREPOSITION = {PROMOTED: "to", PROPOSED: "for", UNCHANGED: "at"}


def champion_of(workspace: Workspace, alias: str) -> VersionRef | None:
    """What the alias points at now; None where it was never set."""
    try:
        return aliases.current(workspace, alias)
    except NotFound:
        return None


def _require_own_names(workspace: Workspace, settings: LoopSettings) -> None:
    """Raises Conflict where a name of the loop is another role's already: its alias could never move."""
    roles = {settings.reward_name: "reward", settings.name: "policy"}
    for row in registry.list_versions(workspace):
        if row.ref.role != roles.get(row.ref.name, row.ref.role):
            raise Conflict(
                f"{row.ref} is a {row.ref.role}, and the loop would call its {roles[row.ref.name]} {row.ref.name}",
                fix="choose another name for the loop",
            )


def require_gates(workspace: Workspace, settings: LoopSettings) -> None:
    """Raises Conflict where an alias of the loop has no gate and the settings don't say that it may be so."""
    _require_own_names(workspace, settings)
    wanted = {settings.reward_alias: ("reward_gate", settings.reward_gate)}
    if settings.policy is not None:
        wanted[settings.policy_alias] = ("gate", settings.gate)
    lacking = [alias for alias, (_, how) in wanted.items() if how == "required" and not gates.gate_of(workspace, alias)]
    if lacking:
        key = wanted[lacking[0]][0]
        raise Conflict(
            f"{' and '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} no gate, and a round promotes through gates "
            "only",
            fix=f"set one: rlhf alias gate {lacking[0]} --rules FILE --why TEXT; or say `{key}: none` in the settings",
        )


def verdict(
    workspace: Workspace,
    settings: LoopSettings,
    alias: str,
    candidate: str,
    champion: str | None,
    *,
    round_id: str,
    evidence: Mapping[str, Any],
    why: str,
) -> dict[str, Any]:
    """Check the alias's gate for the candidate, and move the alias where that is met and the settings say `promote: auto`.

    champion: digest of what the candidate was held against, the alias's version at the round's beginning; None = it pointed at
    nothing. A move of this round that was made before a crash is found in the alias's history, and never made again.
    """
    ref = registry.resolve(workspace, candidate)
    moved = _moved_by(workspace, alias, ref, round_id)
    if moved is not None:
        return _said(alias, ref, PROMOTED, gate=moved)
    now = champion_of(workspace, alias)
    if now is not None and now.digest == ref.digest:
        return _said(alias, ref, UNCHANGED)
    if (now.digest if now else None) != champion:
        reason = f"{alias} was moved to {now} while the round was under way" if now else f"{alias} is gone"
        return _said(alias, ref, PROPOSED, [reason], "the next round compares with what is there now")
    found = gates.check(workspace, alias, ref, trials=trial_of)
    if not found.passed:
        return _said(alias, ref, PROPOSED, list(found.reasons), found.fix, found.evidence)
    if settings.promote == "propose":
        fix = f"look at it, then: rlhf alias set {alias} {ref} --why TEXT"
        return _said(alias, ref, PROPOSED, ["the settings say promote: propose"], fix, found.evidence)
    try:
        named = {"round": round_id, **evidence}
        move = aliases.move(workspace, alias, str(ref), why=why, evidence=named, trials=trial_of)
    except Conflict as lost:  # moved, or gated otherwise, between the check and the move
        return _said(alias, ref, PROPOSED, [lost.message], lost.fix, found.evidence)
    return _said(alias, ref, PROMOTED, gate=move.evidence.get("gate", {}))


def _moved_by(workspace: Workspace, alias: str, ref: VersionRef, round_id: str) -> Mapping[str, Any] | None:
    try:
        moves = aliases.history(workspace, alias)
    except NotFound:
        return None
    mine = [m for m in moves if m.to_digest == ref.digest and m.action == "set" and m.evidence.get("round") == round_id]
    return dict(mine[-1].evidence.get("gate", {})) if mine else None


def _said(
    alias: str,
    ref: VersionRef,
    outcome: str,
    reasons: list[str] | None = None,
    fix: str = "",
    gate: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "alias": alias,
        "candidate": str(ref),
        "digest": ref.digest,
        "outcome": outcome,
        "preposition": _PREPOSITION[outcome],
        "reasons": reasons or [],
        "fix": fix,
        "gate": dict(gate or {}),
    }
