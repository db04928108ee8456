"""Two policies on the same prompts: the main road from two names to a published report of who writes better.

Both sides write one reply to each prompt, a judge says which is better, and the report holds the figures with their
intervals. Its JSON names pairs by digest and holds no text; its page shows the replies side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.errors import BadInput, BadUsage
from rlhf.evaluation import reports, win_rates
from rlhf.evaluation.asked_prompts import Asked, draw, open_cut
from rlhf.evaluation.comparison_page import render, side_in_words
from rlhf.evaluation.judge_agreement import agreement
from rlhf.evaluation.judges import PEOPLE, Judge, Score, open_judge
from rlhf.evaluation.learning import training_sections
from rlhf.evaluation.people_judge import PeopleJudge
from rlhf.evaluation.reply_pairs import Progress, ReplyPair, Write, written
from rlhf.evaluation.reports import Report
from rlhf.evaluation.sides import Side, identity, is_simulated, open_side
from rlhf.evaluation.until_decided import Decided, Stopping, until_decided, with_always_valid
from rlhf.evaluation.win_strata import with_strata
from rlhf.ids import digest_of
from rlhf.store import Workspace

if TYPE_CHECKING:
    from rlhf.policy import Prompt, Sampling

SCHEMA_VERSION = 1
N_PROMPTS, MAX_NEW_TOKENS, TEMPERATURE = 200, 128, 0.7


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
    stopping: Stopping | None = None,
    out: Path | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
    write: Write | None = None,
    score: Score | None = None,
) -> Report:
    """Let both write a reply to each of the same prompts, have them judged, and publish figures and page as a report.

    a, b: policy versions or `base:NAME`. prompts: None = those of `suite`, the test side of `snapshot`, or where both are None of
    the one behind a's or b's reward; of more than n, n are drawn by (seed, digest). judge: a reward version, the name of a rule,
    or `people`; None = the reward behind a or b. sampling: None = 128 tokens at temperature 0.7, with `seed`. min_judged: people's
    verdicts that are enough; None = all. stopping: go batch by batch and stop once it is decided (`until_decided.py`).
    on_progress(done, all): replies of both sides. write, score: other than `policy.replies` and `reward.score_items`.

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
    sides = (open_side(workspace, a), open_side(workspace, b))
    if sides[0].ref.digest == sides[1].ref.digest:
        raise BadInput(f"{a} and {b} are one version, {sides[0].ref.text}", fix="name two different versions")
    judged_by = _judge(workspace, sides, judge, min_judged, score, stopping is not None)
    sampling = sampling or policy.Sampling(max_new_tokens=MAX_NEW_TOKENS, temperature=TEMPERATURE, seed=seed)
    cut = open_cut(workspace, sides, snapshot, suite)
    asked = draw(workspace, sides, prompts, cut, n, seed, sampling)
    n_all, n_done = 2 * len(asked.prompts), 0

    def write_both(some: Sequence[Prompt]) -> list[ReplyPair]:
        nonlocal n_done
        before = n_done
        n_done += 2 * len(some)
        tell = None if on_progress is None else lambda done, _: on_progress(before + done, n_all)
        return written(workspace, [s.ref for s in sides], some, sampling, write or policy.replies, tell)

    if stopping is None:
        pairs = write_both(asked.prompts)
        done = Decided(pairs, judged_by.judge(pairs), {})
    else:
        done = until_decided(asked.prompts, stopping, judged_by, write_both, seed=seed)
        asked = replace(asked, prompts=tuple(pair.prompt for pair in done.pairs))
    content = _content(workspace, sides, judged_by, done, asked, sampling, seed)
    training = training_sections(workspace, content["versions"])
    report = reports.publish(workspace, content, render(content, done.pairs, done.judged.verdicts, training))
    if out is not None:
        reports.copy(report, out)
    return report


def _judge(
    workspace: Workspace,
    sides: tuple[Side, Side],
    text: str | None,
    min_judged: int | None,
    score: Score | None,
    is_stopping: bool,
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
    if min_judged is not None and is_stopping:
        raise BadUsage(
            "--until-decided waits for the whole of each batch, so --min-judged has no place in it", fix="leave it out"
        )
    judged_by = open_judge(workspace, text, score)
    return judged_by or PeopleJudge(workspace, (sides[0].ref.digest, sides[1].ref.digest), min_judged)


def _content(
    workspace: Workspace,
    sides: tuple[Side, Side],
    judged_by: Judge,
    done: Decided,
    asked: Asked,
    sampling: Sampling,
    seed: int,
) -> dict[str, Any]:
    """What report.json holds."""
    a, b = (side.ref.text for side in sides)
    pairs, judged = done.pairs, done.judged
    both = win_rates.figures(pairs, judged.verdicts, seed=seed)
    if done.facts:
        both = with_always_valid(both[0], done.facts, turned=False), with_always_valid(both[1], done.facts, turned=True)
    else:
        both = with_strata(workspace, asked.snapshot, pairs, judged.verdicts, both, seed=seed)
    groups = {pair.group for pair in pairs}
    on = side_in_words(asked.snapshot[0]) if asked.snapshot else "given prompts"
    judge = {
        "kind": judged_by.kind,
        "name": judged_by.name,
        "digest": judged.digest,
        "flatters": [s.ref.text for s in sides if judged.digest in {r.digest for r in s.rewards}],
        "agreement": agreement(workspace, judged_by, seed=seed),
        **judged.facts,
    }
    content: dict[str, Any] = {
        "kind": "comparison",
        "schema_version": SCHEMA_VERSION,
        "title": f"{a} against {b} on {on}, judged by {judged_by.name}",
        "between": [a, b],
        "versions": {
            side.ref.text: {**identity(workspace, side, groups), "figures": figures}
            for side, figures in zip(sides, both, strict=True)
        },
        "differences": [{"a": a, "b": b, **win_rates.difference(pairs, seed=seed)}],
        "judge": judge,
        "prompts": asked.as_json(),
        "sampling": asdict(sampling),
        "same_base": sides[0].ref.base_digest == sides[1].ref.base_digest,
        "simulated": any(is_simulated(workspace, side, judged_by) for side in sides),
        "seed": seed,
        "method": win_rates.METHOD,
        **({"sequential": done.facts} if done.facts else {}),
        "pairs": [_row(pair, verdict) for pair, verdict in zip(pairs, judged.verdicts, strict=True)],
    }
    content["digest"] = _content_digest(content)
    return content


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
            "judge": [content["judge"][what] for what in ("kind", "digest", "agreement")],
            "prompts": content["prompts"]["digest"],
            "sampling": content["sampling"],
            "seed": content["seed"],
            "pairs": content["pairs"],
            "method": content["method"],
            "schema_version": content["schema_version"],
            **({"sequential": content["sequential"]} if "sequential" in content else {}),
        }
    )
