"""`rlhf board …`: feedback of every channel as items, their route, and what became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhf.cli.boundary import Run, verb

if TYPE_CHECKING:
    from rlhf.board import Event, Item, Outcome

app = typer.Typer(no_args_is_help=True, help="Feedback as items: kind, risk, impact, effort, and what became of it.")

Id = Annotated[str, typer.Argument(metavar="ID", help="The item's id, or how it begins.", show_default=False)]
Kind = Annotated[str | None, typer.Option("--kind", help="Only preference, bug, safety or feature.")]


@verb(app, "add")
def add(
    run: Run,
    kind: Annotated[str, typer.Option("--kind", help="preference, bug, safety or feature.", show_default=False)],
    text: Annotated[str | None, typer.Option("--text", help="What was said.")] = None,
    pair: Annotated[str | None, typer.Option("--pair", metavar="ID", help="The pair it is about.")] = None,
    comment: Annotated[str | None, typer.Option("--comment", metavar="ID", help="The comment it is about.")] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="NAME", help="Who gave it, by pseudonym. Default: you.")
    ] = None,
    channel: Annotated[str, typer.Option("--channel", help="Where it came in.")] = "command line",
    risk: Annotated[str | None, typer.Option("--risk", help="low, medium or high. Default: by the kind.")] = None,
) -> None:
    """A new item. A safety item's pair stays out of new snapshots until an expert has cleared it."""
    from rlhf import board

    made = board.add(
        run.workspace(), kind=kind, text=text, pair=pair, comment=comment, given_by=by, channel=channel, risk=risk
    )
    run.result(made.as_json(), _line(made))


@verb(app, "collect")
def collect(
    run: Run,
    source: Annotated[str | None, typer.Option("--source", metavar="S", help="Of this source alone.")] = None,
) -> None:
    """Make items of imported comments with words in them, each once, with a first guess of the kind by rule."""
    from rlhf import board

    told = board.collect(run.workspace(), source=source)
    lines = [f"{told.n_new:,} new items, all `new` until a person has looked; {told.n_held:,} pairs newly held"]
    lines += [f"{n:>9,} by the rule: {rule}" for rule, n in sorted(told.by_rule.items())]
    run.result(told.as_json(), "\n".join(lines))


@verb(app, "list")
def list_(
    run: Run,
    kind: Kind = None,
    status: Annotated[
        list[str] | None, typer.Option("--status", help="new, triaged, in_progress, done or declined; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most so many.")] = 100,
) -> None:
    """Items, those that hold a pair first, then the newest."""
    from rlhf import board

    workspace = run.workspace()
    found, counted = board.list_items(workspace, kind=kind, statuses=status or (), limit=limit), board.count(workspace)
    lines = [_line(item) for item in found]
    n_all = sum(sum(by_status.values()) for by_status in counted.values())
    lines.append(
        f"{len(found):,} of {n_all:,} items" if n_all else "no items yet; see: rlhf board add, rlhf board collect"
    )
    run.result({"items": [item.as_json() for item in found], "counts": counted}, "\n".join(lines))


@verb(app, "show")
def show(run: Run, which: Id) -> None:
    """An item, everything that was done about it, and what became of it: snapshots, versions, aliases."""
    from rlhf import board

    workspace = run.workspace()
    item = board.get(workspace, which)
    with workspace.read() as connection:
        events, pair_ids = board.log(connection, item.id), board.pairs_of(connection, item)
    outcome = board.outcomes(workspace, [item])[item.id]
    told = board.told(item, events, outcome)
    value = {
        **item.as_json(),
        "pairs": list(pair_ids),
        "log": [event.as_json() for event in events],
        **outcome.as_json(),
        "told": told,
    }
    run.result(value, _shown(item, pair_ids, events, outcome, told))


@verb(app, "set")
def set_(
    run: Run,
    which: Id,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE…",
            help="kind, risk, impact, effort (1 to 5), status, owner; snapshot=S or version=V that it went into; cleared=yes.",
            show_default=False,
        ),
    ],
    why: Annotated[str, typer.Option("--why", help="The reason, for who gave it and for the log.", show_default=False)],
    expect: Annotated[
        int | None, typer.Option("--expect", metavar="N", help="Fail unless entry N is the last one.")
    ] = None,
) -> None:
    """Do something about an item. Clearing a safety item takes a reviewer who didn't report it."""
    from rlhf import board
    from rlhf.errors import BadUsage

    changes: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key in changes:
            raise BadUsage(f"{word!r:.80} is no single KEY=VALUE", fix="for instance status=triaged impact=4")
        changes[key] = value
    changed = board.change(run.workspace(), which, changes, why=why, expect=expect)
    run.result(changed.as_json(), _line(changed))


def _line(item: Item) -> str:
    place = f"impact {item.impact or '?'} effort {item.effort or '?'}"
    words = " ".join((item.text or "").split())
    held = "HELD  " if item.is_held else ""
    return (
        f"{item.id}  {item.kind:<10} {item.risk:<6} {place}  {item.status:<11} {item.owner or '-':<14} {item.channel:<14} "
        f"{held}{words[:60]}"
    ).rstrip()


def _shown(item: Item, pair_ids: tuple[str, ...], events: tuple[Event, ...], outcome: Outcome, told: list[str]) -> str:
    lines = [_line(item), f"given by {item.given_by or 'unknown'}, on {item.created_at[:19]}"]
    lines += [f"pair {pair_id}" for pair_id in pair_ids]
    if item.text:
        lines += ["", item.text, ""]
    lines += [_entry(event) for event in events]
    if item.is_held and outcome.versions:
        names = ", ".join(version.version for version in outcome.versions)
        lines.append(f"trained before it was held, on a snapshot that holds it: {names}")
    return "\n".join([*lines, "", *told])


def _entry(event: Event) -> str:
    done = ", ".join(f"{field} {before or '-'} -> {after or '-'}" for field, (before, after) in event.changes.items())
    what = f"pair {event.pair_id[:12]}" if event.pair_id else event.link or done
    return f"{event.at[:19]}  {event.action:<5} {what}  by {event.who}" + (f": {event.why}" if event.why else "")
