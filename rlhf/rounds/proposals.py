"""Proposals of the last round: a gate that wanted a sign-off may be met by now, and then the alias moves."""

from __future__ import annotations

from typing import Any

from rlhf.rounds import decision
from rlhf.rounds.settings import LoopSettings
from rlhf.rounds.state import finished
from rlhf.rounds.verdicts import PROMOTED, PROPOSED, verdict
from rlhf.store import Workspace


def settle(workspace: Workspace, settings: LoopSettings) -> tuple[dict[str, Any], ...]:
    """Promote what the last finished round proposed, where its alias still points at what it was held against and its gate is met
    now; each gets a decision record. Nothing without `promote: auto`.
    """
    rounds = finished(workspace, settings)
    if not rounds or settings.promote != "auto":
        return ()
    last = rounds[-1]
    promoted = []
    for step, role in (("reward_verdict", "reward"), ("policy_verdict", "policy")):
        before = last.results.get(step)
        if before is None or before["outcome"] != PROPOSED:
            continue
        champion = last.results["look"][role]
        now = verdict(
            workspace,
            settings,
            before["alias"],
            before["candidate"],
            champion and champion["digest"],
            round_id=last.id,
            evidence={"decision": last.results["decision"]["report"]},
            why=f"round {last.id} proposed it, and its gate is met",
        )
        if now["outcome"] == PROMOTED:
            decision.settlement(workspace, last, [now])
            promoted.append(now)
            last.end(step, now)
    return tuple(promoted)
