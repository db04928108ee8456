"""`rlhf label status`: who has labeled how much, and what is left."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from click.testing import Result
from test_labeling_queue import add_pairs
from typer.testing import CliRunner

from rlhf import people
from rlhf.cli import web
from rlhf.errors import BadInput
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


def test_texts_are_shown_and_published_and_say_what_they_allow(workspace: Workspace, tmp_path: Path) -> None:
    app = typer.Typer()
    web.register(app)

    def call(*words: str) -> Result:
        return CliRunner().invoke(app, ["label", *words, "--workspace", str(workspace.root)])

    shown = json.loads(call("consent", "--json").stdout)
    assert (shown["number"], shown["scopes"], shown["basis"]) == (0, ["evaluate", "train"], "consent")
    (tmp_path / "text.md").write_text("Only to measure.", "utf-8")
    words = ("consent", str(tmp_path / "text.md"), "--scope", "evaluate", "--basis", "contract")
    assert "consent 1, sha256:" in call(*words).stdout
    assert people.current_texts(workspace)[1].scopes == ("evaluate",)
    assert json.loads(call("guidelines", str(tmp_path / "text.md"), "--json").stdout)["number"] == 1
    missing = call("guidelines", str(tmp_path / "none.md"))
    assert isinstance(missing.exception, BadInput) and "can't be read" in missing.exception.message
