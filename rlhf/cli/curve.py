"""`rlhf policy curve`: does what is wanted follow the reward that was optimised, over checkpoints, versions or best-of-n?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhf.cli.boundary import Run
from rlhf.cli.compare import (
    OfSnapshot,
    OfSuite,
    OutFolder,
    PromptsFile,
    Seed,
    Tokens,
    TopP,
    sampling_of,
)
from rlhf.cli.counting import counting

if TYPE_CHECKING:
    from rlhf.evaluation import Report


def curve(
    run: Run,
    what: Annotated[
        list[str],
        typer.Argument(help="A policy's run; or versions in order, the last optimised most.", metavar="RUN|VERSION…"),
    ],
    judge: Annotated[
        str,
        typer.Option(help="Who says what is true: another reward version, a rule, or people.", metavar="V|RULE|people"),
    ],
    proxy: Annotated[
        str | None, typer.Option(help="The optimised reward; else the one behind the last version.", metavar="V")
    ] = None,
    best_of: Annotated[
        int | None, typer.Option(help="Of one version: the best of 1, 2, 4, … N replies a prompt.", min=2, max=256)
    ] = None,
    prompts: PromptsFile = None,
    snapshot: OfSnapshot = None,
    suite: OfSuite = None,
    max_new_tokens: Tokens = 128,
    temperature: Annotated[float, typer.Option(help="Of sampling; KL is exact at 1.", min=0.0)] = 1.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    n: Annotated[int, typer.Option("--n", help="Prompts at most; of more, so many are drawn.", min=1)] = 100,
    out: OutFolder = None,
) -> None:
    """Proxy and truth as win rates over where it began, against KL: where the truth falls while the proxy rises, it is told.

    A run's curve is made of the replies that its watch kept: nothing is generated. With --judge people the answer says that it
    waits, and the same command again reads the verdicts.
    """
    workspace = run.workspace()
    from rlhf import evaluation, policy
    from rlhf.store import runs

    given = None if prompts is None else policy.read_prompts(prompts)
    common: dict[str, Any] = {"out": out, "seed": seed}
    try:
        if len(what) == 1 and not _is_version(what[0]):
            _refuse_of_run({"proxy": proxy, "snapshot": snapshot, "suite": suite, "best-of": best_of})
            report = evaluation.over_run(workspace, runs.show(workspace, what[0]), judge, prompts=given, **common)
        else:
            common |= {
                "proxy": proxy,
                "where": evaluation.Where(given, snapshot, suite, n),
                "sampling": sampling_of(max_new_tokens, temperature, top_p, seed),
                "on_progress": counting("wrote", "replies"),
            }
            if best_of is None:
                report = evaluation.over_versions(workspace, what, judge, **common)
            else:
                report = evaluation.best_of(workspace, _only(what), judge, n_best=best_of, **common)
    except evaluation.Waiting as waiting:
        run.result({"state": "waiting", "points": [], "report": None, **waiting.progress()}, waiting.why)
        return
    run.result(_answer(report), f"{summary(report.content)}\n\nreport {report.digest[:12]}: {report.path}")


def summary(content: Mapping[str, Any]) -> str:
    """A curve as a table, a line a point."""
    from rlhf.evaluation import curve_page, judge_agreement
    from rlhf.evaluation.wording import number, value_of

    lines = ["SIMULATED labelers: these figures say nothing about human preferences."] if content["simulated"] else []
    lines.append(curve_page.verdict(content))
    lines += [said for who in (content["judge"], content["proxy"]) if (said := judge_agreement.in_words(who))]
    lines.append(f"{'':<24}{'KL':>8}{'proxy wins, %':>26}{'true wins, %':>26}")
    for point in content["points"]:
        wins = "".join(f"{value_of(point[key], '%'):>26}" for key in ("proxy", "truth"))
        lines.append(f"{point['name']:<24}{number(point['kl']['value'], '2'):>8}{wins}")
    return "\n".join(lines)


def _answer(report: Report) -> dict[str, Any]:
    content = report.content
    return {
        "state": "done",
        **{what: content[what] for what in ("of", "points", "fall", "proxy", "judge", "prompts", "simulated")},
        "versions": dict(report.figures),
        "report": str(report.path),
        "report_digest": report.digest,
        "json": str(report.json_path),
    }


def _is_version(word: str) -> bool:
    return "@" in word or word.startswith(("base:", "sha256:"))


def _refuse_of_run(given: Mapping[str, Any]) -> None:
    from rlhf.errors import BadUsage

    if said := [f"--{name}" for name, value in given.items() if value is not None]:
        raise BadUsage(
            f"{' and '.join(said)} say nothing of a run: its watch's prompts and its own rewards are what it has",
            fix="leave them out, or name versions (name@7) instead of the run",
        )


def _only(what: list[str]) -> str:
    from rlhf.errors import BadUsage

    if len(what) != 1:
        raise BadUsage(f"--best-of is of one version; {len(what)} are named", fix="name one")
    return what[0]
