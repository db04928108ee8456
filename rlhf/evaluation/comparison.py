"""Two policies on the same prompts: the main road from two names to a published report of who writes better.

Both sides write one reply to each prompt, a judge says which is better, and the report holds the figures with their
intervals. Its JSON names pairs by digest and holds no text; its page shows the replies side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.errors import BadInput, BadUsage, NotFound
from rlhf.evaluation import reports, win_rates
from rlhf.evaluation.comparison_page import render, side_in_words
from rlhf.evaluation.judges import PEOPLE, Judge, Judged, Score, open_judge
from rlhf.evaluation.learning import training_sections
from rlhf.evaluation.people_judge import PeopleJudge
from rlhf.evaluation.reply_pairs import Progress, ReplyPair, Write, written
from rlhf.evaluation.reports import Report
from rlhf.evaluation.seen import require_unseen
from rlhf.evaluation.win_strata import with_strata
from rlhf.ids import digest_of, unit_interval
from rlhf.snapshots import Snapshot, open_snapshot
from rlhf.store import Workspace
from rlhf.suites import Suite, open_suite

if TYPE_CHECKING:
    from rlhf.policy import PolicyRef, Prompt, Sampling
    from rlhf.registry import Lineage

SCHEMA_VERSION = 1
N_PROMPTS, MAX_NEW_TOKENS, TEMPERATURE = 200, 128, 0.7


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two, with what it stands on; a bare base stands on nothing."""

    ref: PolicyRef
    lineage: Lineage | None

    @property
    def rewards(self) -> list[Any]:
        """Reward versions that it was trained on, the nearest first."""
        return [] if self.lineage is None else [r.version for r in self.lineage.ancestors if r.version.role == "reward"]


@dataclass(frozen=True, slots=True)
class _Asked:
    """The prompts of a comparison. snapshot: name and digest where they are its test side; n_unfit: of these, how many leave no
    room for a reply on either side, and are left out.
    """

    prompts: tuple[Prompt, ...]
    n_given: int
    n_repeated: int
    n_unfit: int
    snapshot: tuple[str, str] | None

    def as_json(self) -> dict[str, Any]:
        name, digest = self.snapshot or (None, None)
        return {
            "n": len(self.prompts),
            "n_given": self.n_given,
            "n_repeated": self.n_repeated,
            "n_unfit": self.n_unfit,
            "snapshot": name,
            "snapshot_digest": digest,
            "digest": digest_of([prompt.digest for prompt in self.prompts]),
        }


def compare(
    workspace: Workspace,
    a: str,
    b: str,
    *,
    prompts: Sequence[Prompt] | None = None,
    snapshot: str | None = None,
    suite: str | None = None,
    judge: str | None = None,
    sampling: Sampling | None = None,
    n: int = N_PROMPTS,
    min_judged: int | None = None,
    out: Path | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
    write: Write | None = None,
    score: Score | None = None,
) -> Report:
    """Let both write a reply to each of the same prompts, have them judged, and publish figures and page as a report.

    a, b: policy versions or `base:NAME`. prompts: None = those of `suite`, the test side of `snapshot`, or where both are None of
    the one behind a's or b's reward; of more than n, n are drawn by (seed, digest). judge: a reward version, the name of a rule, or
    `people`; None = the reward behind a or b. sampling: None = 128 tokens at temperature 0.7, with `seed`. min_judged:
    people's verdicts that are enough; None = all. on_progress(done, all): replies of both sides. write, score: other than
    `policy.replies` and `reward.score_items`.

    The same comparison again returns the same report, and what was written is kept. `figures[name]` of each side has
    `win_rate`, `length_controlled_win_rate`, `kl` and so on (see `win_rates.figures`). Raises Waiting until people have
    judged enough, `seen.Overlap` where a side was trained on prompts of a held-out suite, BadInput for two names of one
    version, a reward or no prompts, BadUsage for an unknown judge.
    """
    from rlhf import policy

    if out is not None:
        reports.check_out(out)
    if sum(given is not None for given in (prompts, snapshot, suite)) > 1:
        raise BadUsage(
            "prompts are given in two ways", fix="leave out all but one of --prompts, --snapshot and --suite"
        )
    if n < 1:
        raise BadUsage(f"{n} prompts compare nothing", fix="give --n 1 or more")
    sides = (_side(workspace, a), _side(workspace, b))
    if sides[0].ref.digest == sides[1].ref.digest:
        raise BadInput(f"{a} and {b} are one version, {sides[0].ref.text}", fix="name two different versions")
    judged_by = _judge(workspace, sides, judge, min_judged, score)
    sampling = sampling or policy.Sampling(max_new_tokens=MAX_NEW_TOKENS, temperature=TEMPERATURE, seed=seed)
    cut = _named(workspace, sides, snapshot, suite)
    asked = _asked(workspace, sides, prompts, cut, n, seed, sampling)
    pairs = written(workspace, [s.ref for s in sides], asked.prompts, sampling, write or policy.replies, on_progress)
    judged = judged_by.judge(pairs)
    content = _content(workspace, sides, judged_by, judged, asked, pairs, sampling, seed)
    training = training_sections(workspace, content["versions"])
    report = reports.publish(workspace, content, render(content, pairs, judged.verdicts, training))
    if out is not None:
        reports.copy(report, out)
    return report


