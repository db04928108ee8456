"""Who is the proxy of an over-optimisation curve, and who says what is true: never one and the same."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf.errors import BadUsage
from rlhf.evaluation.judges import Judge, RewardJudge, Score, open_judge
from rlhf.evaluation.people_judge import PeopleJudge
from rlhf.evaluation.sides import Side
from rlhf.store import Workspace


def proxy_of(workspace: Workspace, text: str, score: Score | None) -> RewardJudge:
    judge = open_judge(workspace, text, score)
    if not isinstance(judge, RewardJudge):
        raise BadUsage(f"the proxy {text} is no reward version", fix="name one: --proxy VERSION")
    return judge


def truth_of(
    workspace: Workspace, text: str, proxies: Sequence[str], digests: tuple[str, ...] | None, score: Score | None
) -> Judge:
    judge = open_judge(workspace, text, score)
    if judge is None and digests is None:
        raise BadUsage(
            "people would have to judge every reply of the pool",
            fix="name another reward version or a rule with --judge",
        )
    if isinstance(judge, RewardJudge) and f"sha256:{judge.ref.digest}" in proxies:
        raise BadUsage(
            f"{judge.name} is the proxy itself: a curve of it against itself shows nothing",
            fix="name another judge: a reward that it wasn't optimised for, a rule, or people",
        )
    return judge or PeopleJudge(workspace, digests or ())


def nearest(side: Side) -> str:
    if not side.rewards:
        raise BadUsage(f"no reward stands behind {side.ref.text} to be its proxy", fix="name one: --proxy VERSION")
    return str(side.rewards[0])


def half(win: float | None) -> float:
    """A win; what nobody judged is even."""
    return 0.5 if win is None else win
