"""`rlhf label status`: who has labeled how much, and what is left."""

from __future__ import annotations

import json

import typer
from test_labeling_queue import add_pairs
from typer.testing import CliRunner

from rlhf.cli import web
from rlhf.labeling import answer, next_task
from rlhf.store import Workspace


def test_status_counts_labelers_and_open_pairs(workspace: Workspace) -> None:
    app = typer.Typer()
    web.register(app)
    words = ["label", "status", "--workspace", str(workspace.root)]
    assert "nobody has labeled yet" in CliRunner().invoke(app, words).stdout
    add_pairs(workspace, 3)
    for word in ("left", "skip"):
        task = next_task(workspace, "ada")
        assert task is not None
        answer(workspace, "ada", task.lease, word, seconds=2.0)  # type: ignore[arg-type]
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert told["open_pairs"] == 2  # the skipped one waits for somebody else
    assert [(c["labeler"], c["n_done"], c["n_skipped"]) for c in told["labelers"]] == [("ada", 1, 1)]
    table = CliRunner().invoke(app, words).stdout
    assert "ada" in table and "2 pair(s) left" in table
