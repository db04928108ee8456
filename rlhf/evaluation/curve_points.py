"""The points of an over-optimisation curve: what was written at each of them, beside what was written at the start.

Of a run: the replies that its watch kept at every measurement, to the same prompts with the same chance, with the points of the
rewards that it trains on; nothing is generated again, and a checkpoint that is long gone has its point. Of versions: replies to the
prompts of a comparison, each version's beside the bare base's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf.errors import BadInput
from rlhf.evaluation.estimates import mean
from rlhf.evaluation.reply_pairs import Progress, ReplyPair, Write, written
from rlhf.evaluation.sides import Side
from rlhf.records import Message
from rlhf.store import Workspace
from rlhf.store.runs import RunRow

if TYPE_CHECKING:
    from rlhf.policy import Prompt, Sampling

_REPLIES, _METRICS = "replies.jsonl", "metrics.jsonl"


@dataclass(frozen=True)
class Point:
    """name: as it is shown; digest: of what wrote it. pairs: its replies (a) beside those of the start (b). proxy: the win of each
    by the proxy, ties and what it can't score half; None = to be judged. kl: mean, nats a reply, with its interval where there is
    one.
    """

    name: str
    digest: str
    pairs: list[ReplyPair]
    proxy: list[float] | None
    kl: Mapping[str, Any]


def of_run(workspace: Workspace, run: RunRow, prompts: Sequence[Prompt] | None) -> list[Point]:
    """One point a measurement of the run's watch, the first of them the start. prompts: where the run's own can't be found.

    Raises BadInput for a run that trains no policy or kept no measurement, and where the words of its prompts aren't here.
    """
    if run.kind != "policy":
        raise BadInput(f"run {run.id} is of kind {run.kind}; wanted a policy's training", fix="see: rlhf run list")
    folder = workspace.root / run.folder
    rows = [row for row in _lines(folder / _REPLIES) if row.get("phase") == "watch"]
    measured = {row["step"]: row["watch"] for row in _lines(folder / _METRICS) if "watch" in row}
    by_step: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["step"] in measured:
            by_step.setdefault(row["step"], []).append(row)
    if len(by_step) < 2:
        raise BadInput(
            f"run {run.id} kept replies of {len(by_step)} measurements; wanted two or more",
            fix="train with watch_steps above 0, or name versions instead of a run",
        )
    messages = _messages(workspace, run, prompts, {row["prompt"] for row in rows})
    first = by_step[min(by_step)]
    return [_measured(step, own, first, measured[step], messages) for step, own in sorted(by_step.items())]


def of_versions(
    workspace: Workspace,
    sides: Sequence[Side],
    base: Side,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    write: Write,
    on_progress: Progress | None,
    seed: int,
) -> list[Point]:
    """The bare base, then each version in the order given."""
    points, n = [], len(prompts)
    for place, side in enumerate(sides):

        def tell(done: int, _: int, before: int = 2 * n * place) -> None:
            if on_progress:
                on_progress(before + done, 2 * n * len(sides))

        pairs = written(workspace, [side.ref, base.ref], prompts, sampling, write, tell)
        kl = np.array([pair.a.logp - pair.a.logp_base for pair in pairs])
        points.append(Point(side.ref.text, side.ref.digest, pairs, None, mean(kl, [p.group for p in pairs], seed)))
    start = [ReplyPair(pair.prompt, pair.b, pair.b) for pair in points[0].pairs]
    zero = mean(np.zeros(len(start)), [p.group for p in start], seed)
    return [Point(base.ref.text, base.ref.digest, start, [0.5] * len(start), zero), *points]


def _measured(
    step: int,
    own: Sequence[Mapping[str, Any]],
    first: Sequence[Mapping[str, Any]],
    figures: Mapping[str, Any],
    messages: Mapping[str, Sequence[Message]],
) -> Point:
    if [row["prompt"] for row in own] != [row["prompt"] for row in first]:
        raise BadInput(
            f"the replies of step {step} are to other prompts than those of step {first[0]['step']}",
            fix="the run's replies.jsonl was changed: train again",
        )
    pairs = [_pair(now, then, messages[now["prompt"]]) for now, then in zip(own, first, strict=True)]
    wins = [_win(now["points"], then["points"]) for now, then in zip(own, first, strict=True)]
    kl = {
        "value": float(figures["kl"]),
        "low": None,
        "high": None,
        "n": len(own),
        "level": None,
        "method": "the watch's",
    }
    return Point(f"step {step}", str(own[0]["adapter"]), pairs, wins, kl)


def _pair(now: Mapping[str, Any], then: Mapping[str, Any], messages: Sequence[Message]) -> ReplyPair:
    from rlhf.policy import Prompt, Reply

    prompt = Prompt(str(now["prompt"]), tuple(messages))
    a, b = (Reply(prompt, row["reply"], row["tokens"], row["cut_off"], 0.0, 0.0) for row in (now, then))
    return ReplyPair(prompt, a, b)


def _win(now: float | None, then: float | None) -> float:
    if now is None or then is None:
        return 0.5
    return 0.5 if now == then else float(now > then)


def _messages(
    workspace: Workspace, run: RunRow, prompts: Sequence[Prompt] | None, wanted: set[str]
) -> dict[str, tuple[Message, ...]]:
    """The words of the run's prompts: of those given, of its file, or of the snapshot behind its reward."""
    from rlhf import policy, registry
    from rlhf.errors import RlhfError

    found: dict[str, tuple[Message, ...]] = {p.id: p.messages for p in prompts or ()}
    if not wanted <= set(found) and run.settings.get("prompts"):
        from pathlib import Path

        file = Path(str(run.settings["prompts"]))
        found |= {p.id: p.messages for p in policy.read_prompts(file)} if file.is_file() else {}
    for digest in run.settings.get("reward_digests", ()):
        for origin in registry.lineage(workspace, registry.resolve(workspace, f"sha256:{digest}")).snapshots:
            for side in ("test", "train"):
                if wanted <= set(found):
                    break
                try:
                    own = policy.prompts_of(workspace, f"sha256:{origin.digest}", side)
                except RlhfError:
                    continue
                found |= {p.id: p.messages for p in own}
    if missing := wanted - set(found):
        raise BadInput(
            f"the words of {len(missing)} of {len(wanted)} prompts of run {run.id} are not here, first {min(missing)[:12]}",
            fix="give the file that it was trained with: --prompts FILE",
        )
    return found


def _lines(file: Any) -> list[dict[str, Any]]:
    """The file's objects; one that a kill cut short is none."""
    found = []
    for line in file.read_text("utf-8").split("\n") if file.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.append(row)
    return found
