"""`rlhf drift`: what an alias served lately against the snapshot that its models learnt from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rlhf.cli.boundary import Run, verb

if TYPE_CHECKING:
    from rlhf.measures.drift import Shift
    from rlhf.serving.drift import Drift


def register(app: typer.Typer) -> None:
    """Add the top-level `drift`."""
    verb(app, "drift")(drift)


def drift(
    run: Run,
    snapshot: Annotated[str, typer.Argument(metavar="SNAPSHOT", help="What the models learnt from: NAME or NAME@2.")],
    alias: Annotated[str, typer.Option("--alias", metavar="NAME@ALIAS", help="Whose replies are looked at.")],
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="VERSION",
            help="A reward version that reads replies of both sides: its points are compared too.",
        ),
    ] = None,
    last: Annotated[int, typer.Option("--last", min=1, metavar="N", help="The newest so many replies.")] = 2000,
    pause: Annotated[
        bool, typer.Option("--pause", help="On an alarm pause the alias's rollout, until somebody advances it.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
) -> None:
    """How far prompts, replies, rewards and labelers' agreement moved; an alarm opens an item on the board."""
    from rlhf.serving import drift as drifting

    found = drifting.look(run.workspace(), snapshot, alias, judge=judge, last=last, pause=pause, seed=seed)
    run.result(found.as_json(), _text(found))


def _text(found: Drift) -> str:
    lines = [f"{found.n_window:,} replies of {found.alias} since {found.since[:19]} against {found.snapshot}"]
    lines += [_line(shift) for shift in found.shifts]
    for one in found.slices:
        if one.by is not None:
            lines.append(f"  {one.feature} most where {one.by} is {one.value}: {one.effect:+.2f}, n {one.n}")
    if found.item is not None:
        lines.append(f"item {found.item.id[:10]} is on the board: rlhf board show {found.item.id[:10]}")
    if found.paused is not None:
        lines.append(
            f"the rollout {found.paused[:10]} is paused; go on with: rlhf rollout advance {found.alias} --why TEXT"
        )
    if found.not_paused is not None:
        lines.append(f"nothing was paused: {found.not_paused}")
    return "\n".join(lines)


def _line(shift: Shift) -> str:
    effect = "" if shift.effect is None else f"{shift.effect:+.2f} [{shift.low:.2f}, {shift.high:.2f}]"
    distance = "" if shift.distance is None else f"distance {shift.distance:.2f}"
    mark = "ALARM " if shift.alarm else ""
    return f"  {shift.name:<14} {effect:<22} {distance:<14} n {shift.n_reference}, {shift.n_window}  {mark}{shift.why}"
