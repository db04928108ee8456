"""`rlhf base`: the base models of a workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlhf.cli.boundary import Run, verb

app = typer.Typer(no_args_is_help=True, help="Base models: bring one in once, then name it.", rich_markup_mode=None)


@verb(app, "add")
def add(
    run: Run,
    name: Annotated[str, typer.Argument(help="Name of the base in this workspace.", metavar="NAME")],
    dir: Annotated[
        Path | None, typer.Option("--dir", help="A transformers model folder (safetensors).", metavar="D")
    ] = None,
    hub: Annotated[str | None, typer.Option("--hub", help="A hub id, or ID@REVISION.", metavar="ID")] = None,
    gguf: Annotated[
        Path | None, typer.Option("--gguf", help="A GGUF file (about 20 s to turn into a plain model).", metavar="FILE")
    ] = None,
) -> None:
    """Copy a base model into the workspace and digest it."""
    from rlhf.engine import add_from_dir, add_from_gguf, add_from_hub
    from rlhf.errors import BadUsage

    if sum(source is not None for source in (dir, hub, gguf)) != 1:
        raise BadUsage("a base comes from one place", fix="give one of --dir D, --hub ID, --gguf FILE")
    workspace = run.workspace(make=True)
    if dir is not None:
        base = add_from_dir(workspace, name, dir)
    elif hub is not None:
        base = add_from_hub(workspace, name, hub)
    else:
        assert gguf is not None
        base = add_from_gguf(workspace, name, gguf)
    run.result(
        base.as_json(),
        f"{base.name}  {base.details['architecture']}, {base.details['layers']} layers  sha256:{base.digest[:12]}",
    )


@verb(app, "list")
def list_(run: Run) -> None:
    """The bases that are there."""
    from rlhf.engine import list_bases

    bases = list_bases(run.workspace())
    lines = [
        f"{b.name}  {b.details['architecture']}, {b.details['layers']} layers  sha256:{b.digest[:12]}" for b in bases
    ]
    run.result(
        {"bases": [b.as_json() for b in bases]}, "\n".join(lines) or "no base yet: rlhf base add NAME --dir FOLDER"
    )
