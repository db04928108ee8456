"""Over-optimisation curves: the proxy that was optimised beside the truth, against what it cost in KL, or over n of best-of-n.

Both are win rates over the replies of the start to the same prompts, so that they have one unit and one level, a half, where they
begin: of a run the start is its step 0, of versions the bare base, of best-of-n one more reply by the same policy. The truth is
another reward, a rule, or people; nothing says that it is true, and the report says how far it agrees with people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.errors import BadInput, BadUsage
from rlhf.evaluation import reports
from rlhf.evaluation.asked_prompts import Where
from rlhf.evaluation.curve_content import head, is_simulated, publish, published, who, with_figures
from rlhf.evaluation.curve_judges import half, nearest, proxy_of, truth_of
from rlhf.evaluation.curve_points import Point, of_run, of_versions
from rlhf.evaluation.judges import Judge, Judged, Score
from rlhf.evaluation.reply_pairs import Progress, ReplyPair, Write
from rlhf.evaluation.reports import Report
from rlhf.evaluation.sides import open_side
from rlhf.ids import digest_of
from rlhf.store import Workspace
from rlhf.store.runs import RunRow

if TYPE_CHECKING:
    from rlhf.policy import Prompt, Sampling

N_PROMPTS, MAX_NEW_TOKENS = 100, 128


def over_run(
    workspace: Workspace,
    run: RunRow,
    judge: str,
    *,
    prompts: Sequence[Prompt] | None = None,
    out: Path | None = None,
    seed: int = 0,
    score: Score | None = None,
) -> Report:
    """The curve over the measurements of a policy's training: its proxy is the points that it trains on. Publishes a report.

    judge: the truth: a reward version, a rule or `people`. prompts: the words of the run's prompts, where they aren't here. Raises
    Waiting until people have judged, BadInput for a run without measurements, BadUsage for a judge that the run was trained on.
    """
    if out is not None:
        reports.check_out(out)
    points = of_run(workspace, run, prompts)
    rewards = [f"sha256:{digest}" for digest in run.settings.get("reward_digests", ())]
    proxy = proxy_of(workspace, rewards[0], score)
    truth = truth_of(workspace, judge, [*rewards], tuple(point.digest for point in points), score)
    wins, judged = _judged(points, truth)
    names = " + ".join(map(str, run.settings["reward"]))
    asked = {"n": len({p.prompt.id for p in points[0].pairs}), "snapshot": None, "digest": _digest_of(points[0].pairs)}
    top = head("checkpoints", f"{run.name}, run {run.id}", points, [p.proxy or [] for p in points], wins, seed)
    content = {
        **top,
        "versions": published(workspace, run, points, top),
        "run": run.id,
        "proxy": {**who(workspace, proxy, None, seed), "name": names},
        "judge": who(workspace, truth, judged, seed),
        "prompts": asked,
        "sampling": None,
        "simulated": is_simulated(workspace, [proxy, truth]),
    }
    return publish(workspace, content, out)


def over_versions(
    workspace: Workspace,
    versions: Sequence[str],
    judge: str,
    *,
    proxy: str | None = None,
    where: Where | None = None,
    sampling: Sampling | None = None,
    out: Path | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
    write: Write | None = None,
    score: Score | None = None,
) -> Report:
    """The curve over versions of one base in the order given, such as those of rounds. proxy: None = the reward nearest to the
    last."""
    from rlhf import policy

    if out is not None:
        reports.check_out(out)
    where, sampling = where or Where(), sampling or policy.Sampling(MAX_NEW_TOKENS, 1.0, 1.0, seed)
    sides = [open_side(workspace, text) for text in versions]
    if len({side.ref.base_digest for side in sides}) > 1:
        raise BadInput(
            "the versions stand on different bases, so their KL has no common start", fix="name those of one"
        )
    if bare := [side.ref.text for side in sides if side.ref.is_base]:
        raise BadUsage(f"{bare[0]} is where the curve starts in any case", fix="name policy versions alone")
    bases = {f"base:{side.lineage.base_name}": side.ref.base_digest for side in sides if side.lineage}
    if len(set(bases.values())) != 1:
        raise BadInput(
            "the versions stand on different bases, so their KL has no common start", fix="name those of one"
        )
    base = open_side(workspace, next(iter(bases)))
    optimised = proxy_of(workspace, proxy or nearest(sides[-1]), score)
    truth = truth_of(
        workspace, judge, [f"sha256:{optimised.ref.digest}"], tuple(s.ref.digest for s in [base, *sides]), score
    )
    asked = where.draw(workspace, [*sides, base], sampling, seed)
    points = of_versions(
        workspace, sides, base, asked.prompts, sampling, write or policy.replies, on_progress, seed
    )  # fmt: skip
    proxies, _ = _judged(points, optimised)
    wins, judged = _judged(points, truth)
    top = head("versions", ", ".join(side.ref.text for side in sides), points, proxies, wins, seed)
    content = {
        **top,
        "versions": with_figures(sides, top["points"][1:]),
        "proxy": who(workspace, optimised, None, seed),
        "judge": who(workspace, truth, judged, seed),
        "prompts": asked.as_json(),
        "sampling": asdict(sampling),
        "simulated": is_simulated(workspace, [optimised, truth]),
    }
    return publish(workspace, content, out)


def _judged(points: Sequence[Point], judge: Judge) -> tuple[list[list[float]], Judged]:
    """Each point's wins over the start, all judged at once; the start's own are even."""
    pairs = [pair for point in points[1:] for pair in point.pairs]
    judged = judge.judge(pairs)
    wins, at = [[0.5] * len(points[0].pairs)], 0
    for point in points[1:]:
        own = judged.verdicts[at : at + len(point.pairs)]
        wins.append([half(verdict.win) for verdict in own])
        at += len(point.pairs)
    return wins, judged


def _digest_of(pairs: Sequence[ReplyPair]) -> str:
    return digest_of(list(dict.fromkeys(pair.prompt.digest for pair in pairs)))
