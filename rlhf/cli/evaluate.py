"""`rlhf evaluate VERSION ... --snapshot S` (or `--suite NAME`) and `rlhf report list|show|diff`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rlhf.cli.boundary import Run, verb
from rlhf.cli.counting import counting

report_app = typer.Typer(help="Evaluation reports: list, show, diff.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the top-level `evaluate` and the `report` commands."""
    verb(app, "evaluate")(evaluate)
    app.add_typer(report_app, name="report")


def evaluate(
    run: Run,
    versions: Annotated[
        list[str], typer.Argument(help="Reward versions: name@7, name@alias or sha256:…", metavar="VERSION…")
    ],
    snapshot: Annotated[
        str | None, typer.Option(help="Snapshot: name (its latest cut) or name@2.", metavar="S")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="A suite instead of a snapshot: NAME or NAME@2.", metavar="NAME")
    ] = None,
    split: Annotated[str, typer.Option(help="Of the snapshot: test (held out) or train.")] = "test",
    precision: Annotated[
        str, typer.Option(help="Confidences at which precision and coverage are given.", metavar="P,P")
    ] = "0.8,0.9",
    stability: Annotated[
        int,
        typer.Option(help="Pairs that are scored again under small changes of the chat; 0 = none.", min=0, metavar="N"),
    ] = 100,
    dtype: Annotated[
        str, typer.Option(help="The base's type: float32, or bfloat16, which is faster where the processor has it.")
    ] = "float32",
    out: Annotated[
        Path | None, typer.Option(help="Copy report.json and report.html into this folder too.", metavar="DIR")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the resampling and of the drawn orientation.")] = 0,
) -> None:
    """Measure reward versions on the held-out pairs of a snapshot or a suite and publish a report.

    Scores are kept as they are computed: after an interrupt the same command goes on with the rest.
    """
    from rlhf.evaluation import evaluate as measure

    report = measure(
        run.workspace(),
        versions,
        snapshot,
        suite=suite,
        split=split,
        precision=_confidences(precision),
        n_stability=stability,
        dtype=dtype,
        out=out,
        seed=seed,
        on_progress=counting("scored", "pairs"),
    )
    run.result(
        {
            "versions": dict(report.figures),
            "differences": report.content["differences"],
            "simulated": report.content["simulated"],
            "report": str(report.path),
            "report_digest": report.digest,
            "json": str(report.json_path),
        },
        f"{_summary(report.content)}\n\nreport {report.digest[:12]}: {report.path}",
    )


def _confidences(text: str) -> list[float]:
    from rlhf.errors import BadUsage

    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise BadUsage(f"--precision is '{text}'; wanted numbers", fix="for instance --precision 0.8,0.9") from None


@verb(report_app, "list")
def list_(run: Run) -> None:
    """Every report, the newest first."""
    from rlhf.evaluation import list_reports

    rows = list_reports(run.workspace())
    lines = [f"{row.digest[:12]}  {row.created_at[:16].replace('T', ' ')}  {row.actor}  {row.title}" for row in rows]
    run.result(
        {"reports": [row.as_json() for row in rows]}, "\n".join(lines) or "no reports: make one with rlhf evaluate"
    )


@verb(report_app, "show")
def show(
    run: Run, report: Annotated[str, typer.Argument(help="Six or more hex digits of the report's digest.", metavar="R")]
) -> None:
    """One report: its figures and where its page lies."""
    from rlhf.evaluation import open_report

    found = open_report(run.workspace(), report)
    run.result(
        {**found.content, "report": str(found.path), "report_digest": found.digest, "json": str(found.json_path)},
        f"{found.title}\n\n{_summary(found.content)}\n\nreport {found.digest}\n{found.path}",
    )


@verb(report_app, "diff")
def diff(
    run: Run,
    a: Annotated[str, typer.Argument(help="The report to start from.", metavar="A")],
    b: Annotated[str, typer.Argument(help="The report to compare with it.", metavar="B")],
) -> None:
    """Two reports side by side, figure by figure: values, intervals and n of both, and paired differences on the same pairs.

    It answers and exits 0 whatever it finds; reports of two kinds are refused (1).
    """
    from rlhf.cli.report_diff import lines
    from rlhf.evaluation import diff as compare

    found = compare(run.workspace(), a, b)
    run.result(found, "\n".join(lines(found)))


