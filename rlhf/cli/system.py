"""`rlhf init` and `rlhf doctor`: a workspace, and what this machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rlhf.cli.boundary import Run, verb


def register(app: typer.Typer) -> None:
    """Add the top-level commands."""

    @verb(app, "init")
    def init(
        run: Run,
        database: Annotated[str, typer.Option(help="A file name in the workspace, or a PostgreSQL URL.")] = "rlhf.db",
        artifacts: Annotated[
            str, typer.Option(help="A folder name in the workspace, or an S3 URL (s3://bucket/prefix).")
        ] = "artifacts",
    ) -> None:
        """Make a workspace; in one that is there, bring its schema up to date."""
        from rlhf.errors import Conflict
        from rlhf.store import Workspace

        try:
            made = Workspace.create(run.workspace_dir, database=database, artifacts=artifacts)
            word = "made"
        except Conflict:
            made = Workspace.open(run.workspace_dir)
            word = "is there already"
        run.result({"workspace": str(made.root), "made": word == "made"}, f"workspace {word}: {made.root}")

    @verb(app, "doctor")
    def doctor(
        run: Run,
        settings: Annotated[
            list[str] | None,
            typer.Argument(help="With --estimate: settings as key=value.", metavar="[key=value …]"),
        ] = None,
        estimate: Annotated[
            Path | None,
            typer.Option(help="Memory that the training of this reward or policy YAML needs.", metavar="CONFIG"),
        ] = None,
        base_config: Annotated[
            Path | None,
            typer.Option(help="With --estimate: config.json of a base that isn't in the workspace.", metavar="FILE"),
        ] = None,
    ) -> None:
        """What this machine and this workspace can do: device, dtype, libraries, database, disk. Or what a training needs."""
        if estimate is not None:
            answer_estimate(run, estimate, settings or [], base_config)
            return
        if settings or base_config is not None:
            from rlhf.errors import BadUsage

            raise BadUsage("settings and --base-config are for an estimate", fix="add --estimate CONFIG")
        from rlhf.engine.diagnosis import diagnose

        figures = diagnose(run.workspace_dir)
        width = max(len(name) for name in figures)
        run.result(figures, "\n".join(f"{name:<{width}}  {value}" for name, value in figures.items()))


def answer_estimate(run: Run, file: Path, words: list[str], base_config: Path | None) -> None:
    """`rlhf doctor --estimate`: part by part, the sums, and whether they fit here."""
    from rlhf import config
    from rlhf.policy.settings import PolicySettings
    from rlhf.reward.settings import RewardSettings

    values = config.given(file, words)
    role: Literal["reward", "policy"] = "policy" if "method" in values else "reward"
    kind = PolicySettings if role == "policy" else RewardSettings
    # What the training's own command line names and no memory depends on.
    names = {"name": "estimate", "reward": ["estimate@1"], "snapshot": "estimate", "base": "estimate"}
    missing = {key: value for key, value in names.items() if key in kind.model_fields and key not in values}
    chosen: Any = config.load(kind, file, words, **missing)
    from rlhf.engine import estimate as memory
    from rlhf.engine.architecture import shape_of

    shape = shape_of(base_config or base_config_of(run, chosen.base))
    device, dtype = memory.place_of(chosen.device, chosen.dtype)
    found = memory.estimate(shape, memory.Plan.of(role, chosen.model_dump(), device, dtype))
    here = memory.memory_here()
    places = ["host"] if device == "cpu" else ["device", "host"]
    answer = {
        "role": role,
        "device": device,
        "dtype": dtype,
        "parameters": shape.parameters,
        "parts": [part.as_json() for part in found.parts],
        "gib": {where: round(found.gib(where), 3) for where in places},
        "here_gib": {where: None if (b := here[where]) is None else round(b / 2**30, 3) for where in places},
        "fits": {where: memory.fits(found, where, here) for where in places},
    }
    title = f"{file.name}: {role} on {shape.parameters / 1e6:,.0f} million parameters, {device}, {dtype}, one process"
    run.result(answer, f"{title}\n{memory.as_table(found, here)}")


def base_config_of(run: Run, name: str) -> Path:
    """config.json of a base of the workspace. Raises NotFound with the way around it."""
    from rlhf.engine import bases
    from rlhf.errors import NotFound
    from rlhf.store import Workspace

    try:
        return bases.get(Workspace.open(run.workspace_dir), name).folder / "config.json"
    except NotFound as error:
        raise NotFound(error.message, fix=f"{error.fix}; or give the model's config.json: --base-config FILE") from None
