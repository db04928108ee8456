"""`rlhf reward`: train a reward model, calibrate it, score with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhf.cli.boundary import Run, json_text, put, verb
from rlhf.cli.counting import counting
from rlhf.cli.known import require_known

if TYPE_CHECKING:
    from rlhf.reward.settings import RewardSettings

app = typer.Typer(
    no_args_is_help=True, help="Reward models: train on a snapshot, calibrate, score replies.", rich_markup_mode=None
)


@verb(app, "train")
def train(
    run: Run,
    name: Annotated[str, typer.Argument(help="Name of the version to publish.", metavar="NAME")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="Settings as key=value; see: rlhf reward settings", metavar="[key=value …]"),
    ] = None,
    snapshot: Annotated[str | None, typer.Option(help="Snapshot: NAME or NAME@2.", metavar="S")] = None,
    base: Annotated[str | None, typer.Option(help="Base model in the workspace.", metavar="B")] = None,
    from_version: Annotated[
        str | None, typer.Option("--from", help="Reward version to go on from.", metavar="VERSION")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.", metavar="FILE")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where this run was interrupted.")] = False,
) -> None:
    """Train a reward adapter on a snapshot and publish it as NAME's next version."""
    asked = chosen(name, settings, snapshot, base, from_version, config)
    workspace = run.workspace()
    require_known(workspace, name, asked.base, asked.snapshot, [(asked.from_version, "reward")])
    run.say("loading torch and TRL")
    from rlhf import reward

    trained = reward.train(workspace, asked, resume=resume, say=run.say)
    figures = "  ".join(
        f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in trained.metrics.items()
    )
    word = "published" if trained.is_new else f"{name} gets no new version: the same training was published before, as"
    run.result(
        trained.as_json(),
        f"{word} {trained.version}  sha256:{trained.version.digest[:12]}\n{figures}\n"
        f"report: {trained.run_folder / 'report.html'}",
    )


def chosen(
    name: str,
    settings: list[str] | None,
    snapshot: str | None,
    base: str | None,
    from_version: str | None,
    config: Path | None,
) -> RewardSettings:
    """What `reward train` was told. Raises BadUsage for everything that is wrong with it."""
    from rlhf import config as configuration
    from rlhf.reward.settings import RewardSettings

    return configuration.load(
        RewardSettings, config, settings or (), name=name, snapshot=snapshot, base=base, from_version=from_version
    )


@verb(app, "settings")
def settings(run: Run) -> None:
    """Every setting of a reward training with its default and its help."""
    from rlhf import config
    from rlhf.reward.settings import RewardSettings

    schema = RewardSettings.model_json_schema()["properties"]
    run.result(
        {name: {"default": field.get("default"), "help": field.get("description")} for name, field in schema.items()},
        config.describe(RewardSettings),
    )


@verb(app, "score")
def score(
    run: Run,
    version: Annotated[str, typer.Argument(help="name@7, name@alias or sha256:…", metavar="VERSION")],
    file: Annotated[
        Path,
        typer.Argument(
            help='JSONL of {"id", "prompt", "reply"}, or of pairs {"id", "prompt", "reply_a", "reply_b"}; - = standard input.',
            metavar="FILE",
        ),
    ],
    dtype: Annotated[
        str, typer.Option(help="Type of the body: float32 (scores agree across machines), bfloat16 or auto.")
    ] = "float32",
) -> None:
    """Score replies: one JSON object a line, in the file's order. Nothing is scored if a line can't be read.

    A pair gets both scores and p_a, the chance that a labeler prefers reply a: trust it where VERSION is calibrated.
    """
    from rlhf.cli.lines import json_lines, named

    workspace = run.workspace()
    from rlhf import registry

    ref = registry.resolve(workspace, version, role="reward")
    records = json_lines(file)
    from rlhf.engine.placement import choose
    from rlhf.reward.asked import asked_of, score_asked
    from rlhf.reward.score import open_reward

    asked = [asked_of(record, number, named(file)) for number, record in records]
    for row in score_asked(open_reward(workspace, ref, choose("auto", dtype)), asked):
        if not put(json_text(row)):
            break


@verb(app, "calibrate")
def calibrate(
    run: Run,
    version: Annotated[str, typer.Argument(help="name@7, name@alias or sha256:…", metavar="VERSION")],
    snapshot: Annotated[str, typer.Option(help="Snapshot whose set-aside pairs it is fitted on.", metavar="S")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            help="target=0.8 (precision that the threshold guarantees), confidence=0.9 (of it), seed=0",
            metavar="[key=value …]",
        ),
    ] = None,
) -> None:
    """Publish a child of VERSION whose P(a beats b) means what it says, with a report and a threshold to act on.

    Fitted on the train pairs that VERSION set aside (set_aside), measured on these by cross-fitting and on the test side.
    """
    from rlhf import config
    from rlhf.reward.settings import CalibrationSettings

    asked = config.load(CalibrationSettings, None, settings or (), version=version, snapshot=snapshot)
    workspace = run.workspace()
    run.say("loading torch")
    from rlhf import reward

    done = reward.calibrate(workspace, asked, say=run.say, on_progress=counting("scored", "pairs"))
    run.result(done.as_json(), _calibration(done.as_json(), is_new=done.is_new))


def _calibration(report: Mapping[str, Any], *, is_new: bool) -> str:
    """What came of it in four lines."""
    before, after, limit = report["before"], report["after"], report["threshold"]
    p = "–" if after["calibration_p"] is None else f"{after['calibration_p']:.3f}"
    act = f"no threshold is shown to be right in {limit['target']:.0%} of cases"
    if limit["exists"]:
        act = (
            f"right in {limit['target']:.0%} of cases or more where P is {limit['p']:.3f} or more, which is "
            f"{limit['coverage']:.0%} of pairs"
        )
    return "\n".join(
        (
            f"{'published' if is_new else 'the same calibration was published before, as'} {report['version']}  "
            f"sha256:{report['digest'][:12]}: {report['parent']} at temperature {report['temperature']:.4g}",
            f"{after['n']} set-aside pairs of {after['n_groups']} opening turns, cross-fitted: "
            f"log-loss {before['log_loss']:.3f} → {after['log_loss']:.3f}, "
            f"ECE {before['ece']:.3f} → {after['ece']:.3f} (if perfect {after['ece_if_perfect']['mean']:.3f}, up to "
            f"{after['ece_if_perfect']['p95']:.3f}), calibration test p = {p}",
            act,
            f"report: {report['report']}",
        )
    )
