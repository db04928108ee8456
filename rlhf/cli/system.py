"""`rlhf init` and `rlhf doctor`: a workspace, and what this machine can do."""

from __future__ import annotations

from typing import Annotated

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
    def doctor(run: Run) -> None:
        """What this machine and this workspace can do: device, dtype, libraries, database, disk."""
        from rlhf.engine.diagnosis import diagnose

        figures = diagnose(run.workspace_dir)
        width = max(len(name) for name in figures)
        run.result(figures, "\n".join(f"{name:<{width}}  {value}" for name, value in figures.items()))
