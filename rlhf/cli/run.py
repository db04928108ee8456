"""`rlhf run`: what was started, and how it ended."""

from __future__ import annotations

from typing import Annotated

import typer

from rlhf.cli.boundary import Run, verb

app = typer.Typer(no_args_is_help=True, help="Runs: what was started, and how it ended.", rich_markup_mode=None)


@verb(app, "list")
def list_(run: Run) -> None:
    """Every run, newest last."""
    from rlhf.store import runs

    rows = runs.list_runs(run.workspace())
    lines = [f"{r.id}  {r.kind:<8} {r.name:<20} {r.state:<12} {r.created_at[:19]}" for r in rows]
    run.result(
        {"runs": [r.as_json() for r in rows]},
        "\n".join(lines) or "no run yet: rlhf reward train NAME --snapshot S --base B",
    )


@verb(app, "show")
def show(run: Run, run_id: Annotated[str, typer.Argument(help="A run's id, or its beginning.", metavar="R")]) -> None:
    """One run: its settings, its folder, how it ended."""
    import json

    from rlhf.store import runs

    row = runs.show(run.workspace(), run_id)
    run.result(row.as_json(), json.dumps(row.as_json(), indent=2, ensure_ascii=False))
