"""`rlhf offpolicy`: what another policy would have earned, from a log with its chances."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhf.cli.boundary import Run, verb

if TYPE_CHECKING:
    from rlhf.measures.off_policy import OffPolicy

_COLUMNS = (("action", "action"), ("propensity", "propensity"), ("context", None), ("unit", None))


def register(app: typer.Typer) -> None:
    """Add the top-level `offpolicy`."""
    verb(app, "offpolicy")(offpolicy)


def offpolicy(
    run: Run,
    log: Annotated[
        Path | None,
        typer.Argument(help="A log, a row a decision: CSV with a header, plain or gzipped.", metavar="[LOG.csv]"),
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="Column: what was chosen. Default: action.", metavar="COLUMN")
    ] = None,
    reward: Annotated[
        str,
        typer.Option(help="Column: what it earned; with --rollout: reward or satisfaction.", metavar="COLUMN"),
    ] = "reward",
    propensity: Annotated[
        str | None,
        typer.Option(help="Column: the chance of what was chosen. Default: propensity.", metavar="COLUMN"),
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="Column: where it was chosen (position, say).", metavar="COLUMN")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="Column: whose row it is; rows of one user belong together.", metavar="COLUMN")
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="uniform over the actions seen, one action, or a CSV of action,probability[,context].",
            metavar="uniform|ACTION|FILE",
        ),
    ] = "uniform",
    rollout: Annotated[
        str | None,
        typer.Option(help="Instead of LOG: this rollout's own replies; actions are its arms.", metavar="NAME@ALIAS|ID"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the folds and of the resampling.")] = 0,
) -> None:
    """Value of a policy that wasn't running: IPS, SNIPS and doubly robust, each with its interval.

    Refuses to estimate (and exits 0, for that is an answer) where the log lacks what the target does, or where the effective
    sample size is under 100 or under 1 % of the rows.
    """
    from rlhf.errors import BadUsage
    from rlhf.evaluation import bandit_logs
    from rlhf.measures import off_policy

    said = {"action": action, "propensity": propensity, "context": context, "unit": unit}
    if (log is None) == (rollout is None):
        raise BadUsage("wanted either a log or --rollout", fix="rlhf offpolicy LOG.csv, or --rollout NAME@ALIAS")
    if rollout is not None:
        if columns := [f"--{name}" for name, word in said.items() if word is not None]:
            raise BadUsage(f"a rollout has no columns: {', '.join(columns)}", fix="leave them out")
        from rlhf.serving import logged

        found, read = logged.log_of(run.workspace(), rollout, reward)
        if target != bandit_logs.UNIFORM and target not in read.actions:
            raise BadUsage(f"--target {target:.60} is no arm", fix=f"give uniform or one of {', '.join(read.actions)}")
        about: dict[str, Any] = {"rollout": found.id, "alias": found.alias}
    else:
        assert log is not None
        columns_of = {name: said[name] or default for name, default in _COLUMNS}
        read = bandit_logs.read_log(log, reward=reward, **columns_of)  # type: ignore[arg-type]
        about = {"log": str(log), "columns": {**columns_of, "reward": reward}}
    read, policy = bandit_logs.target_of(target, read, action=said["action"] or "action", context=context)
    answer = off_policy.evaluate(read, policy, seed=seed)
    told = {**answer.as_json(), "target": target, "actions": len(read.actions), "contexts": len(read.contexts), **about}
    run.result(told, _text(answer, target))


def _text(answer: OffPolicy, target: str) -> str:
    lines = [
        f"{answer.n:,} rows, effective {answer.ess:,.0f}; weights: mean {answer.mean_weight:.3f}, largest {answer.max_weight:.4g}"
    ]
    if answer.reason is not None:
        return "\n".join([f"no estimate of {target}: {answer.reason}", *lines])
    for name, one in (("IPS", answer.ips), ("SNIPS", answer.snips), ("doubly robust", answer.dr)):
        assert one is not None
        lines.append(f"{name:<14} {one.value:>10.5g}  [{one.interval.low:.5g}, {one.interval.high:.5g}]")
    assert answer.ips is not None
    lines.append(f"intervals: {answer.ips.interval.method}")
    return "\n".join([f"value of {target} a row, 95 % intervals", *lines, *(f"note: {note}" for note in answer.notes)])
