"""One judgement goes through the same door as files: checked, masked, once, and superseded at most once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from sqlalchemy import select

from rlhf import feedback
from rlhf.errors import BadInput, Conflict, Forbidden, NotFound
from rlhf.feedback import tombstones
from rlhf.records import Judgement, Message, Pair
from rlhf.store import Workspace, audit
from rlhf.store.tables import judgements
from rlhf.store.tables import tombstones as buried

PAIR = Pair.of([Message("user", "q")], "one", "two")
VOTE = Judgement(PAIR.id, "a", "web", "u1", shown="ab", seconds=2.0)


def in_force(workspace: Workspace) -> list[tuple[str, str]]:
    with workspace.read() as connection:
        return [(id, j.choice) for id, j in feedback.current_judgements(connection)]


def test_the_same_judgement_again_returns_the_id_it_has(workspace: Workspace) -> None:
    first = feedback.judge(workspace, VOTE, pair=PAIR)
    assert feedback.judge(workspace, VOTE) == first and in_force(workspace) == [(first, "a")]
    other = feedback.judge(workspace, replace(VOTE, choice="b"))
    assert other != first and len(in_force(workspace)) == 2  # a contradiction is kept


def test_an_undo_takes_back_and_judging_again_counts(workspace: Workspace) -> None:
    first = feedback.judge(workspace, VOTE, pair=PAIR)
    undo = feedback.judge(workspace, replace(VOTE, choice="skip", reason="undo", supersedes=first))
    assert in_force(workspace) == []
    again = feedback.judge(workspace, VOTE)
    assert again not in (first, undo) and in_force(workspace) == [(again, "a")]
    assert feedback.judge(workspace, VOTE) == again or in_force(workspace) == [(again, "a")]


def test_a_repeated_request_after_an_undo_adds_nothing(workspace: Workspace) -> None:
    first = feedback.judge(workspace, VOTE, pair=PAIR)
    feedback.judge(workspace, replace(VOTE, choice="skip", reason="undo", supersedes=first))
    again = feedback.judge(workspace, VOTE)
    assert [feedback.judge(workspace, VOTE) for _ in range(2)] == [again, again]


def test_a_judgement_has_one_successor_by_the_same_labeler_on_the_same_pair(workspace: Workspace) -> None:
    first = feedback.judge(workspace, VOTE, pair=PAIR)
    for change in ({"labeler": "u2"}, {"source": "other"}, {"labeler": None}):
        with pytest.raises(Conflict):
            feedback.judge(workspace, replace(VOTE, choice="b", supersedes=first, **change))
    second = feedback.judge(workspace, replace(VOTE, choice="b", supersedes=first))
    assert feedback.judge(workspace, replace(VOTE, choice="b", supersedes=first)) == second
    with pytest.raises(Conflict, match="superseded already"):
        feedback.judge(workspace, replace(VOTE, choice="tie", supersedes=first))
    with pytest.raises(NotFound):
        feedback.judge(workspace, replace(VOTE, choice="tie", supersedes="nobody"))
    assert in_force(workspace) == [(second, "b")]


@pytest.mark.parametrize(
    "change",
    [
        {"choice": "c"},
        {"kind": "alien"},
        {"strength": 4},
        {"shown": "left"},
        {"seconds": float("nan")},
        {"seconds": -1},
        {"acquisition_p": 2},
        {"source": ""},
        {"labeler": "x" * 201},
        {"note": "a\x00"},
        {"note": "\ud800"},
        {"reason": "undo"},
    ],
)
def test_a_bad_value_is_refused_in_words(workspace: Workspace, change: dict[str, Any]) -> None:
    feedback.judge(workspace, VOTE, pair=PAIR)
    with pytest.raises(BadInput):
        feedback.judge(workspace, replace(VOTE, **change))
    assert len(in_force(workspace)) == 1


def test_an_unknown_pair_is_not_found(workspace: Workspace) -> None:
    with pytest.raises(NotFound):
        feedback.judge(workspace, VOTE)


def test_notes_and_new_pairs_are_masked_and_the_side_follows_its_reply(workspace: Workspace) -> None:
    for number in range(8):  # masking changes the order of the replies in about half of them
        pair = Pair.of([Message("user", "mail a@b.co")], f"call +1 415-555-26{number}1 now", f"no {number}")
        choice = pair.side_of(f"no {number}")
        id = feedback.judge(workspace, Judgement(pair.id, choice, "web", "u1", note="I am c@d.org"), pair=pair)
        with workspace.read() as connection:
            stored = connection.execute(select(judgements).where(judgements.c.id == id)).one()
        page = feedback.show_pair(workspace, stored.pair_id)
        assert page.pair is not None and page.pair.prompt[0].content == "mail <EMAIL>" and stored.note == "I am <EMAIL>"
        assert (page.pair.reply_a if stored.choice == "a" else page.pair.reply_b) == f"no {number}"


def test_the_reason_of_a_skip_is_masked_and_a_reviewer_sees_how_much_was(workspace: Workspace) -> None:
    pair = Pair.of([Message("user", "I live at 221B Baker Street")], "mail a@b.co or c@d.org", "no")
    vote = Judgement(pair.id, "skip", "web", "u1", reason="it names github.com/somebody", note="IBAN NO9386011117947")
    id = feedback.judge(workspace, vote, pair=pair)
    with workspace.read() as connection:
        stored = connection.execute(select(judgements).where(judgements.c.id == id)).one()
    assert (stored.reason, stored.note) == ("it names github.com/<USER>", "IBAN <IBAN>")
    page = feedback.show_pair(workspace, stored.pair_id)
    assert page.as_json()["masked"] == {"address": 1, "email": 2, "iban": 1, "user": 1}
    (line,) = feedback.list_pairs(workspace)
    assert line.as_json()["masked"] == {"address": 1, "email": 2}
    raw = b"".join(file.read_bytes() for file in workspace.root.glob("rlhf.db*"))
    assert not [word for word in (b"Baker", b"a@b.co", b"somebody", b"NO938") if word in raw]


def test_an_erased_labeler_cant_judge(workspace: Workspace) -> None:
    with workspace.write() as write:
        write.connection.execute(
            buried.insert().values(
                key=tombstones.key(workspace.key, "labeler", "u1", "web"), what="labeler", created_at="t"
            )
        )
    with pytest.raises(Forbidden):
        feedback.judge(workspace, VOTE, pair=PAIR)
    assert feedback.judge(workspace, replace(VOTE, labeler="u2"), pair=PAIR)


def test_judging_inside_a_transaction_goes_with_it(workspace: Workspace) -> None:
    feedback.judge(workspace, VOTE, pair=PAIR)
    with pytest.raises(RuntimeError), workspace.write() as write:
        feedback.judge_in(write, replace(VOTE, labeler="u2"))
        raise RuntimeError
    assert len(in_force(workspace)) == 1


def test_a_judgement_is_in_the_audit_log(workspace: Workspace) -> None:
    id = feedback.judge(workspace, VOTE, pair=PAIR)
    with workspace.read() as connection:
        assert [entry["actor"] for entry in audit.entries(connection, subject=id, action="feedback.judge")] == [
            "tester"
        ]


def test_the_commands_say_how_much_was_replaced_and_never_what(rlhf: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps({"prompt": "I am a@b.co", "chosen": "call +1 415-555-2671", "rejected": "no"}) + "\n")
    told = rlhf("feedback", "import", str(file)).out
    assert "personal data replaced: 1 email, 1 phone" in told
    id = rlhf.json("feedback", "list", "--source", "x")["pairs"][0]["id"]
    for words in (("list", "--source", "x"), ("show", id), ("receipts",)):
        said = rlhf("feedback", *words).out
        assert "replaced: 1 email, 1 phone" in said and "a@b.co" not in said and "555" not in said
