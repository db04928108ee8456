"""`rlhf compare A B`: two policies by the replies that they write."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rlhf.cli.boundary import Run, verb

_ROWS = (
    ("win rate", "win_rate", "%"),
    ("  at equal length", "length_controlled_win_rate", "%"),
    ("tokens a reply", "mean_tokens", "1"),
    ("cut off", "cut_off", "%"),
    ("repetition", "repetition", "%"),
    ("distinct bigrams", "distinct_2", "3"),
    ("KL, nats a reply", "kl", "2"),
    ("log-likelihood a token", "log_likelihood_base", "3"),
    ("mean score", "mean_score", "2"),
)
_WIDTH = 30


def register(app: typer.Typer) -> None:
    """Add the top-level `compare`."""
    verb(app, "compare")(compare)


def compare(
    run: Run,
    a: Annotated[str, typer.Argument(help="A policy: name@7, name@alias, sha256:… or base:NAME.", metavar="A")],
    b: Annotated[str, typer.Argument(help="The other policy, or base:NAME.", metavar="B")],
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="JSONL of prompts; else the test side of the snapshot behind A's or B's reward.", metavar="FILE"
        ),
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option(help="Compare on this snapshot's test side: NAME or NAME@2.", metavar="S")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="Compare on this suite's prompts: NAME or NAME@2.", metavar="NAME")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="A reward version, a rule's name (such as demo), or people; else the reward behind A or B.",
            metavar="V|RULE|people",
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens that a reply may have.", min=1)] = 128,
    temperature: Annotated[float, typer.Option(help="Of sampling; 0 = the likeliest token always.", min=0.0)] = 0.7,
    top_p: Annotated[float, typer.Option(help="Share of the probability that is sampled from.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of sampling, of the drawn prompts and of the resampling.")] = 0,
    n: Annotated[int, typer.Option("--n", help="Prompts at most; of more, so many are drawn.", min=1)] = 200,
    min_judged: Annotated[
        int | None,
        typer.Option(help="With --judge people: go on once so many pairs are judged; else all.", metavar="N"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Copy report.json and report.html into this folder too.", metavar="DIR")
    ] = None,
) -> None:
    """Compare two policies by their replies to the same prompts and publish a report.

    With --judge people the pairs go into the labeling queue, blind, and the answer says that it waits (exit 0: nothing has
    failed); the same command again reads the verdicts.
    """
    workspace = run.workspace()
    from rlhf import evaluation, policy
    from rlhf.errors import BadUsage

    if not 0 < top_p <= 1:
        raise BadUsage(f"--top-p is {top_p:g}; wanted above 0 and up to 1", fix="leave it out for 1")
    try:
        report = evaluation.compare(
            workspace,
            a,
            b,
            prompts=None if prompts is None else policy.read_prompts(prompts),
            snapshot=snapshot,
            suite=suite,
            judge=judge,
            sampling=policy.Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed),
            n=n,
            min_judged=min_judged,
            out=out,
            seed=seed,
            on_progress=_progress(),
        )
    except evaluation.Waiting as waiting:
        run.result({"state": "waiting", "versions": {}, "report": None, **waiting.progress()}, waiting.why)
        return
    content = report.content
    run.result(
        {
            "state": "done",
            "versions": dict(report.figures),
            "between": content["between"],
            "differences": content["differences"],
            "judge": content["judge"],
            "prompts": content["prompts"],
            "simulated": content["simulated"],
            "report": str(report.path),
            "report_digest": report.digest,
            "json": str(report.json_path),
        },
        f"{summary(content)}\n\nreport {report.digest[:12]}: {report.path}",
    )


def summary(content: Mapping[str, Any]) -> str:
    """A comparison's figures as a table, both sides beside each other."""
    names = content["between"]
    of = [content["versions"][name]["figures"] for name in names]
    f, judge, asked = of[0], content["judge"], content["prompts"]
    lines = ["SIMULATED labelers: these figures say nothing about human preferences."] if content["simulated"] else []
    of_all = f" of {asked['n_given']}" if asked["n_given"] > asked["n"] else ""
    told = f" ({f['n_judged']} pairs judged)" if f.get("n_judged", asked["n"]) < asked["n"] else ""
    by = "people" if judge["kind"] == "people" else f"{judge['kind']} {judge['name']}"
    lines.append(f"{asked['n']}{of_all} prompts, judged by {by}{told}")
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


def _progress() -> Callable[[int, int], None]:
    """Counts on standard error: rewritten in place on a terminal, else a line every tenth."""
    last = -1

    def show_progress(done: int, total: int) -> None:
        nonlocal last
        tenth = done * 10 // total if total else 10
        if sys.stderr.isatty():
            print(f"\rwrote {done}/{total} replies", end="\n" if done >= total else "", file=sys.stderr, flush=True)
        elif tenth != last:
            print(f"wrote {done}/{total} replies", file=sys.stderr, flush=True)
        last = tenth

    return show_progress