def _side(workspace: Workspace, text: str) -> _Side:
    from rlhf import policy, registry

    ref = policy.resolve_policy(workspace, text)
    return _Side(ref, None if ref.ref is None else registry.lineage(workspace, ref.ref))


def _judge(
    workspace: Workspace, sides: tuple[_Side, _Side], text: str | None, min_judged: int | None, score: Score | None
) -> Judge:
    if text is None:
        behind = [reward for side in sides for reward in side.rewards]
        if not behind:
            raise BadUsage(
                f"no reward stands behind {sides[0].ref.text} or {sides[1].ref.text} to judge them",
                fix="name a judge: --judge VERSION (a reward), --judge RULE or --judge people",
            )
        text = str(behind[0])
    if min_judged is not None and (text != PEOPLE or min_judged < 1):
        raise BadUsage(
            "--min-judged is for --judge people, and 1 or more", fix="leave it out: other judges judge every pair"
        )
    judged_by = open_judge(workspace, text, score)
    return judged_by or PeopleJudge(workspace, (sides[0].ref.digest, sides[1].ref.digest), min_judged)


def _asked(
    workspace: Workspace,
    sides: tuple[_Side, _Side],
    prompts: Sequence[Prompt] | None,
    cut: Snapshot | Suite | None,
    n: int,
    seed: int,
    sampling: Sampling,
) -> _Asked:
    """n prompts of those given, each text once; drawn by hash, so that a file in order of topic gives all its topics."""
    from rlhf import policy

    snapshot, n_held_out = None, 0
    if prompts is None:
        prompts, snapshot = _held_out(workspace, sides) if cut is None else _test_side(workspace, cut)
        n_held_out = len(prompts)
        for side in sides:
            prompts = policy.fitting(workspace, side.ref.text, prompts, sampling.max_new_tokens)
    n_unfit = max(0, n_held_out - len(prompts))
    once = {prompt.digest: prompt for prompt in reversed(prompts)}
    if not once:
        raise BadInput("there are no prompts to write replies to", fix="give a file with --prompts FILE")
    drawn = set(sorted(once, key=lambda digest: unit_interval(seed, digest))[:n])
    used = tuple(p for d, p in reversed(once.items()) if d in drawn)
    return _Asked(used, len(prompts) + n_unfit, len(prompts) - len(once), n_unfit, snapshot)


def _named(
    workspace: Workspace, sides: tuple[_Side, _Side], snapshot: str | None, ref: str | None
) -> Snapshot | Suite | None:
    """What the prompts are of, where it is named; a suite that is held out must be unseen by both sides."""
    if ref is None:
        return None if snapshot is None else open_snapshot(workspace, snapshot)
    suite = open_suite(workspace, ref)
    if suite.entry.held_out:
        for side in sides:
            if side.lineage is not None:
                require_unseen(workspace, side.ref.text, side.lineage, suite.ref, list(suite.groups()))
    return suite


def _test_side(workspace: Workspace, cut: Snapshot | Suite) -> tuple[Sequence[Prompt], tuple[str, str]]:
    from rlhf import policy

    if isinstance(cut, Suite):
        if not (rows := cut.prompts()):
            raise BadInput(f"suite {cut.ref} has no prompt that a reply can follow", fix="name another suite")
        return [policy.Prompt(row.pair.id, row.pair.prompt) for row in rows], (f"suite:{cut.ref}", cut.digest)
    if not (prompts := policy.prompts_of(workspace, cut.ref, "test")):
        raise BadInput(f"the test side of {cut.ref} is empty", fix="name another snapshot")
    return prompts, (cut.ref, cut.digest)


def _held_out(workspace: Workspace, sides: tuple[_Side, _Side]) -> tuple[Sequence[Prompt], tuple[str, str]]:
    """The test side of the nearest snapshot behind either, a's first."""
    from rlhf import policy

    seen = []
    for side in sides:
        for origin in side.lineage.snapshots if side.lineage else ():
            if origin.names:
                seen.append(origin.names[-1])
                if prompts := policy.prompts_of(workspace, f"sha256:{origin.digest}", "test"):
                    return prompts, (origin.names[-1], origin.digest)
    names = " and ".join(side.ref.text for side in sides)
    why = f"the test side of {', '.join(dict.fromkeys(seen))} is empty" if seen else "no snapshot is behind them here"
    raise BadInput(f"no prompts to compare {names} on: {why}", fix="give a file with --prompts FILE")


