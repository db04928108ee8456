"""`rlhf rollout`: versions tried beside what an alias points at; each step has its reason and can be taken back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhf.cli.boundary import Run, verb

if TYPE_CHECKING:
    from rlhf.serving import Rollout, RolloutSettings
    from rlhf.store import Workspace

app = typer.Typer(help="Rollouts: start, status, advance, pause, complete, rollback.", no_args_is_help=True)

Which = Annotated[str, typer.Argument(metavar="NAME@ALIAS|ID", help="The alias under change, or the rollout's id.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for whoever reads the history.")]
Expect = Annotated[int | None, typer.Option("--expect", metavar="N", help="Only if entry N is the rollout's last.")]


@verb(app, "start")
def start(
    run: Run,
    alias: Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="For instance assistant@champion.")],
    why: Why,
    versions: Annotated[
        list[str] | None,
        typer.Argument(metavar="[VERSION ...]", help="Versions to try, the arms b, c, …; or name arms in --config."),
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="canary (the default), ab, shadow or bandit.")] = None,
    share: Annotated[
        float | None, typer.Option("--share", metavar="PERCENT", help="ab, shadow: percent of units for each version.")
    ] = None,
    ramp: Annotated[str | None, typer.Option("--ramp", metavar="LIST", help="A canary's percents, 1,5,25,100.")] = None,
    every_hours: Annotated[
        float | None, typer.Option("--every-hours", metavar="H", help="Advance by itself after so long a stage.")
    ] = None,
    every_units: Annotated[
        int | None, typer.Option("--every-units", metavar="N", help="Advance by itself after so many units a stage.")
    ] = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Complete by itself after the last stage; gates are asked.")
    ] = False,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge", metavar="VERSION", help="A reward that gives replies their points, for the guard on reward."
        ),
    ] = None,
    judge_share: Annotated[
        float | None, typer.Option("--judge-share", metavar="PERCENT", help="Of replies that it judges; left out: 10.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="YAML: arms, ramp, audience, toggles (metadata.cohort: arm), guards, …"
        ),
    ] = None,
    pending: Annotated[bool, typer.Option("--pending", help="Serve nobody before the first advance.")] = False,
) -> None:
    """Try versions beside what an alias points at."""
    from rlhf.config import load
    from rlhf.errors import BadUsage
    from rlhf.serving import RolloutSettings, rollouts

    arms = {chr(ord("b") + i): {"version": one, "share": share} for i, one in enumerate(versions or [])}
    said: dict[str, Any] = {
        "kind": kind or (None if config else "canary"),
        "arms": arms or None,
        "ramp": _stages(ramp, every_hours, every_units),
        "complete": "auto" if auto else None,
        "judge": None
        if judge is None
        else {"version": judge, **({} if judge_share is None else {"share": judge_share})},
    }
    if judge_share is not None and judge is None:
        raise BadUsage("--judge-share has no judge", fix="name one with --judge, or both in --config")
    settings: RolloutSettings = load(RolloutSettings, config, **said)
    workspace = run.workspace()
    _answer(run, workspace, rollouts.start(workspace, alias, settings, why=why, pending=pending))


@verb(app, "status")
def status(
    run: Run,
    which: Annotated[
        str | None, typer.Argument(metavar="[NAME@ALIAS|ID]", help="One with its figures; without, those in force.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option("--unit", metavar="ID", help="Also: which arm this user or session has, and why.")
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option("--context", metavar="KEY=VALUE", help="With --unit: of such a request. Repeatable."),
    ] = None,
) -> None:
    """How a rollout stands: arms with figures and intervals, guards, time to effect; without a name, all in force."""
    from rlhf.serving import guardrails, monitor, rollouts
    from rlhf.serving import log as logs

    workspace = run.workspace()
    if which is None:
        found = [_told(workspace, one) for one in rollouts.in_force(workspace)]
        text = "\n".join(f"{one['rollout'][:10]}  {_line(one)}" for one in found)
        run.result({"rollouts": found}, text or "no rollout is in force")
        return
    rollout = rollouts.status(workspace, which)
    with workspace.read() as connection:
        rows = monitor.served(connection, rollout)
        arms = monitor.figures(rollout, rows)
        verdict = guardrails.judge(connection, rollout, rows)
        effect = monitor.time_to_effect(connection, rollout)
        entries = logs.entries(connection, rollout.id)
    told = {**_told(workspace, rollout), "figures": arms, "verdict": verdict.as_json(), "time_to_effect": effect}
    lines = [_line(told), *_table(arms), *_guards(told["verdict"])]
    if effect:
        lines.append(
            f"in force after {effect['p50_s']:.4f} s (median), {effect['max_s']:.4f} s at most, of {effect['n']}"
        )
    if unit is not None:
        told["assignment"] = _assignment(workspace, rollout.alias, unit, context or [])
        lines.append("{unit} has {version}: {because}".format(unit=unit, **told["assignment"]))
    lines += [f"{e['seq'] or '':>4}  {e['at'][:19]}  {e['kind']:<9} {e['who']}: {e['why']}" for e in entries]
    run.result({**told, "entries": entries}, "\n".join(lines))


@verb(app, "advance")
def advance(run: Run, which: Which, why: Why, expect: Expect = None) -> None:
    """A canary's next stage; a pending rollout begins; a paused one goes on where it stood."""
    from rlhf.serving import rollouts

    workspace = run.workspace()
    _answer(run, workspace, rollouts.advance(workspace, which, why=why, expect=expect))


