"""`rlhf label status`: who has labeled how much, and what is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from click.testing import Result
from test_labeling_queue import add_pairs
from typer.testing import CliRunner

from rlhf import people
from rlhf.cli import web
from rlhf.errors import BadInput, BadUsage, Forbidden
from rlhf.feedback import import_files, receipts
from rlhf.labeling import answer, appeal, next_task
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
    wide = call("consent", str(tmp_path / "text.md"), "--scope", "train, publish", "--json")
    assert json.loads(wide.stdout)["scopes"] == ["publish", "train"]
    words = ("consent", str(tmp_path / "text.md"), "--scope", "evaluate", "--basis", "contract")
    assert "consent 2, sha256:" in call(*words).stdout
    assert people.current_texts(workspace)[1].scopes == ("evaluate",)
    assert json.loads(call("guidelines", str(tmp_path / "text.md"), "--json").stdout)["number"] == 1
    missing = call("guidelines", str(tmp_path / "none.md"))
    assert isinstance(missing.exception, BadInput) and missing.exception.message.startswith("no file at ")
    (tmp_path / "bytes.md").write_bytes(b"\xff\xfe")
    odd = call("guidelines", str(tmp_path / "bytes.md"))
    assert isinstance(odd.exception, BadInput) and odd.exception.message.endswith("is no UTF-8 text")


def test_rules_gold_pauses_and_cohorts_by_command(workspace: Workspace, tmp_path: Path) -> None:
    app = typer.Typer()
    web.register(app)

    def call(*words: str) -> Result:
        return CliRunner().invoke(app, ["label", *words, "--workspace", str(workspace.root)])

    assert "more: 0" in call("rules").stdout and "as they come" in call("rules").stdout
    assert isinstance(call("rules", "more=2").exception, BadInput), "nobody said why"
    told = json.loads(call("rules", "more=2", "review=true", "--why", "hard", "--overlap", "2", "--json").stdout)
    assert (told["seq"], told["more"], told["why"]) == (1, 2, "hard") and "up to 2 more" in told["in_words"]
    line = json.dumps({"prompt": "known?", "a": "right", "b": "wrong", "gold": "a"})
    unknown = json.dumps({"prompt": "unknown?", "a": "one", "b": "two"})
    (tmp_path / "gold.jsonl").write_text(f"{line}\n{unknown}\n", "utf-8")
    assert json.loads(call("gold", "add", str(tmp_path / "gold.jsonl"), "--json").stdout) == {"added": 1, "gold": 1}
    [one] = json.loads(call("gold", "list", "--json").stdout)["gold"]
    assert one["pair_id"][:12] in call("gold", "list").stdout
    assert json.loads(call("status", "--json").stdout)["open_pairs"] == 1, "the one without a known answer waits"
    assert isinstance(call("gold", "add").exception, BadUsage)
    assert call("gold", "remove", one["pair_id"][:12]).exit_code == 0
    people.add(workspace, "ada", ["labeler"])
    assert "nobody is paused" in call("paused").stdout and "no appeal waits" in call("appeals").stdout
    assert call("pause", "ada", "--why", "copied").exit_code == 0 and "copied" in call("paused").stdout
    appeal(workspace, "ada", "not so")
    assert "not so" in call("appeals").stdout
    assert isinstance(call("uphold", "ada", "--why", "it was").exception, Forbidden), "another reviewer does"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHF_ACTOR", "eva")
        assert call("uphold", "ada", "--why", "it was").exit_code == 0 and "no appeal waits" in call("appeals").stdout
    assert call("resume", "ada", "--why", "a year later").exit_code == 0 and "nobody is paused" in call("paused").stdout
    votes = [
        {"prompt": "q?", "a": "one", "b": "two", "labeler": f"l{i}", "vote": "a", "cohort": "x" if i < 7 else "y"}
        for i in range(12)
    ]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(vote) + "\n" for vote in votes), "utf-8")
    import_files(workspace, [tmp_path / "votes.jsonl"], source="crowd")
    (tmp_path / "target.yaml").write_text("x: 0.5\ny: 0.5\n", "utf-8")
    table = call("cohorts", "--source", "crowd", "--target", str(tmp_path / "target.yaml")).stdout
    assert "12 answers of 12 people" in table and "0.58 [" in table


def test_a_file_without_one_gold_pair_is_refused_whole_and_told_what_a_line_holds(
    workspace: Workspace, tmp_path: Path
) -> None:
    """Also where gold pairs are there already."""
    app = typer.Typer()
    web.register(app)
    pair = {"prompt": "known?", "a": "right", "b": "wrong"}
    bad = {
        "binary": bytes(range(128, 256)) * 9,
        "cut.json": b'[{"prompt": "known?", "a": "ri',
        "other.jsonl": b'{"text": "hello"}\n{"text": "there"}\n',
        "no_gold.jsonl": json.dumps(pair).encode(),
        "odd_gold.jsonl": json.dumps({**pair, "gold": "left"}).encode(),
        "votes.jsonl": b'{"pair_id": "p1", "vote": "a", "labeler": "ann"}\n',
    }
    (tmp_path / "good.jsonl").write_text(json.dumps({**pair, "gold": "a"}) + "\n", "utf-8")
    words = ["label", "gold", "add", "--workspace", str(workspace.root)]
    assert "1 new gold pair(s), 1 in all" in CliRunner().invoke(app, [*words, str(tmp_path / "good.jsonl")]).stdout
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        refused = CliRunner().invoke(app, [*words, str(tmp_path / name)]).exception
        assert isinstance(refused, BadInput) and refused.exit_status == 1, name
        assert "holds no gold pair" in refused.message and " 1: " in refused.message, refused.message
        assert all(f'"{field}"' in refused.fix for field in ("prompt", "a", "b", "gold"))
    assert len(receipts(workspace)) == 1, "nothing of them was imported"
