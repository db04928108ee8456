"""`rlhf decisions`: what was promoted, taken back, retired or asked of an alias, why, by whom, on what; and its regular review."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import typer

from rlhf.cli.boundary import Run, verb
from rlhf.cli.gate import figure_in_words

app = typer.Typer(help="Decisions: list, show, revoke, review.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(metavar="ID", help="The decision's number.", min=1)]
Kind = Literal["promotion", "rollback", "gate", "retirement", "review"]


@verb(app, "list")
def list_(
    run: Run,
    since: Annotated[
        str | None, typer.Option("--since", metavar="DAY", help="2026-01-31, or review: after the last review.")
    ] = None,
    overdue: Annotated[bool, typer.Option("--overdue", help="Only what is due for another look.")] = False,
    alias: Annotated[str | None, typer.Option("--alias", metavar="NAME@ALIAS", help="Only this alias's.")] = None,
    kind: Annotated[Kind | None, typer.Option("--kind", help="Only of this kind.")] = None,
) -> None:
    """Every decision, first to last."""
    from rlhf.registry import decisions

    found = decisions.list_decisions(run.workspace(), since=since, overdue=overdue, alias=alias, kind=kind)
    told = [one.as_json() for one in found]
    run.result({"decisions": told}, "\n".join(map(_line, told)) or "no decision")


@verb(app, "show")
def show(run: Run, decision: Number) -> None:
    """One decision: what, why, who, on which figures of how many, assuming what, signed by whom, on whose judgements."""
    from rlhf.registry import decisions

    told = decisions.show(run.workspace(), decision).as_json(whole=True)
    run.result(told, "\n".join(_lines(told)))


@verb(app, "revoke")
def revoke(
    run: Run,
    decision: Number,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for whoever reads the history.")],
) -> None:
    """Take a promotion back: its alias's rollback, whose own decision names this one. No gate is asked."""
    from rlhf.registry import decisions

    workspace = run.workspace()
    moved = decisions.revoke(workspace, decision, why=why)
    made = decisions.list_decisions(workspace, alias=moved.alias)[-1]
    run.result(
        {**made.as_json(), "revoked": decision}, f"decision {made.decision.number} takes {decision} back: {made.title}"
    )


@verb(app, "review")
def review(
    run: Run,
    notes: Annotated[str, typer.Option("--notes", metavar="TEXT", help="What was looked at, and what follows.")],
    seen: Annotated[
        int | None, typer.Option("--seen", metavar="N", help="Only if decision N is the last that was made.")
    ] = None,
) -> None:
    """Record that the regular review was held; what it is about stands on the page /decisions of `rlhf web`."""
    from rlhf.registry import decisions

    made = decisions.hold_review(run.workspace(), notes, seen=seen)
    run.result(made.as_json(whole=True), f"decision {made.decision.number}: {made.title}")


def _line(one: Mapping[str, Any]) -> str:
    marks = [f"taken back by {one['taken_back_by']}"] if one["taken_back_by"] else []
    marks += ["OVERDUE for a review"] if one["overdue"] else []
    end = f" [{', '.join(marks)}]" if marks else ""
    return f"{one['decision']:>4}  {one['at'][:19]}  {one['title']}  {one['who']}: {one['why']}{end}"


def _lines(one: Mapping[str, Any]) -> Iterator[str]:
    content = one["content"]
    yield f"decision {one['decision']} ({one['kind']}): {one['title']}"
    yield f"  who      {one['who']}, {one['at'][:19]}"
    yield f"  why      {one['why']}"
    for word, digest in (("from", one["from_digest"]), ("to", one["to_digest"])):
        if digest:
            yield f"  {word:<8} {one[word]} sha256:{digest[:12]}"
    if one["takes_back"]:
        yield f"  back     takes decision {one['takes_back']} back"
    if one["taken_back_by"]:
        yield f"  back     taken back by decision {one['taken_back_by']}"
    if one["review_at"]:
        yield f"  review   due {one['review_at'][:10]}{' OVERDUE' if one['overdue'] else ''}"
    if one["kind"] == "promotion":
        yield from _promotion(content)
    if one["kind"] == "gate":
        yield from (f"  asked no more: {words}" for words in content["gate"]["no_more"])
        yield from (f"  asked from now on: {words}" for words in content["gate"]["new"])


def _promotion(content: Mapping[str, Any]) -> Iterator[str]:
    gate, report, figures = content["gate"], content["report"], content["figures"]
    yield f"  gate     class {gate['class'] or '-'}, sha256:{gate['digest'][:12]}" if gate else "  gate     none"
    for result in gate["results"] if gate else ():
        value = "" if result.get("value") is None else f": {figure_in_words(result)}"
        yield f"    {'met' if result['met'] else 'NOT MET'}: {result['rule']}{value}"
    for change in content["gate_changes"]:
        if change["no_more"]:
            yield f"    asked no more since decision {change['decision']} by {change['who']}: {'; '.join(change['no_more'])}"
    if report:
        yield f"  report   {report['digest'][:12]} ({report['kind']}, n = {report['n']}): {report['title']}"
        before = figures["from"] or {}
        for name, value in (figures["to"] or {}).items():
            if value is not None and before.get(name) is not None:
                yield f"    {name}: {before[name]:g} -> {value:g}"
    yield from (f"  assumed  {said}" for said in content["assumptions"])
    yield from (f"  signed   {one['who']} as {one['role']}, sha256:{one['digest'][:12]}" for one in content["signoffs"])
    for data in content["data"]:
        if "digest" in data:
            labelers = (data["labelers"] or {}).get("known")
            yield f"  data     {data['snapshot'] or data['digest'][:12]}: {data['judgements']} judgements, {labelers} labelers"
