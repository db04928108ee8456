"""`rlhf compare A B`: two policies by the replies that they write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhf.cli.boundary import Run, verb
from rlhf.cli.counting import counting

if TYPE_CHECKING:
    from rlhf.evaluation import Report, Stopping, Waiting
    from rlhf.policy import Sampling

_ROWS = (
    ("win rate", "win_rate", "%"),
    ("  at equal length", "length_controlled_win_rate", "%"),
    ("tokens a reply", "mean_tokens", "1"),
    ("cut off", "cut_off", "%"),
    ("repetition", "repetition", "%"),
    ("refusals", "refusal", "%"),
    ("distinct words", "distinct_1", "3"),
    ("distinct bigrams", "distinct_2", "3"),
    ("distinct trigrams", "distinct_3", "3"),
    ("KL, nats a reply", "kl", "2"),
    ("log-likelihood a token", "log_likelihood_base", "3"),
    ("mean score", "mean_score", "2"),
)
_WIDTH = 30

PromptsFile = Annotated[
    Path | None,
    typer.Option(help="JSONL of prompts; else the test side of the snapshot behind their rewards.", metavar="FILE"),
]
OfSnapshot = Annotated[str | None, typer.Option(help="On this snapshot's test side: NAME or NAME@2.", metavar="S")]
OfSuite = Annotated[str | None, typer.Option(help="On this suite's prompts: NAME or NAME@2.", metavar="NAME")]
JudgedBy = Annotated[
    str | None,
    typer.Option(
        help="A reward version, a rule's name (such as demo), or people; else the reward behind A or B.",
        metavar="V|RULE|people",
    ),
]
Tokens = Annotated[int, typer.Option(help="Tokens that a reply may have.", min=1)]
Temperature = Annotated[float, typer.Option(help="Of sampling; 0 = the likeliest token always.", min=0.0)]
TopP = Annotated[float, typer.Option(help="Share of the probability that is sampled from.")]
Seed = Annotated[int, typer.Option(help="Of sampling, of the drawn prompts and of the resampling.")]
OutFolder = Annotated[
    Path | None, typer.Option(help="Copy report.json and report.html into this folder too.", metavar="DIR")
]


def _sequential(words: str) -> Any:
    return typer.Option(help=f"With --until-decided: {words[0].lower()}{words[1:]}")


def register(app: typer.Typer) -> None:
    """Add the top-level `compare`."""
    verb(app, "compare")(compare)


def compare(
    run: Run,
    a: Annotated[str, typer.Argument(help="A policy: name@7, name@alias, sha256:… or base:NAME.", metavar="A")],
    b: Annotated[str, typer.Argument(help="The other policy, or base:NAME.", metavar="B")],
    prompts: PromptsFile = None,
    snapshot: OfSnapshot = None,
    suite: OfSuite = None,
    judge: JudgedBy = None,
    max_new_tokens: Tokens = 128,
    temperature: Temperature = 0.7,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    n: Annotated[int, typer.Option("--n", help="Prompts at most; of more, so many are drawn.", min=1)] = 200,
    min_judged: Annotated[
        int | None,
        typer.Option(help="With --judge people: go on once so many pairs are judged; else all.", metavar="N"),
    ] = None,
    until_decided: Annotated[
        bool, typer.Option("--until-decided", help="Batch by batch; stop once the interval leaves the margin out.")
    ] = False,
    margin: Annotated[float | None, _sequential("Of the win rate around a half; 0.")] = None,
    alpha: Annotated[float | None, _sequential("Chance of a wrong decision, over all looks; 0.05.")] = None,
    effect: Annotated[float | None, _sequential("Over a half, that the sample size is told for; 0.1.")] = None,
    batch: Annotated[int | None, _sequential("Opening turns before each look; 20.")] = None,
    out: OutFolder = None,
) -> None:
    """Compare two policies by their replies to the same prompts and publish a report.

    With --judge people the pairs go into the labeling queue, blind, and the answer says that it waits (exit 0: nothing has
    failed); the same command again reads the verdicts. With --until-decided they go there batch by batch, until it is decided.
    """
    workspace = run.workspace()
    from rlhf import evaluation, policy

    stopping = _stopping(until_decided, {"margin": margin, "alpha": alpha, "effect": effect, "batch": batch})
    if stopping is not None:
        run.say(f"planned: {evaluation.sequential_words.planned(stopping.as_json())}")
    try:
        report = evaluation.compare(
            workspace,
            a,
            b,
            prompts=None if prompts is None else policy.read_prompts(prompts),
            snapshot=snapshot,
            suite=suite,
            judge=judge,
            sampling=sampling_of(max_new_tokens, temperature, top_p, seed),
            n=n,
            min_judged=min_judged,
            stopping=stopping,
            out=out,
            seed=seed,
            on_progress=counting("wrote", "replies"),
        )
    except evaluation.Waiting as waiting:
        run.result({"state": "waiting", "versions": {}, "report": None, **waiting.progress()}, _waiting(waiting))
        return
    run.result(_answer(report), f"{summary(report.content)}\n\nreport {report.digest[:12]}: {report.path}")


def sampling_of(max_new_tokens: int, temperature: float, top_p: float, seed: int) -> Sampling:
    """Raises BadUsage for a share that nothing can be sampled from."""
    from rlhf import policy
    from rlhf.errors import BadUsage

    if not 0 < top_p <= 1:
        raise BadUsage(f"--top-p is {top_p:g}; wanted above 0 and up to 1", fix="leave it out for 1")
    return policy.Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)


def _stopping(is_asked: bool, given: Mapping[str, Any]) -> Stopping | None:
    from rlhf.errors import BadUsage
    from rlhf.evaluation import Stopping

    said = {name: value for name, value in given.items() if value is not None}
    if said and not is_asked:
        names = " and ".join(f"--{name}" for name in said)
        raise BadUsage(f"{names} without --until-decided says nothing", fix="add --until-decided, or leave it out")
    return Stopping(**said) if is_asked else None


def _waiting(waiting: Waiting) -> str:
    so_far = waiting.so_far
    if so_far is None or not so_far["looks"]:
        return waiting.why
    last = so_far["looks"][-1]
    known = f"{last['win_rate']:.1%} won, always-valid interval {last['low']:.1%} to {last['high']:.1%}"
    return f"not decided after {last['n_units']} opening turns ({known}); {waiting.why}"


def _answer(report: Report) -> dict[str, Any]:
    content = report.content
    return {
        "state": "done",
        "versions": dict(report.figures),
        **{what: content[what] for what in ("between", "differences", "judge", "prompts", "simulated")},
        **({"sequential": content["sequential"]} if "sequential" in content else {}),
        "report": str(report.path),
        "report_digest": report.digest,
        "json": str(report.json_path),
    }


def summary(content: Mapping[str, Any]) -> str:
    """A comparison's figures as a table, both sides beside each other."""
    from rlhf.evaluation import judge_agreement, sequential_words

    names = content["between"]
    of = [content["versions"][name]["figures"] for name in names]
    f, judge, asked = of[0], content["judge"], content["prompts"]
    lines = ["SIMULATED labelers: these figures say nothing about human preferences."] if content["simulated"] else []
    of_all = f" of {asked['n_given']}" if asked["n_given"] > asked["n"] else ""
    told = f" ({f['n_judged']} pairs judged)" if f.get("n_judged", asked["n"]) < asked["n"] else ""
    by = "people" if judge["kind"] == "people" else f"{judge['kind']} {judge['name']}"
    lines.append(f"{asked['n']}{of_all} prompts, judged by {by}{told}")
    if "sequential" in content:
        lines.append(sequential_words.verdict(content, by))
    lines += [said] if (said := judge_agreement.in_words(judge)) else []
    lines.append(f"{'':<24}{names[0]:>{_WIDTH}}{names[1]:>{_WIDTH}}")
    for label, key, form in _ROWS:
        if key in f:
            lines.append(f"{label:<24}" + "".join(f"{_estimate(figures, key, form):>{_WIDTH}}" for figures in of))
    aside = [
        f"{f[key]} {what}"
        for key, what in (
            ("n_ties", "ties"),
            ("n_coins", "not to be judged, each counted as a coin"),
            ("n_not_judged", "not judged yet, left out"),
        )
        if f[key]
    ]
    lines += ["; ".join(aside)] if aside else []
    if f["length_controlled_why"]:
        lines.append(f"no win rate at equal length: {f['length_controlled_why']}")
    if judge["flatters"]:
        lines.append(
            f"caution: {' and '.join(judge['flatters'])} trained on {judge['name']}: a policy judged by the reward that "
            "it was trained on is flattered"
        )
    if not content["same_base"]:
        lines.append("different bases: tokens, KL and log-likelihood are each side's own, against its own base")
    return "\n".join(lines)


def _estimate(figures: Mapping[str, Any], key: str, form: str) -> str:
    value, low, high = (figures[k] for k in (key, f"{key}_low", f"{key}_high"))
    if value is None:
        return "–"
    scale, digits, unit = (100, 1, " %") if form == "%" else (1, int(form), "")
    told = f"{value * scale:.{digits}f}{unit}"
    return told if low is None else f"{told} ({low * scale:.{digits}f} to {high * scale:.{digits}f})"
