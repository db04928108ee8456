"""`rlhf snapshot …` keeps its contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from snapshot_rows import judged, pair_of, put

from rlhf.cli import snapshot
from rlhf.cli.boundary import answer_for
from rlhf.store import Workspace


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    put(workspace, [judged(pair_of(i), "ab"[i % 2], source="one" if i % 2 else "two") for i in range(40)])
    return workspace


def _run(capsys: pytest.CaptureFixture[str], workspace: Workspace, *words: str) -> tuple[int, Any]:
    call = [*words, "--workspace", str(workspace.root), "--json"]
    try:
        status = typer.main.get_command(snapshot.app)(args=call, standalone_mode=False) or 0
    except Exception as error:
        status = answer_for(error, call)
    return status, json.loads(capsys.readouterr().out)


def test_cut_says_name_digest_pairs_and_splits(filled: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    both = ("--source", "one", "--source", "two")
    status, said = _run(capsys, filled, "cut", "hh", "--holdout", "0.3", "--seed", "2", *both)
    assert status == 0
    assert (said["name"], said["ref"], said["number"], said["pairs"]) == ("hh", "hh@1", 1, 40)
    assert len(said["digest"]) == 64 and sum(said["splits"].values()) == 40 and said["splits"]["test"] > 0


def test_list_show_check_and_diff_answer(filled: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    first = _run(capsys, filled, "cut", "hh")[1]
    second = _run(capsys, filled, "cut", "hh", "--source", "one")[1]
    listed = _run(capsys, filled, "list")[1]["snapshots"]
    assert [(e["ref"], e["digest"]) for e in listed] == [("hh@1", first["digest"]), ("hh@2", second["digest"])]
    shown = _run(capsys, filled, "show", "hh@1")[1]
    assert shown["digest"] == first["digest"] and shown["card"].startswith("# Datasheet of the snapshot hh@1")
    checked = _run(capsys, filled, "check", "hh")[1]
    assert checked["leaks"]["openings"]["count"] == 0 and checked["too_long"] is None and checked["too_long_reason"]
    assert _run(capsys, filled, "diff", "hh@1", "hh@2")[1]["removed"] == 20


def test_people_get_lines(filled: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["cut", "hh"], ["list"], ["show", "hh"], ["check", "hh"], ["diff", "hh", "hh@1"]):
        typer.main.get_command(snapshot.app)(args=[*words, "--workspace", str(filled.root)], standalone_mode=False)
        assert "hh@1" in capsys.readouterr().out


def test_export_names_both_files(filled: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _run(capsys, filled, "cut", "hh")
    said = _run(capsys, filled, "export", "hh", str(tmp_path / "hh.jsonl"))[1]
    assert said["rows"] == 40 == len(Path(said["file"]).read_text().splitlines())


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["cut", "7"], 2, "bad_usage"),
        (["cut", "hh", "--holdout", "1"], 2, "bad_usage"),
        (["cut", "hh", "--source", "on"], 1, "not_found"),
        (["cut", "hh", "--kind", "model"], 1, "bad_input"),
        (["show", "hh"], 1, "not_found"),
        (["cut"], 2, "bad_usage"),
        (["check", "hh@"], 2, "bad_usage"),
    ],
)
def test_refusals_have_their_status_and_a_fix(
    filled: Workspace, capsys: pytest.CaptureFixture[str], words: list[str], status: int, code: str
) -> None:
    found, said = _run(capsys, filled, *words)
    assert (found, said["error"]["code"]) == (status, code) and said["error"]["fix"]


@pytest.mark.shared
def test_real_preferences_are_cut_and_no_opening_is_on_both_sides(
    workspace: Workspace, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rlhf.feedback import import_files

    receipt = import_files(workspace, [shared_data / "hh_harmless.jsonl.gz"])
    said = _run(capsys, workspace, "cut", "hh")[1]
    assert said["pairs"] == receipt.pairs and 0.05 < said["splits"]["test"] / said["pairs"] < 0.15
    assert _run(capsys, workspace, "check", "hh")[1]["leaks"]["openings"]["count"] == 0
