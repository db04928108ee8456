"""What goes out comes in again, is read in one order, and nothing is left out in silence."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlhf import feedback
from rlhf.cli.feedback import app
from rlhf.errors import BadInput, BadUsage, NotFound
from rlhf.records import Judgement, Message, Pair
from rlhf.store import Workspace

CHOICES = ("a", "b", "tie", "both_bad", "skip")


def filled(workspace: Workspace) -> None:
    for number, choice in enumerate(CHOICES):
        pair = Pair.of(
            [Message("system", "s"), Message("user", f'q "{number}", é\nnext')], f"=one {number}", f"two {number}"
        )
        feedback.judge(
            workspace,
            Judgement(pair.id, choice, "web", f"=u{number}", "simulated", 2, shown="ba", consent=("train",)),
            pair=pair,
        )


def content(workspace: Workspace) -> list[tuple[str, str, str | None, str, str, str | None, tuple[str, ...]]]:
    with workspace.read() as connection:
        return [
            (pair.id, j.choice, j.labeler, j.kind, j.source, j.shown, j.consent)
            for pair, said, _ in feedback.read_pairs(connection)
            for j in said
        ]


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.csv", "out.csv.gz", "out.parquet"])
def test_an_export_imports_to_the_same_judgements(workspace: Workspace, tmp_path: Path, name: str) -> None:
    filled(workspace)
    counts = feedback.export(workspace, tmp_path / name)
    assert {key: counts[key] for key in ("decided", "tie", "both_bad", "skip", "unjudged", "pairs")} == {
        "decided": 2,
        "tie": 1,
        "both_bad": 1,
        "skip": 1,
        "unjudged": 0,
        "pairs": 5,
    }
    other = Workspace.create(tmp_path / "other", actor="tester")
    for file in (counts["file"], counts["undecided_file"]):
        receipt = feedback.import_files(other, [file])
        assert receipt.rejected == 0 and receipt.accepted == receipt.rows
    assert content(other) == content(workspace)
    other.close()


def test_csv_cells_cant_be_formulas(workspace: Workspace, tmp_path: Path) -> None:
    filled(workspace)
    feedback.export(workspace, tmp_path / "out.csv")
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells) and "'=u0" in cells


def test_the_same_rows_give_the_same_packed_bytes(workspace: Workspace, tmp_path: Path) -> None:
    filled(workspace)
    for name in ("x.jsonl.gz", "y.jsonl.gz"):
        feedback.export(workspace, tmp_path / name)
    assert (tmp_path / "x.jsonl.gz").read_bytes() == (tmp_path / "y.jsonl.gz").read_bytes()
    assert len(gzip.decompress((tmp_path / "x.jsonl.gz").read_bytes()).splitlines()) == 2


def test_a_refused_export_leaves_nothing_behind(workspace: Workspace, tmp_path: Path) -> None:
    for path, error in (
        (tmp_path / "x.docx", BadUsage),
        (tmp_path / "x.jsonl", NotFound),
        (tmp_path / "no" / "x.jsonl", BadInput),
    ):
        with pytest.raises(error):
            feedback.export(workspace, path)
    assert [path.name for path in tmp_path.iterdir()] == ["ws"]
    with pytest.raises(BadInput) as refused:
        feedback.export(workspace, tmp_path / "no" / "x.parquet")
    assert refused.value.message == f"{tmp_path}/no/x.parquet can't be written: No such file or directory"
    with pytest.raises(BadUsage, match="the file to write to has no name"):
        feedback.export(workspace, "")


def test_pairs_are_read_in_the_order_of_ids_whatever_the_batch(workspace: Workspace) -> None:
    filled(workspace)
    with workspace.read() as connection:
        small, large = (list(feedback.read_pairs(connection, batch=size)) for size in (1, 100))
        assert list(feedback.read_pairs(connection, sources=("nobody",))) == []
    assert small == large and [pair.id for pair, *_ in small] == sorted(pair.id for pair, *_ in small)


def test_only_a_sources_own_judgements_are_read(workspace: Workspace) -> None:
    filled(workspace)
    pair = Pair.of([Message("user", "q")], "one", "two")
    for source in ("web", "file"):
        feedback.judge(workspace, Judgement(pair.id, "a", source, "u"), pair=pair)
    with workspace.read() as connection:
        ((found, said, names),) = feedback.read_pairs(connection, sources=("file",))
    assert (found, [j.source for j in said], names) == (pair, ["file"], ("file",))


def test_list_and_show_tell_what_is_there(workspace: Workspace) -> None:
    filled(workspace)
    lines = feedback.list_pairs(workspace, source="web", limit=3)
    assert len(lines) == 3 and all(line.kinds == ("simulated",) and sum(line.votes.values()) == 1 for line in lines)
    page = feedback.show_pair(workspace, lines[0].id[:10])
    assert page.id == lines[0].id and page.sources == {"web": {}} and page.judgements[0][2]
    for wrong in ("zzz", ""):
        with pytest.raises(NotFound):
            feedback.show_pair(workspace, wrong)
    with pytest.raises(NotFound, match="no pairs from a source 'nobody'"):
        feedback.list_pairs(workspace, source="nobody")


def test_the_command_prints_the_contracts_json(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"prompt": "q", "chosen": "x", "rejected": "y"}) + "\noops\n")
    words = ["--workspace", str(tmp_path / "ws")]
    result = CliRunner().invoke(app, ["import", str(path), "--json", *words])
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and (told["rows"], told["accepted"], told["duplicates"], told["rejected"]) == (
        2,
        1,
        0,
        1,
    )
    assert told["errors"] == [{"file": str(path), "line": 2, "reason": told["errors"][0]["reason"]}]
    for command in (
        ["list"],
        ["show", told_id(tmp_path)],
        ["receipts"],
        ["receipts", told["import"]],
        ["formats"],
        ["export", str(tmp_path / "o.csv")],
    ):
        for extra in ([], ["--json"]):
            shown = CliRunner().invoke(app, [*command, *words, *extra])
            assert shown.exit_code == 0, shown.output
            assert not extra or isinstance(json.loads(shown.stdout), dict)


def told_id(tmp_path: Path) -> str:
    workspace = Workspace.open(tmp_path / "ws")
    try:
        return feedback.list_pairs(workspace)[0].id[:12]
    finally:
        workspace.close()
