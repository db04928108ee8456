"""`rlhf experiment` and `rlhf samplesize`: what an A/B shows so far, and how much it takes to show something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rlhf.cli.boundary import Run, verb

if TYPE_CHECKING:
    from rlhf.serving.experiment import Compared, Experiment


def register(app: typer.Typer) -> None:
    """Add the top-level `experiment` and `samplesize`."""
    verb(app, "experiment")(experiment)
    verb(app, "samplesize")(samplesize)


def experiment(
    run: Run,
    which: Annotated[str, typer.Argument(metavar="NAME@ALIAS|ID", help="The alias under change, or the rollout's id.")],
    metric: Annotated[
        str,
        typer.Option("--metric", help="satisfaction, reward, error_rate, latency, refusal or reply_length."),
    ] = "satisfaction",
    planned: Annotated[
        float | None,
        typer.Option("--planned", help="Units that it was planned for, said before it began; 5000.", metavar="N"),
    ] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="Chance of any false alarm, shared by the arms.")] = 0.05,
    effect: Annotated[
        float | None, typer.Option("--effect", help="Also: units of each arm that a difference of this size takes.")
    ] = None,
) -> None:
    """Each arm against the control, by user; may be looked at as often as one likes.

    A sample-ratio mismatch blocks the verdict. What users did before the rollout is taken off (CUPED).
    """
    from rlhf.measures.always_valid import PLANNED
    from rlhf.serving import experiment as experiments

    found = experiments.read(
        run.workspace(), which, metric, planned=PLANNED if planned is None else planned, alpha=alpha, effect=effect
    )
    run.result(found.as_json(), _text(found))


def samplesize(
    run: Run,
    base: Annotated[float | None, typer.Option("--base", help="The control's rate, in (0, 1).")] = None,
    effect: Annotated[float | None, typer.Option("--effect", help="With --base: what is added to the rate.")] = None,
    wins: Annotated[
        float | None, typer.Option("--wins", help="A win rate of paired replies, ties counting half.")
    ] = None,
    ties: Annotated[float | None, typer.Option("--ties", help="With --wins: the share of ties; 0.")] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="Chance of a false alarm.")] = 0.05,
    power: Annotated[float, typer.Option("--power", help="Chance of finding it.")] = 0.8,
    looks: Annotated[bool, typer.Option("--looks", help="For the test that may be looked at at any time.")] = False,
) -> None:
    """Units of each arm that a difference of two rates takes, or pairs that a win rate takes."""
    from rlhf.errors import BadUsage
    from rlhf.measures import sample_size

    if (wins is None) == (base is None) or (base is None) != (effect is None):
        raise BadUsage("wanted either --base and --effect, or --wins", fix="rlhf samplesize --base 0.3 --effect 0.05")
    if ties is not None and wins is None:
        raise BadUsage("--ties without --wins says nothing", fix="add --wins, or leave it out")
    try:
        if wins is not None:
            ties = ties or 0.0
            n = sample_size.win_rate(wins, ties, alpha=alpha, power=power, looks=looks)
            run.result({"pairs": n, "wins": wins, "ties": ties}, f"{n:,} pairs")
            return
        assert base is not None and effect is not None
        n = sample_size.two_rates(base, effect, alpha=alpha, power=power, looks=looks)
    except ValueError as error:
        raise BadUsage(str(error), fix="see: rlhf samplesize --help") from None
    run.result({"units_per_arm": n, "base": base, "effect": effect}, f"{n:,} units of each arm, {2 * n:,} in all")


def _text(found: Experiment) -> str:
    m = found.mismatch
    came = ", ".join(f"{arm} {n} of {m.expected[arm]:.0f} drawn" for arm, n in m.units.items())
    lines = [
        f"{found.rollout.alias}  {found.rollout.settings.kind} {found.rollout.status}: {found.metric}",
        f"units: {came}; e {m.peak:.3g} of {m.threshold:.3g}" + (" MISMATCH" if m.found else ""),
    ]
    return "\n".join([*lines, *(_line(one) for one in found.comparisons)])


def _line(one: Compared) -> str:
    if one.difference is None:
        return f"{one.arm}: {one.says}; {one.why}"
    line = f"{one.arm}: {one.says}; {one.difference:+.4g} [{one.low:.4g}, {one.high:.4g}], p {one.p:.3g}; {one.why}"
    if one.with_past:
        line += f"; the past of {one.with_past} users took {1 - (one.variance_left or 1):.0%} off the variance"
    return line if one.wanted_units is None else f"{line}; {one.wanted_units:,} users of each arm are wanted"
