"""Exporting: one TRL row a judgement that decides, nothing dropped in silence."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from snapshot_rows import judged, pair_of, put

from rlhf import feedback, snapshots
from rlhf.errors import BadInput, BadUsage
from rlhf.store import Workspace


@pytest.fixture
def cut(workspace: Workspace) -> snapshots.Snapshot:
    put(
        workspace,
        [
            judged(pair_of(0), "a", labeler="w", strength=3),
            judged(pair_of(0), "b", labeler="=1+1", cohort="@home"),
            judged(pair_of(1), "b"),
            judged(pair_of(2), "tie"),
            judged(pair_of(3), "both_bad"),
            judged(pair_of(1), "skip", labeler="w"),
            *(judged(pair_of(i), "a") for i in range(10, 30)),
        ],
    )
    return snapshots.cut(workspace, "hh", holdout=0.3)


def _read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return [{k: v for k, v in row.items() if v is not None} for row in pq.read_table(path).to_pylist()]
    packed = path.read_bytes()
    text = (gzip.decompress(packed) if path.suffix == ".gz" else packed).decode("utf-8")
    if ".csv" not in path.name:
        return [json.loads(line) for line in text.split("\n") if line]
    return [
        {k: json.loads(v) if k in ("prompt", "chosen", "rejected") else v for k, v in row.items() if v}
        for row in csv.DictReader(io.StringIO(text, newline=""))
    ]


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet", "out.jsonl.gz", "out.csv.gz"])
def test_every_judgement_is_in_one_of_the_two_files(
    workspace: Workspace, cut: snapshots.Snapshot, tmp_path: Path, name: str
) -> None:
    written = snapshots.export(workspace, "hh", tmp_path / name)
    rows, beside = _read(Path(written.file)), _read(Path(written.undecided_file))
    assert (len(rows), len(beside)) == (written.rows, written.undecided) == (23, 3)
    assert written.rows + written.undecided == cut.manifest["judgements"]
    assert sorted(row["choice"] for row in beside) == ["both_bad", "skip", "tie"]
    sides = {row.pair.id: row.split for row in cut.rows()}
    first = next(row for row in rows if row.get("labeler") == "w")
    assert first["chosen"] == [{"role": "assistant", "content": pair_of(0).reply_a}]
    assert first["rejected"] == [{"role": "assistant", "content": pair_of(0).reply_b}]
    assert first["prompt"] == [m.as_json() for m in pair_of(0).prompt]
    assert (first["split"], first["source"], str(first["strength"])) == (sides[pair_of(0).id], "s", "3")
    assert {p.name for p in tmp_path.iterdir()} == {name, Path(written.undecided_file).name, "ws"}


def test_a_csv_cell_that_a_spreadsheet_would_run_is_quoted(
    workspace: Workspace, cut: snapshots.Snapshot, tmp_path: Path
) -> None:
    snapshots.export(workspace, "hh", tmp_path / "out.csv")
    row = next(row for row in _read(tmp_path / "out.csv") if "1+1" in row.get("labeler", ""))
    assert (row["labeler"], row["cohort"]) == ("'=1+1", "'@home")


@pytest.mark.parametrize("name", ["out.txt", "out", "jsonl"])
def test_another_ending_is_wrong_usage(
    workspace: Workspace, cut: snapshots.Snapshot, tmp_path: Path, name: str
) -> None:
    with pytest.raises(BadUsage, match="format"):
        snapshots.export(workspace, "hh", tmp_path / name)


def test_an_export_that_fails_leaves_the_file_that_was_there(
    workspace: Workspace, cut: snapshots.Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("as it was\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(BadInput, match="No space left"):
        snapshots.export(workspace, "hh", target)
    assert target.read_text() == "as it was\n" and {p.name for p in tmp_path.iterdir()} == {"out.jsonl", "ws"}


def test_an_unwritable_place_is_refused(workspace: Workspace, cut: snapshots.Snapshot, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="can't be written"):
        snapshots.export(workspace, "hh", tmp_path / "missing" / "out.jsonl")


def test_an_export_imported_elsewhere_gives_the_same_pairs(
    workspace: Workspace, cut: snapshots.Snapshot, tmp_path: Path
) -> None:
    snapshots.export(workspace, "hh", tmp_path / "out.jsonl")
    other = Workspace.create(tmp_path / "other")
    receipt = feedback.import_files(other, [tmp_path / "out.jsonl"])
    assert receipt.rejected == 0
    decided = {row.pair.id for row in cut.rows() if any(j.choice in ("a", "b") for j in row.judgements)}
    assert {row.pair.id for row in snapshots.cut(other, "again").rows()} == decided