def _summary(content: Mapping[str, Any]) -> str:
    """A table of the figures that decide, with the number of pairs and the intervals."""
    if content["kind"] == "comparison":
        from rlhf.cli.compare import summary

        return summary(content)
    if content["kind"] == "curve":
        from rlhf.cli import curve

        return curve.summary(content)
    if content["kind"] == "decision":
        from rlhf.cli import loop

        return loop.summary(content)
    from rlhf.evaluation.judged_by import FILE, TEMPLATE, judged_by
    from rlhf.evaluation.wording import cautions

    lines = ["SIMULATED labelers: these figures say nothing about human preferences."] if content["simulated"] else []
    if any(kind in (FILE, TEMPLATE) for kind in content["labelers"]):
        lines.append(f"Judged by: {judged_by(content['labelers'])}")
    lines += cautions(content)
    width = max(len(name) for name in content["versions"])
    lines.append(
        f"{'version':<{width}}  {'pairs':>6}  {'accuracy':>8}  {'95 % interval':>15}  {'log-loss':>8}  {'ECE':>6}  "
        f"{'length guess':>15}"
    )
    for name, version in content["versions"].items():
        f = version["figures"]
        low, high = f["accuracy_low"], f["accuracy_high"]
        interval = "none" if low is None else f"{low:.3f} to {high:.3f}"
        lines.append(
            f"{name:<{width}}  {f['n_decided']:>6}  {_short(f['accuracy']):>8}  {interval:>15}  "
            f"{_short(f['log_loss']):>8}  "
            f"{_short(f['ece']):>6}  {_length_guess(f):>15}"
        )
        aside = [
            f"{f[key]} {what}"
            for key, what in (
                ("n_ties", "ties left out of accuracy"),
                ("n_too_long", "too long, each counted as a coin"),
            )
            if f[key]
        ]
        lines += [f"{'':<{width}}  {said}" for said in ("; ".join(aside), *_more(f)) if said]
    for d in content["differences"]:
        m = d["accuracy"]
        interval = "no interval" if m["low"] is None else f"{m['low']:+.3f} to {m['high']:+.3f}"
        lines.append(f"{d['a']} − {d['b']}: accuracy {_short(m['value'], '+')} ({interval}, paired)")
    return "\n".join(lines)


def _more(f: Mapping[str, Any]) -> list[str]:
    """What else decides: the worst stratum, precision where it is sure, styles, and what small changes flip. Reports from before
    these were measured have none."""
    said = []
    if f.get("worst_stratum_name"):
        low, high = f["worst_stratum_low"], f["worst_stratum_high"]
        interval = "" if low is None else f" ({low:.3f} to {high:.3f})"
        said.append(f"worst stratum {f['worst_stratum_name']}: {_short(f['worst_stratum'])}{interval}")
    said += _gaps(f.get("fairness") or {})
    for at in f.get("precision") or ():
        if at["value"] is not None:
            said.append(
                f"sure by {at['confidence']:g}: {at['value']:.3f} right ({at['low']:.3f} to {at['high']:.3f}), "
                f"{at['n']} pairs, coverage {at['coverage']:.3f}"
            )
    if matrix := f.get("style_matrix"):
        said.append(", ".join(f"{level} {_short(matrix[level])}" for level in ("easy", "normal", "hard")))
    if found := f.get("stability"):
        said.append(f"small changes of the chat flip up to {_short(found['most_flipped'])} of {found['n']} preferences")
    return said


def _gaps(fairness: Mapping[str, Any]) -> list[str]:
    """The widest gap in accuracy between two groups, and in score between counterfactual rows."""
    said = []
    for name, what, unit in (("worst_gap", "accuracy", ""), ("reward_gap", "score", " nats")):
        if fairness.get(name) is not None:
            low, high = fairness[f"{name}_low"], fairness[f"{name}_high"]
            interval = f"{low:.3f} to {high:.3f}"
            said.append(f"widest gap in {what}, {fairness[f'{name}_of']}: {fairness[name]:.3f}{unit} ({interval})")
    return said


def _length_guess(f: Mapping[str, Any]) -> str:
    """What guessing by length alone reaches, and by which side; reports from before it was measured have the one."""
    if "length_guess" not in f:
        return f"{_short(f['longer_wins'])} (longer)"
    return f"{_short(f['length_guess'])} ({f['length_guess_side']})"


def _short(value: float | None, sign: str = "") -> str:
    if value is None:
        return "–"
    return f"{value:{sign}d}" if isinstance(value, int) else f"{value:{sign}.3f}"
