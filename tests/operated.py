"""A workspace as an operator finds it: an alias with a past, a canary beside it, replies, thumbs and rewards of both arms."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import served
from served import ALIAS, started

from rlhf.registry import aliases
from rlhf.serving import Outcome, Recorder, Router
from rlhf.serving.log import Rollout
from rlhf.store import Workspace

ERRORS = {"control": 0.02, "b": 0.08}
LATENCY_S = {"control": 0.4, "b": 0.6}


def reply(arm: str, chance: random.Random) -> dict[str, Any]:
    if chance.random() < ERRORS.get(arm, 0.0):
        return {"status": "error", "latency_s": 2.0}
    measured = {"latency_s": LATENCY_S.get(arm, 0.3) * chance.uniform(0.8, 1.4), "reward": chance.gauss(1.0, 0.3)}
    return {"status": "ok", "refusal": chance.random() < 0.05, "length_chars": 300, **measured}


def operated(workspace: Workspace, scratch: Path, n: int = 400, why: str = "wins on held-out prompts") -> Rollout:
    """hh@champion: hh@1, then hh@2, beside it hh@3 as a canary at half of the users; `n` requests, a thumb for each fourth."""
    served.with_versions(workspace, scratch)
    aliases.move(workspace.as_actor("ann"), ALIAS, "hh@2", why=why)
    aliases.move(workspace.as_actor("ann"), "hh@beta", "hh@4", why="to look at")
    rollout = started(workspace.as_actor("ann"), "canary", "hh@3", ramp=[{"share": 50}, {"share": 100}])
    router, recorder = Router(workspace, follow=False), Recorder(workspace)
    rows = served.serve(workspace, router, n, reply)
    for number, row in enumerate(rows[::4]):
        recorder.record_outcome(served.thumb(row.request_id, up=number % 3 > 0))
    recorder.record_outcome(Outcome(rows[0].request_id, "comment", "comment", note="odd"))
    recorder.close()
    router.close()
    return rollout
