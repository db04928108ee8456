"""`rlhf gate`: what must be shown before an alias moves, and whether a version shows it. Gates are set with `rlhf alias gate`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhf.cli.boundary import Run, verb

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from rlhf.registry import Gate, GateRules, Trial, Verdict
    from rlhf.store import Workspace

app = typer.Typer(help="Gates: check, list, classes; set with: rlhf alias gate.", no_args_is_help=True)


@verb(app, "check")
def check(
    run: Run,
    alias: Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="For instance hh@champion.")],
    version: Annotated[str, typer.Argument(metavar="VERSION", help="name@7, name@alias, or sha256:…")],
    report: Annotated[
        str | None,
        typer.Option("--report", metavar="R", help="Read this report, not the newest that fits, which a move reads."),
    ] = None,
) -> None:
    """Would the alias move to this version? Every rule with its figure, n, interval and method; nothing moves (exit 1: not met)."""
    tell_verdict(run, alias, version, verdict_on(run.workspace(), alias, version, report))


@verb(app, "list")
def list_(run: Run) -> None:
    """Every alias that moves through a gate, with the gate's class."""
    from rlhf.registry import gates

    found = gates.list_gates(run.workspace())
    run.result(
        {"gates": [gate.as_json() for gate in found]},
        "\n".join(f"{g.alias:<30} {g.rules.risk_class or '-':<12} {g.at[:19]}  {g.who}: {g.why}" for g in found)
        or "no alias has a gate",
    )


@verb(app, "classes")
def classes(run: Run, file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML with `classes:`.")]) -> None:
    """The risk classes of a file, each with what it extends in it."""
    from rlhf.registry import read_classes

    found = read_classes(file)
    lines = [line for name, rules in found.items() for line in (name, *_in_words(rules))]
    run.result({"classes": {name: rules.model_dump(mode="json") for name, rules in found.items()}}, "\n".join(lines))


def trials(connection: Connection, alias: str, digest: str) -> Trial | None:
    """How a canary went; serving is loaded where a gate asks, and not before."""
    from rlhf.serving import trial_of

    return trial_of(connection, alias, digest)


def verdict_on(workspace: Workspace, alias: str, version: str, report: str | None = None) -> Verdict:
    """Raises NotFound where the alias has no gate: it may be misspelled, and a check of nothing would pass."""
    from rlhf.registry import gates

    gates.require_gate(workspace, alias)
    return gates.check(workspace, alias, version, trials=trials, report=report)


def warn_if_nameless(run: Run, workspace: Workspace, alias: str) -> None:
    """A gate may be there before the first version; one on a misspelled name would guard nothing."""
    from rlhf import registry

    name = alias.partition("@")[0]
    if all(row.ref.name != name for row in registry.list_versions(workspace)):
        run.say(f"remark: there is no version of {name} yet")


def warn_if_unknown(run: Run, workspace: Workspace, rules: GateRules) -> None:
    """A figure that no report has yet keeps the alias where it is: it may be still to come, or spelled wrong."""
    from rlhf.registry import gates

    if unknown := [figure for figure in gates.unknown_figures(workspace, rules) if "." in figure]:
        run.say(f"remark: no {rules.report} report has {', '.join(unknown)} yet, and nothing passes without")


def warn_if_absent(run: Run, workspace: Workspace, rules: GateRules) -> None:
    """A data set may be still to come as well, or be spelled wrong."""
    from rlhf.snapshots import list_snapshots
    from rlhf.suites import list_suites

    known = [f"suite:{one.ref}" for one in list_suites(workspace)] + [one.ref for one in list_snapshots(workspace)]
    if rules.snapshot is not None and rules.snapshot not in known:
        near = difflib.get_close_matches(rules.snapshot, known, n=1)
        run.say(
            f"remark: there is no data set {rules.snapshot} yet{f' (nearest: {near[0]})' if near else ''}, and nothing passes "
            "without a report on it"
        )


def tell_gate(run: Run, alias: str, gate: Gate | None) -> None:
    if gate is None:
        run.result({"alias": alias, "gate": None, "cautions": []}, f"{alias} has no gate: it moves freely")
        return
    named = f" of class {gate.rules.risk_class}" if gate.rules.risk_class else ""
    lines = [f"{alias}: gate {gate.seq}{named}, {gate.at[:19]}, {gate.who}: {gate.why}", *_in_words(gate.rules)]
    lines += [f"  caution: {said}" for said in gate.rules.cautions]
    run.result({"alias": alias, "gate": gate.as_json(), "cautions": list(gate.rules.cautions)}, "\n".join(lines))


def tell_verdict(run: Run, alias: str, version: str, verdict: Verdict) -> None:
    said = "may move to" if verdict.passed else "may not move to"
    lines = [f"{alias} {said} {version}", *(_result(result) for result in verdict.results)]
    if verdict.fix:
        lines.append(f"  fix: {verdict.fix}")
    lines += [f"  caution: {caution}" for caution in verdict.cautions]
    run.result({"alias": alias, "version": version, **verdict.as_json()}, "\n".join(lines))
    if not verdict.passed:
        raise typer.Exit(1)


def figure_in_words(result: Mapping[str, Any]) -> str:
    """A rule's figure with what the report gives beside it: `0.64 (0.61 to 0.68 at 95 %, bootstrap), n = 200`."""
    low, high, level, method = (result.get(key) for key in ("low", "high", "level", "method"))
    ends = [] if low is None or high is None else [f"{low:g} to {high:g}" + (f" at {level * 100:g} %" if level else "")]
    beside = ", ".join((*ends, *([method] if method else [])))
    return f"{result['value']:g}{f' ({beside})' if beside else ''}, n = {result['n']}"


def _in_words(rules: GateRules) -> list[str]:
    on = f" on {rules.snapshot}" if rules.snapshot else ""
    by = f", judged by {rules.judge}" if rules.judge else ""
    lines = [f"  the newest {rules.report} report against {rules.against}{on}{by}"] if rules.needs_report else []
    lines += [f"  {rule.words}" for rule in rules.rules]
    if rules.signoffs:
        other = ", by others than who moves it" if rules.four_eyes else ""
        lines.append(f"  signed by: {', '.join(rules.signoffs)}{other}")
    if rules.canary:
        lines.append(f"  a canary of {rules.canary} without harm")
    if rules.review_days:
        lines.append(f"  another look after {rules.review_days} days")
    return lines


def _result(result: Mapping[str, Any]) -> str:
    """`met  accuracy_low >= 0.6: 0.64 (0.61 to 0.68 at 95 %, bootstrap), n = 200`."""
    mark = "met    " if result["met"] else "NOT MET"
    if not result["met"]:
        measured = "" if result.get("value") is None else f"; {figure_in_words(result)}"
        return f"  {mark}  {result['rule']}: {result['reason']}{measured}"
    if result.get("value") is not None:
        return f"  {mark}  {result['rule']}: {figure_in_words(result)}"
    if (trial := result.get("trial")) is not None:
        return f"  {mark}  {result['rule']}: {trial['hours']:.3g} h, {trial['n_replies']} replies to {trial['n_units']} users"
    return f"  {mark}  {result['rule']}" + (f": {result['who']}" if result.get("who") else "")
