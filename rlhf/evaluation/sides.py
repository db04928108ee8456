"""The two sides of a comparison: who they are, what stands behind them, and what of the material they have seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhf.errors import NotFound
from rlhf.evaluation.judges import Judge
from rlhf.snapshots import open_snapshot
from rlhf.store import Workspace

if TYPE_CHECKING:
    from rlhf.policy import PolicyRef
    from rlhf.registry import Lineage


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two, with what it stands on; a bare base stands on nothing."""

    ref: PolicyRef
    lineage: Lineage | None

    @property
    def rewards(self) -> list[Any]:
        """Reward versions that it was trained on, the nearest first."""
        return [] if self.lineage is None else [r.version for r in self.lineage.ancestors if r.version.role == "reward"]


def open_side(workspace: Workspace, text: str) -> Side:
    from rlhf import policy, registry

    ref = policy.resolve_policy(workspace, text)
    return Side(ref, None if ref.ref is None else registry.lineage(workspace, ref.ref))


def identity(workspace: Workspace, side: Side, groups: set[str]) -> dict[str, Any]:
    """Who a side is, and how many of the opening turns stand in the train side of a snapshot behind it (None = that can't be
    told: a snapshot isn't in this workspace, or a file of prompts was trained on)."""
    seen: set[str] = set()
    is_known = not _learnt_from_a_file(workspace, side)
    for origin in side.lineage.snapshots if side.lineage else ():
        try:
            rows = open_snapshot(workspace, f"sha256:{origin.digest}").rows("train")
        except NotFound:
            is_known = False
            break
        seen |= {row.pair.group for row in rows} & groups
    return {
        "digest": side.ref.digest,
        "is_base": side.ref.is_base,
        "base_digest": side.ref.base_digest,
        "base": side.lineage.base_name if side.lineage else side.ref.text.removeprefix("base:"),
        "rewards": [str(reward) for reward in side.rewards],
        "simulated": side.lineage is not None and side.lineage.simulated,
        "seen_openings": len(seen) if is_known else None,
    }


def _learnt_from_a_file(workspace: Workspace, side: Side) -> bool:
    """Whether the policy, or one that it went on from, was trained on prompts that stand in no snapshot."""
    from rlhf import registry

    line = [] if side.lineage is None else [side.lineage.version, *(r.version for r in side.lineage.ancestors)]
    manifests = [registry.show(workspace, ref).manifest for ref in line if ref.role == "policy"]
    return any("source" in m["settings"] and m["snapshot_digest"] is None for m in manifests)


def is_simulated(workspace: Workspace, side: Side, judged_by: Judge) -> bool:
    """A policy, a reward behind it or the judging reward learnt from a program's judgements."""
    from rlhf import registry

    rewards = [reward.digest for reward in side.rewards]
    if judged_by.kind == "reward":
        rewards.append(registry.resolve(workspace, judged_by.name).digest)
    manifests = [registry.show(workspace, f"sha256:{digest}").manifest for digest in rewards]
    return (side.lineage is not None and side.lineage.simulated) or any(m["simulated"] for m in manifests)
