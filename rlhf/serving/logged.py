"""A rollout's own replies as a bandit's log: arms are the actions, their chances were logged, what a reply earned is a reward or a
thumb.

Only replies whose arm chance gave, that were shown, ended well and were told of; users' replies belong together. Who never says
anything isn't in the figures, so thumbs stand for those who give them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from rlhf.errors import BadUsage, NotFound
from rlhf.measures.off_policy import Log
from rlhf.serving import log as logs
from rlhf.serving import monitor
from rlhf.serving.log import Rollout
from rlhf.serving.monitor import Served
from rlhf.store import Workspace

Earned = Literal["reward", "satisfaction"]


def log_of(workspace: Workspace, which: str, earned: str) -> tuple[Rollout, Log]:
    """The log of a rollout (name@alias, its id or how it begins). Raises NotFound for an unknown one or where nothing was earned,
    BadUsage for a word that isn't reward or satisfaction."""
    if earned not in ("reward", "satisfaction"):
        raise BadUsage(f"--reward {earned:.60}: a reply earns a reward or satisfaction", fix="give one of these two")
    with workspace.read() as connection:
        rollout = logs.find(connection, which)
        rows = monitor.served(connection, rollout)
    told = [row for row in rows if row.rule == "weights" and row.status == "ok" and _earned(row, earned) is not None]
    if not told:
        what = "was rewarded" if earned == "reward" else "had a thumb"
        raise NotFound(f"none of the {len(rows)} replies of {rollout.alias}'s rollout {what}", fix="wait for some")
    return rollout, _as_log(list(rollout.arms), told, earned)


def _as_log(arms: Sequence[str], rows: Sequence[Served], earned: str) -> Log:
    number = {arm: i for i, arm in enumerate(arms)}
    return Log(
        action_N=np.array([number[row.arm] for row in rows], dtype=np.intp),
        context_N=np.zeros(len(rows), dtype=np.intp),
        reward_N=np.array([_earned(row, earned) for row in rows], dtype=np.float64),
        propensity_N=np.array([row.propensity for row in rows]),
        actions=arms,
        unit_N=np.unique([row.unit for row in rows], return_inverse=True)[1].reshape(-1),
    )


def _earned(row: Served, earned: str) -> float | None:
    return row.reward if earned == "reward" else row.thumb