@verb(app, "pause")
def pause(run: Run, which: Which, why: Why, expect: Expect = None) -> None:
    """The shares stand where they are until somebody advances."""
    from rlhf.serving import rollouts

    workspace = run.workspace()
    _answer(run, workspace, rollouts.pause(workspace, which, why=why, expect=expect))


@verb(app, "complete")
def complete(
    run: Run,
    which: Which,
    why: Why,
    arm: Annotated[
        str | None, typer.Option("--arm", help="The arm that the alias moves to; control = it stays.", metavar="ARM")
    ] = None,
    expect: Expect = None,
) -> None:
    """End it with an arm: the alias moves there, if its gate is met."""
    from rlhf.serving import rollouts

    workspace = run.workspace()
    _answer(run, workspace, rollouts.complete(workspace, which, why=why, arm=arm, expect=expect))


@verb(app, "rollback")
def rollback(run: Run, which: Which, why: Why, expect: Expect = None) -> None:
    """Everybody back on what the alias pointed at before the rollout; of a completed one, the alias goes back."""
    from rlhf.serving import rollouts

    workspace = run.workspace()
    began = time.perf_counter()
    back = rollouts.roll_back(workspace, which, why=why, expect=expect)
    _answer(run, workspace, back, seconds=round(time.perf_counter() - began, 6))


def _assignment(workspace: Workspace, alias: str, unit: str, context: list[str]) -> dict[str, Any]:
    """What a request of this unit would be answered with, now, and why."""
    from rlhf import config
    from rlhf.serving import Router, pseudonym

    router = Router(workspace, follow=False)
    try:
        route = router.resolve(
            alias, pseudonym(workspace, unit), config.given(words=context, what="fact", example="country=AT")
        )
    finally:
        router.close()
    told = {"version": route.version, "digest": route.digest, "arm": route.arm, "rule": route.rule}
    return {**told, "propensity": route.propensity, **route.reason}


def _stages(ramp: str | None, hours: float | None, units: int | None) -> list[dict[str, Any]] | None:
    from rlhf.errors import BadUsage
    from rlhf.serving.settings import RAMP

    if ramp is None and hours is None and units is None:
        return None
    try:
        shares = RAMP if ramp is None else [float(part) for part in ramp.split(",")]
    except ValueError:
        raise BadUsage(f"--ramp {ramp}: wanted percents with commas between", fix="for instance 1,5,25,100") from None
    return [{"share": share, "hours": hours, "units": units} for share in shares]


def _told(workspace: Workspace, rollout: Rollout) -> dict[str, Any]:
    from rlhf import registry

    weights = rollout.allocation.weights
    arms = {
        arm: {
            "version": str(registry.resolve(workspace, f"sha256:{digest}")),
            "digest": digest,
            "share": weights.get(arm, 0) / 100,
            "shadows": rollout.settings.shadowed(arm),
        }
        for arm, digest in rollout.arms.items()
    }
    return {
        "rollout": rollout.id,
        "alias": rollout.alias,
        "kind": rollout.settings.kind,
        "status": rollout.status,
        "seq": rollout.seq,
        "stage": rollout.stage,
        "stages": [stage.share for stage in rollout.settings.stages] if rollout.settings.kind == "canary" else [],
        "arms": arms,
        "fired": list(rollout.fired),
        "passed_over": list(rollout.signals),
        "started_by": rollout.started_by,
        "started_at": rollout.started_at,
        "who": rollout.who,
        "why": rollout.why,
        "at": rollout.at,
        "settings": rollout.settings.model_dump(mode="json"),
    }


def _answer(run: Run, workspace: Workspace, rollout: Rollout, **more: Any) -> None:
    told = _told(workspace, rollout)
    run.result({**told, **more}, _line(told))


def _line(told: dict[str, Any]) -> str:
    arms = ", ".join(f"{arm} {one['version']} {_share(one)}" for arm, one in told["arms"].items())
    return f"{told['alias']}  {told['kind']} {told['status']}: {arms}  ({told['who']}: {told['why']})"


def _share(arm: dict[str, Any]) -> str:
    return f"{arm['share']:g} %" if arm["shadows"] is None else f"shadows {arm['shadows']:g} %"


def _table(arms: dict[str, dict[str, Any]]) -> list[str]:
    heads = ("error_rate", "latency_p50", "latency_p95", "refusal", "reply_length", "satisfaction", "reward")
    lines = [f"{'arm':<10} {'n':>7} {'units':>7}  " + "  ".join(f"{head:>24}" for head in heads)]
    for arm, one in arms.items():
        cells = (_cell(one[head]) for head in heads)
        lines.append(f"{arm:<10} {one['n']:>7} {one['units']:>7}  " + "  ".join(f"{cell:>24}" for cell in cells))
    return lines


def _cell(figure: dict[str, Any] | None) -> str:
    """– in an interval's place: of so few none can be formed."""
    if figure is None:
        return "-"
    ends = "–" if figure["low"] is None else f"[{figure['low']:.3g}, {figure['high']:.3g}]"
    return f"{figure['value']:.3g} {ends}"


def _guards(verdict: dict[str, Any]) -> list[str]:
    shares = verdict["mismatch"]
    lines = [f"{verdict['why']}" + (" (verdicts are blocked)" if verdict["blocked"] else "")]
    lines.append(f"  shares as drawn: e {shares['peak']:.3g} of {shares['threshold']:.3g}")
    for one in verdict["guards"]:
        mark = " FIRED" if one["fired"] else ""
        lines.append(
            f"  {one['role']} {one['name']}: e {one['peak']:.3g} of {one['threshold']:.3g}, {one['n']} rows{mark}"
        )
    return lines
