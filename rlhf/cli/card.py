"""`rlhf adapter card V`: what a version is, for whom, on what data, how it was measured, where it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlhf.cli.boundary import Run


def card(
    run: Run,
    version: Annotated[
        str, typer.Argument(metavar="V", help="name@7, name@alias, or sha256: and 12 or more hex digits.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write it there: .html, .md or .json; one that is there is replaced."
        ),
    ] = None,
) -> None:
    """The version's model card: intended use, data and consent, figures of every report, limits, sign-offs, lineage.

    Without --out it is Markdown on standard output, with --json the card as JSON.
    """
    from rlhf.evaluation import model_card_page as pages
    from rlhf.evaluation.model_card import model_card

    workspace = run.workspace()
    made = model_card(workspace, version)
    if out is None:
        run.result(made, pages.as_text(made))
        return
    pages.write(workspace, made, out)
    run.result({**made, "file": str(out)}, f"wrote the card of {made['version']} to {out}")