def _content(
    workspace: Workspace,
    sides: tuple[_Side, _Side],
    judged_by: Judge,
    judged: Judged,
    asked: _Asked,
    pairs: Sequence[ReplyPair],
    sampling: Sampling,
    seed: int,
) -> dict[str, Any]:
    """What report.json holds."""
    a, b = (side.ref.text for side in sides)
    both = win_rates.figures(pairs, judged.verdicts, seed=seed)
    both = with_strata(workspace, asked.snapshot, pairs, judged.verdicts, both, seed=seed)
    groups = {pair.group for pair in pairs}
    on = side_in_words(asked.snapshot[0]) if asked.snapshot else "given prompts"
    judge = {
        "kind": judged_by.kind,
        "name": judged_by.name,
        "digest": judged.digest,
        "flatters": [s.ref.text for s in sides if judged.digest in {r.digest for r in s.rewards}],
        **judged.facts,
    }
    content: dict[str, Any] = {
        "kind": "comparison",
        "schema_version": SCHEMA_VERSION,
        "title": f"{a} against {b} on {on}, judged by {judged_by.name}",
        "between": [a, b],
        "versions": {
            side.ref.text: {**_identity(workspace, side, groups), "figures": figures}
            for side, figures in zip(sides, both, strict=True)
        },
        "differences": [{"a": a, "b": b, **win_rates.difference(pairs, seed=seed)}],
        "judge": judge,
        "prompts": asked.as_json(),
        "sampling": asdict(sampling),
        "same_base": sides[0].ref.base_digest == sides[1].ref.base_digest,
        "simulated": any(_is_simulated(workspace, side, judged_by) for side in sides),
        "seed": seed,
        "method": win_rates.METHOD,
        "pairs": [_row(pair, verdict) for pair, verdict in zip(pairs, judged.verdicts, strict=True)],
    }
    content["digest"] = _content_digest(content)
    return content


def _identity(workspace: Workspace, side: _Side, groups: set[str]) -> dict[str, Any]:
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


def _learnt_from_a_file(workspace: Workspace, side: _Side) -> bool:
    """Whether the policy, or one that it went on from, was trained on prompts that stand in no snapshot."""
    from rlhf import registry

    line = [] if side.lineage is None else [side.lineage.version, *(r.version for r in side.lineage.ancestors)]
    manifests = [registry.show(workspace, ref).manifest for ref in line if ref.role == "policy"]
    return any("source" in m["settings"] and m["snapshot_digest"] is None for m in manifests)


def _is_simulated(workspace: Workspace, side: _Side, judged_by: Judge) -> bool:
    """A policy, a reward behind it or the judging reward learnt from a program's judgements."""
    from rlhf import registry

    rewards = [reward.digest for reward in side.rewards]
    if judged_by.kind == "reward":
        rewards.append(registry.resolve(workspace, judged_by.name).digest)
    manifests = [registry.show(workspace, f"sha256:{digest}").manifest for digest in rewards]
    return (side.lineage is not None and side.lineage.simulated) or any(m["simulated"] for m in manifests)


def _row(pair: ReplyPair, verdict: Any) -> dict[str, Any]:
    """One pair without a word of it."""
    won = {1.0: "a", 0.0: "b", 0.5: "coin" if verdict.coin else "tie"}
    return {
        "prompt": pair.prompt.digest,
        "pair": pair.pair.id,
        "group": pair.group,
        "verdict": None if verdict.win is None else won[verdict.win],
        "difference": None if verdict.difference is None else round(verdict.difference, 6) + 0.0,
        **({} if verdict.p_a is None else {"p_a": round(verdict.p_a, 6)}),
        "tokens": [pair.a.n_tokens, pair.b.n_tokens],
        "characters": [len(pair.a.text), len(pair.b.text)],
    }


def _content_digest(content: dict[str, Any]) -> str:
    """Over versions, judge and prompts by digest, sampling, seed, figures and verdicts; no names, which are a
    workspace's own."""
    return digest_of(
        {
            "kind": content["kind"],
            "versions": [
                {"digest": v["digest"], "figures": v["figures"], "seen_openings": v["seen_openings"]}
                for v in content["versions"].values()
            ],
            "differences": [{k: v for k, v in d.items() if k not in ("a", "b")} for d in content["differences"]],
            "judge": [content["judge"]["kind"], content["judge"]["digest"]],
            "prompts": content["prompts"]["digest"],
            "sampling": content["sampling"],
            "seed": content["seed"],
            "pairs": content["pairs"],
            "method": content["method"],
            "schema_version": content["schema_version"],
        }
    )
