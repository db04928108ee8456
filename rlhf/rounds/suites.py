"""What a round trains on and is measured on: its cut, what a champion has seen, and the suite that never changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf import registry, snapshots
from rlhf.errors import Conflict
from rlhf.rounds.settings import LoopSettings
from rlhf.rounds.state import finished
from rlhf.store import Workspace


def frozen_suite(workspace: Workspace, settings: LoopSettings) -> str | None:
    """The snapshot whose test side is the frozen suite: the first finished round's; None before that."""
    first = next(iter(finished(workspace, settings)), None)
    return None if first is None else str(first.results["cut"]["frozen"])


def require_same_split(workspace: Workspace, settings: LoopSettings) -> None:
    """Raises Conflict where the settings would move rows between the sides: the frozen suite would be trained on."""
    ref = frozen_suite(workspace, settings)
    if ref is None:
        return
    rule = snapshots.open_snapshot(workspace, ref).rule
    if (rule["holdout"], rule["seed"]) != (settings.holdout, settings.seed):
        raise Conflict(
            f"the frozen suite {ref} was cut with holdout {rule['holdout']} and seed {rule['seed']}, the settings say "
            f"{settings.holdout} and {settings.seed}: held-out pairs would be trained on",
            fix=f"say holdout: {rule['holdout']} and seed: {rule['seed']}, or begin another loop under another name",
        )


def cut_since(workspace: Workspace, name: str, began: str, rule: Mapping[str, Any]) -> snapshots.Snapshot | None:
    """The last cut of the name where it is by this rule and was made since a round began: its own, made before it was killed."""
    cuts = [entry for entry in snapshots.list_snapshots(workspace) if entry.name == name]
    if not cuts or cuts[-1].created_at < began:
        return None
    same = all(cuts[-1].rule[key] == (sorted(set(v)) if isinstance(v, list) else v) for key, v in rule.items())
    return snapshots.open_snapshot(workspace, cuts[-1].ref) if same else None


def seen_by(workspace: Workspace, version: str) -> list[str]:
    """The snapshots that a version, and what it went on from, was trained on."""
    origins = registry.lineage(workspace, version).snapshots
    return [origin.names[-1] for origin in origins if origin.names]
