"""Nobody is named by an e-mail address: such a labeler or subject has a pseudonym, the same one each time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf import erasure, feedback
from rlhf.errors import NotFound
from rlhf.feedback.pseudonyms import person_of
from rlhf.records import Judgement, Message, Pair
from rlhf.store import Workspace

DORA = "dora@example.org"


def write(file: Path, *rows: dict[str, object]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def bytes_of(workspace: Workspace) -> bytes:
    return b"".join(file.read_bytes() for file in workspace.root.rglob("*") if file.is_file())


@pytest.fixture
def told(workspace: Workspace, tmp_path: Path) -> Workspace:
    votes = [
        {"prompt": f"Prime {i}?", "a": "7", "b": "8", "labeler": who, "vote": "a", "subject": "Eve@Example.org"}
        for i in range(3)
        for who in (DORA, "ann")
    ]
    thumb: dict[str, object] = {"prompt": "Tree?", "reply": "Oak.", "user": DORA, "thumb": "up", "comment": "nice"}
    feedback.import_files(workspace, [write(tmp_path / "votes.jsonl", *votes)], source="crowd")
    feedback.import_files(workspace, [write(tmp_path / "thumbs.jsonl", thumb)], source="shop")
    return workspace


def test_an_address_is_in_no_file_and_its_pseudonym_is_the_same_everywhere(told: Workspace, tmp_path: Path) -> None:
    feedback.export(told, told.root / "out.jsonl")
    assert b"example.org" not in bytes_of(told).lower()
    kept = person_of(told.key, DORA)
    assert (
        kept.startswith("person-")
        and kept == person_of(told.key, " Dora@Example.ORG")
        and person_of("k", "ann") == "ann"
    )
    rows = [json.loads(line) for line in (told.root / "out.jsonl").read_text().splitlines()]
    assert {row["labeler"] for row in rows} == {kept, "ann"}
    again = feedback.import_files(told, [tmp_path / "votes.jsonl"], source="crowd")
    assert (again.accepted, again.duplicates) == (0, 6)
    pair = Pair.of((Message("user", "Prime 0?"),), "7", "8")
    feedback.judge(told, Judgement(pair.id, "b", "api", labeler=DORA), pair=pair)
    assert DORA.encode() not in bytes_of(told)


def test_who_is_erased_is_named_by_their_address(told: Workspace) -> None:
    assert erasure.erase(told, "labeler", DORA, source="crowd").counts["judgements"] == 3
    assert erasure.erase(told, "subject", "eve@example.org").counts["pairs"] == 3
    with pytest.raises(NotFound):
        erasure.erase(told, "subject", "fay@example.org")


def test_an_erased_labelers_votes_do_not_come_back_under_another_source(told: Workspace, tmp_path: Path) -> None:
    erasure.erase(told, "labeler", DORA, source="crowd")
    receipt = feedback.import_files(told, [tmp_path / "votes.jsonl"], source="renamed")
    assert (receipt.accepted, receipt.rejected) == (3, 3), "ann's come in, dora's don't"
    fresh = {"prompt": "Another?", "a": "x", "b": "y", "labeler": DORA, "vote": "b"}
    receipt = feedback.import_files(told, [write(tmp_path / "new.jsonl", fresh)], source="renamed")
    assert receipt.accepted == 1, "somebody of that name elsewhere, about something else"


def test_erasing_a_labeler_again_is_no_mistake(told: Workspace) -> None:
    erasure.erase(told, "labeler", "ann")
    assert erasure.erase(told, "labeler", "ann").counts["judgements"] == 0
