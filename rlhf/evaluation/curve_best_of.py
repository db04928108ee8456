"""The best-of-n curve of one policy: what the truth says of the reply that the proxy would pick, as it may pick from more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf.errors import BadUsage
from rlhf.evaluation import reports
from rlhf.evaluation.asked_prompts import Where
from rlhf.evaluation.curve_content import head, is_simulated, publish, who, with_figures
from rlhf.evaluation.curve_judges import half, nearest, proxy_of, truth_of
from rlhf.evaluation.curve_points import Point
from rlhf.evaluation.estimates import Floats, nothing
from rlhf.evaluation.judges import Judged, Score
from rlhf.evaluation.reply_pairs import Progress, ReplyPair, Write, written_by
from rlhf.evaluation.reports import Report
from rlhf.evaluation.sides import Side, open_side
from rlhf.measures.best_of_n import best_of_n, best_of_n_kl, best_of_n_over_starts
from rlhf.store import Workspace

if TYPE_CHECKING:
    from rlhf.policy import Prompt, Sampling

N_PROMPTS, MAX_NEW_TOKENS = 100, 128
BY_CONSTRUCTION = "no interval: over all choices of the replies it is the same for every prompt"
_ALIKE = 1e-9


def best_of(
    workspace: Workspace,
    version: str,
    judge: str,
    *,
    n_best: int = 32,
    proxy: str | None = None,
    where: Where | None = None,
    sampling: Sampling | None = None,
    out: Path | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
    write: Write | None = None,
    score: Score | None = None,
) -> Report:
    """The curve over n = 1, 2, 4, … of one policy: of n replies the one that the proxy likes best, against one more reply. n_best:
    the pool a prompt. Raises BadUsage for people, who would have to judge every reply of the pool, and for temperature 0."""
    from rlhf import policy

    if out is not None:
        reports.check_out(out)
    where, sampling = where or Where(), sampling or policy.Sampling(MAX_NEW_TOKENS, 1.0, 1.0, seed)
    if n_best < 2 or sampling.temperature == 0:
        raise BadUsage(
            "of one reply, or of equal ones, there is no best", fix="--best-of 2 or more, --temperature above 0"
        )
    side = open_side(workspace, version)
    optimised = proxy_of(workspace, proxy or nearest(side), score)
    truth = truth_of(workspace, judge, [f"sha256:{optimised.ref.digest}"], None, score)
    asked = where.draw(workspace, [side], sampling, seed)
    pool = _pool(workspace, side, asked.prompts, sampling, n_best + 1, write or policy.replies, on_progress)
    pairs = [ReplyPair(row[0].prompt, reply, row[0]) for row in zip(*pool, strict=True) for reply in row[1:]]
    by_proxy, judged = optimised.judge(pairs), truth.judge(pairs)
    ns = [n for k in range(n_best.bit_length()) if (n := 2**k) <= n_best]
    texts = [[reply.text for reply in row] for row in zip(*pool, strict=True)]
    proxies, wins = (_curve(by_proxy, verdicts, texts, ns) for verdicts in (by_proxy, judged))
    firsts = [ReplyPair(row[0].prompt, row[1], row[0]) for row in zip(*pool, strict=True)]
    points = [Point(f"best of {n}", side.ref.digest, firsts, None, _exact(best_of_n_kl(n))) for n in ns]
    top = head("best of n", side.ref.text, points, proxies, wins, seed)
    for name, curve in (("proxy", proxies), ("truth", wins)):
        for row, own in zip(top["points"], curve, strict=True):
            if np.ptp(own) < _ALIKE:
                row[name] = {**nothing(), "value": row[name]["value"], "n": len(own), "method": BY_CONSTRUCTION}
    content = {
        **top,
        "versions": with_figures([side], top["points"][-1:]),
        "ns": ns,
        "proxy": who(workspace, optimised, None, seed),
        "judge": who(workspace, truth, judged, seed),
        "prompts": asked.as_json(),
        "sampling": asdict(sampling),
        "simulated": is_simulated(workspace, [optimised, truth]),
    }
    return publish(workspace, content, out)


def _curve(by_proxy: Judged, judged: Judged, texts: Sequence[Sequence[str]], ns: Sequence[int]) -> Floats:
    """(len(ns), P) wins of the best by the proxy: the mean over all choices of the start where the judge gave points, so that any
    two replies can be compared; a rule has seen each with the first one only."""
    scores_PM = _points(by_proxy, texts)
    least = np.nanmin(scores_PM, initial=0.0) - 1.0  # a reply that can't be scored is picked last
    picked_PM = np.where(np.isnan(scores_PM), least, scores_PM)
    if any(v.score_a is not None for v in judged.verdicts):
        wins = best_of_n_over_starts(picked_PM, _wins(_points(judged, texts), texts), ns)
        return wins.T
    halves = np.array([half(v.win) for v in judged.verdicts]).reshape(len(texts), -1)
    return best_of_n(picked_PM[:, 1:], halves, ns).T


def _points(judged: Judged, texts: Sequence[Sequence[str]]) -> Floats:
    """(P, M) of each reply, the start's first; NaN where it can't be scored."""
    a, b = (
        np.array([math.nan if x is None else x for x in side]).reshape(len(texts), -1)
        for side in zip(*((v.score_a, v.score_b) for v in judged.verdicts), strict=True)
    )
    return np.column_stack([b[:, 0], a])


def _wins(points_PM: Floats, texts: Sequence[Sequence[str]]) -> Floats:
    """(P, M, M) of the row's reply over the column's; a half where either can't be scored, and of equal texts, whose points may
    differ in the last digit."""
    wins = (np.sign(points_PM[:, :, None] - points_PM[:, None, :]) + 1) / 2
    same = np.array([[[one == other for other in row] for one in row] for row in texts])
    return np.where(np.isnan(wins) | same, 0.5, wins)


def _pool(
    workspace: Workspace,
    side: Side,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    n: int,
    write: Write,
    on_progress: Progress | None,
) -> list[Sequence[Any]]:
    """n replies to each prompt, each lot with a seed of its own and kept under it."""
    pool = []
    for k in range(n):

        def tell(done: int, _: int, before: int = k * len(prompts)) -> None:
            if on_progress:
                on_progress(before + done, n * len(prompts))

        own = replace(sampling, seed=sampling.seed * 1000 + k)
        pool.append(written_by(workspace, side.ref, prompts, own, write, tell))
    return pool


def _exact(value: float) -> dict[str, Any]:
    return {"value": value, "low": None, "high": None, "n": 0, "level": None, "method": "a bound, not an estimate"}
