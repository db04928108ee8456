"""`rlhf loop`: a round whenever enough new judgements have come in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhf.cli.boundary import Run, verb

if TYPE_CHECKING:
    from rlhf.rounds import LoopSettings

app = typer.Typer(
    no_args_is_help=True, help="Round and round: new judgements in, a decision out.", rich_markup_mode=None
)
FILE = "loop.yaml"


@verb(app, "run")
def run_(
    run: Run,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings as key=value, of a section as policy.beta=value; see: rlhf loop settings",
            metavar="[key=value …]",
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="One round, if there is enough that is new (the default).")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings. Default: loop.yaml in the workspace.", metavar="FILE")
    ] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Give an unfinished round up and begin another.")] = False,
) -> None:
    """Cut, train, measure, compare, propose or promote, and write down why. An unfinished round is gone on with."""
    from rlhf import rounds
    from rlhf.errors import BadUsage
    from rlhf.rounds.stopping import Stop

    if once and watch:
        raise BadUsage("--once and --watch exclude each other", fix="leave one of them out")
    workspace = run.workspace()
    asked = chosen(workspace.root, config, settings)
    again = _again(config, settings)
    if watch:
        came = rounds.watch(workspace, asked, anew=anew, say=run.say, again=again)
        run.result(
            {"rounds": [outcome.as_json() for outcome in came]},
            f"{sum(outcome.state == 'done' for outcome in came)} rounds done",
        )
        return
    stop = Stop()
    with stop.listening():
        outcome = rounds.once(workspace, asked, anew=anew, say=run.say, stop=stop, again=again)
    run.result(outcome.as_json(), outcome.text)


@verb(app, "settings")
def settings(run: Run) -> None:
    """Every setting of the loop with its default and its help; those of a section as `policy.beta`."""
    from rlhf.rounds.settings import described

    rows = list(described())
    width = max(len(name) for name, _, _ in rows)
    run.result(
        {name: {"default": default, "help": text} for name, default, text in rows},
        "\n".join(f"  {name:<{width}}  {text} (default {default!r})" for name, default, text in rows),
    )


@verb(app, "init")
def init(
    run: Run,
    name: Annotated[str, typer.Argument(help="Of the snapshots and the policy.", metavar="NAME")],
    base: Annotated[str, typer.Option(help="Base model in the workspace.", metavar="B")],
    method: Annotated[
        str | None, typer.Option(help="Train a policy too: grpo, rloo or dpo.", metavar="METHOD")
    ] = "dpo",
    rewards_alone: Annotated[bool, typer.Option("--rewards-alone", help="Train no policy.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="Where to. Default: loop.yaml in the workspace.", metavar="FILE")
    ] = None,
) -> None:
    """Write a file of all settings with their help above them, to be edited."""
    from rlhf import config as configuration
    from rlhf.errors import Conflict
    from rlhf.rounds import LoopSettings
    from rlhf.rounds.settings import to_yaml

    workspace = run.workspace()
    file = config or workspace.root / FILE
    policy = None if rewards_alone else {"method": method}
    first = configuration.load(LoopSettings, None, (), name=name, base=base, policy=policy)
    where = "" if config is None else f" --config {config}"
    try:
        with open(file, "x", encoding="utf-8") as out:
            out.write(to_yaml(first, f"rlhf loop run{where}"))
    except FileExistsError:
        raise Conflict(f"{file} is there already", fix="edit it, or name another with --config FILE") from None
    gates = [first.reward_alias, *([] if rewards_alone else [first.policy_alias])]
    run.result(
        {"file": str(file), "gates_wanted": gates},
        "\n".join([f"wrote {file}", "next, for each alias a gate:"])
        + "".join(f"\n  rlhf alias gate {alias} --rules FILE --why TEXT" for alias in gates)
        + f"\nthen: rlhf loop run{where}",
    )


def summary(content: Mapping[str, Any]) -> str:
    """A decision record in lines, for `rlhf report show`."""
    from rlhf.rounds.outcome import said

    lines = ["SIMULATED labelers: these figures say nothing about human preferences."] if content["simulated"] else []
    lines += [said(verdict) for verdict in content["verdicts"]]
    for side, measured in content.get("rewards", {}).items():
        change = measured["change"]
        if change is not None and change["value"] is not None:
            interval = "no interval" if change["low"] is None else f"{change['low']:+.3f} to {change['high']:+.3f}"
            lines.append(
                f"accuracy on {side} {measured['snapshot']}, new minus champion: {change['value']:+.3f} ({interval}, "
                f"n = {change['n']})"
            )
    for compared in content.get("policies", ()):
        name, f = next(iter(compared["figures"].items()))
        low, high = f["win_rate_low"], f["win_rate_high"]
        interval = "no interval" if low is None else f"{low:.3f} to {high:.3f}"
        rate = "none" if f["win_rate"] is None else f"{f['win_rate']:.3f}"
        lines.append(f"{name} against {compared['other']}: win rate {rate} ({interval}, n = {f['n']})")
    return "\n".join([*lines, f"decided by {content['actor']}"])


def _again(config: Path | None, settings: list[str] | None) -> str:
    """The command that goes on with what this one began, from wherever it is called."""
    import shlex

    where = [] if config is None else ["--config", str(config.absolute())]
    return shlex.join(["rlhf", "loop", "run", *where, *(settings or ())])


def chosen(root: Path, config: Path | None, settings: list[str] | None) -> LoopSettings:
    """What `loop run` was told. root: the workspace's, where loop.yaml lies. Raises NotFound where no file is there,
    BadUsage for everything that is wrong with it."""
    from rlhf import config as configuration
    from rlhf.errors import NotFound
    from rlhf.rounds import LoopSettings

    file = config or root / FILE
    if config is None and not file.exists():
        raise NotFound(f"no loop settings at {file}", fix="write them with: rlhf loop init NAME --base B")
    return configuration.load(LoopSettings, file, settings or ())
