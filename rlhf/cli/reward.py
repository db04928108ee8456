"""`rlhf reward`: train a reward model, score with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf.cli.boundary import Run, json_text, put, verb

if TYPE_CHECKING:
    from rlhf.reward.settings import RewardSettings

app = typer.Typer(
    no_args_is_help=True, help="Reward models: train on a snapshot, score replies.", rich_markup_mode=None
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
    run.say("loading torch and TRL")
    from rlhf import reward

    trained = reward.train(workspace, asked, resume=resume, say=run.say)
    figures = "  ".join(
        f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in trained.metrics.items()
    )
    word = "published" if trained.is_new else "the same training was published before, as"
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
        Path, typer.Argument(help='JSONL of {"id", "prompt", "reply"}; - = standard input.', metavar="FILE")
    ],
    dtype: Annotated[
        str, typer.Option(help="Type of the body: float32 (scores agree across machines), bfloat16 or auto.")
    ] = "float32",
) -> None:
    """Score replies: one JSON object a line, in the file's order. Nothing is scored if a line can't be read."""
    from rlhf.cli.lines import json_lines

    workspace = run.workspace()
    from rlhf import registry

    ref = registry.resolve(workspace, version, role="reward")
    records = json_lines(file)
    from rlhf.engine.placement import choose
    from rlhf.reward.score import item_of, score_items

    items = [item_of(record, number) for number, record in records]
    for row in score_items(workspace, ref, items, choose("auto", dtype)):
        if not put(json_text(row)):
            break
