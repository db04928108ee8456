"""Items: what is collected, how its kind is guessed and by which rule, and what became of it; on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapter_folders import published
from command_line import CommandLine
from snapshot_rows import judged, pair_of, put
from sqlalchemy import select
from test_labeling_queue import add_pairs
from test_store_postgres import new_database  # noqa: F401

from rlhf import board, feedback, labeling, people, snapshots
from rlhf.board.guessing import OTHERWISE, RULES, guess
from rlhf.erasure import erase
from rlhf.errors import BadInput, BadUsage, NotFound
from rlhf.registry import aliases
from rlhf.store import Workspace
from rlhf.store.tables import item_events, items


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A workspace on each database."""
    if request.param == "sqlite":
        made = Workspace.create(tmp_path / "one", actor="tester")
    else:
        new: Callable[[], str] = request.getfixturevalue("new_database")
        made = Workspace.create(tmp_path / "team", database=new(), actor="tester")
    yield made
    made.close()


SAID = [
    ("The answer is dangerous, it could poison someone", "safety", "safety words"),
    ("The reply was cut off in the middle", "bug", "bug words"),
    ("It would be nice to have tables", "feature", "feature words"),
    ("Too long for me", "preference", "no other rule's words"),
]


def said_file(path: Path) -> Path:
    rows = [
        {"prompt": f"Q{i}?", "reply": f"R{i}.", "user": f"u{i}", "comment": text} for i, (text, _, _) in enumerate(SAID)
    ]
    rows.append({"prompt": "Q9?", "reply": "R9.", "user": "u9", "thumb": "up"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(("text", "kind", "rule"), SAID)
def test_a_guess_names_its_rule(text: str, kind: str, rule: str) -> None:
    assert (guess(text).kind, guess(text).name) == (kind, rule)
    assert len({r.name for r in (*RULES, OTHERWISE)}) == len(RULES) + 1


def test_comments_with_words_become_items_once_and_wait_for_a_person(store: Workspace, tmp_path: Path) -> None:
    feedback.import_files(store, [said_file(tmp_path / "said.jsonl")])
    told = board.collect(store)
    assert told.n_new == 4 and dict(told.by_rule) == {rule: 1 for _, _, rule in SAID}
    assert board.collect(store).n_new == 0
    found = board.list_items(store)
    assert {(item.text, item.kind, item.rule) for item in found} == set(SAID)
    assert {(item.status, item.channel, item.about) for item in found} == {("new", "said", "comment")}
    assert found[0].kind == "safety" and found[0].is_held, "what waits for an expert stands first"
    with store.read() as connection:
        assert set(connection.execute(select(items.c.body)).scalars()) == {None}, "its words stand in the comment alone"
        first = board.log(connection, found[0].id)[0]
    assert first.why == "guessed by the rule: safety words" and first.who == "tester"
    changed = board.change(store, found[-1].id, {"kind": "bug", "status": "triaged"}, why="read it")
    assert (changed.kind, changed.status) == ("bug", "triaged")
    assert board.count(store)["bug"]["triaged"] == 1 and sum(board.count(store)["safety"].values()) == 1


def test_a_held_comment_holds_the_pairs_that_were_and_will_be_made_of_it(store: Workspace, tmp_path: Path) -> None:
    def rating(reply: str, value: int, text: str | None = None) -> dict[str, Any]:
        said = {"comment": text} if text else {}
        return {"prompt": "Name a river.", "reply": reply, "rating": value, "scale": "1-5", "labeler": "ann", **said}

    for name, rows in (
        ("one", [rating("The Rhine.", 5), rating("Drink bleach.", 1, "this is harmful")]),
        ("two", [rating("The Po.", 4)]),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    feedback.import_files(store, [tmp_path / "one.jsonl"], source="chat")
    told = board.collect(store)
    assert told.n_held == 1
    feedback.import_files(store, [tmp_path / "two.jsonl"], source="chat")
    cut = snapshots.cut(store, "chat", holdout=0)
    assert cut.n_pairs == 1 and cut.manifest["left_out"]["pairs_awaiting_safety_review"] == 2
    assert board.collect(store).n_held == 1, "the later pair stands in the log now, too"
    assert board.collect(store).n_held == 0
    people.add(store, "eva", ["reviewer"])
    (item,) = board.list_items(store, kind="safety")
    board.change(store.as_actor("eva"), item.id, {"cleared": "yes"}, why="a joke")
    assert snapshots.cut(store, "chat", holdout=0).n_pairs == 3


def test_what_became_of_it_is_read_from_rows_and_lineage(workspace: Workspace, tmp_path: Path) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(6)])
    item = board.add(workspace.as_actor("ada"), kind="bug", text="odd", pair=pair_of(2).id)
    assert board.outcomes(workspace, [item])[item.id] == board.Outcome()
    train, test = (snapshots.cut(workspace, name, holdout=share) for name, share in (("all", 0), ("held", 0.99)))
    version = published(workspace, tmp_path, 0, snapshot_digest=train.digest)
    child = published(workspace, tmp_path, 1, parents=(("from", version.digest),))
    measured = published(workspace, tmp_path, 2, snapshot_digest=test.digest)
    aliases.move(workspace, "hh@champion", str(child), why="up")
    outcome = board.outcomes(workspace, [item])[item.id]
    assert [(s.names, s.split) for s in outcome.snapshots] == [(("all@1",), "train"), (("held@1",), "test")]
    assert [(v.version, v.aliases) for v in outcome.versions] == [(str(version), ()), (str(child), ("hh@champion",))]
    assert str(measured) not in {v.version for v in outcome.versions}, "what is only measured on teaches nothing"
    with workspace.read() as connection:
        words = " ".join(board.told(item, board.log(connection, item.id), outcome))
    assert "part of the snapshot all@1, to learn from" in words and f"{version} learnt from it" in words
    assert "hh@champion is that version now" in words and pair_of(2).id[:12] not in words


def test_links_are_checked_and_told(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(0), "a")])
    item = board.add(workspace, kind="feature", text="tables, please")
    with pytest.raises(NotFound):
        board.change(workspace, item.id, {"snapshot": "hh"}, why="in it")
    snapshots.cut(workspace, "hh", holdout=0)
    done = board.change(workspace, item.id, {"snapshot": "hh", "status": "done"}, why="more tables in the data")
    with workspace.read() as connection:
        words = board.told(done, board.log(connection, item.id), board.Outcome())
    assert "It went into the snapshot hh@1." in words and "Why: more tables in the data" in words


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"impact": "6"}, "impact = '6'"), ({"effort": True}, "effort"), ({"status": "lost"}, "status = 'lost'"),
        ({"kind": "rant"}, "kind = 'rant'"), ({"colour": "red"}, "no colour"), ({}, "nothing is to be set"),
        ({"cleared": "no"}, "cleared = 'no'"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_refused_and_changes_nothing(workspace: Workspace, changes: dict[str, Any], seen: str) -> None:
    item = board.add(workspace, kind="bug", text="odd")
    with pytest.raises(BadUsage, match=seen):
        board.change(workspace, item.id, changes, why="so")
    assert board.get(workspace, item.id) == item


def test_an_owner_is_somebody_here(workspace: Workspace) -> None:
    item = board.add(workspace, kind="bug", text="odd")
    with pytest.raises(NotFound, match="nobody here"):
        board.change(workspace, item.id, {"owner": "eva"}, why="hers")
    people.add(workspace, "eva", ["reviewer"])
    assert board.change(workspace, item.id, {"owner": "eva"}, why="hers").owner == "eva"
    assert board.change(workspace, item.id, {"owner": "none"}, why="on leave").owner is None


def test_texts_are_masked_and_bounded_and_the_same_again_is_one(workspace: Workspace) -> None:
    one = board.add(workspace, kind="bug", text=" write to ann@example.org ")
    assert one.text == "write to <EMAIL>"
    assert board.add(workspace, kind="bug", text="write to ann@example.org").id == one.id
    for text in ("x" * 4001, "\x00", "\ud800", " ", None):
        with pytest.raises(BadInput):
            board.add(workspace, kind="bug", text=text)
    with pytest.raises(BadInput, match="e-mail"):
        board.add(workspace, kind="bug", text="odd", given_by="ann@example.org")


def test_an_erased_labelers_report_says_nothing_more_and_holds_on(workspace: Workspace) -> None:
    made = add_pairs(workspace, 2)
    task = labeling.next_task(workspace, "ada")
    assert task is not None
    item = board.report(workspace, "ada", task.lease, "safety", "it says what my neighbour did to me")
    labeling.answer(workspace, "ada", task.lease, "both_bad")
    erase(workspace, "labeler", "ada", source="web")
    with workspace.read() as connection:
        events = board.log(connection, item.id)
        rows = [*connection.execute(select(items)).all(), *connection.execute(select(item_events)).all()]
    assert not any("ada" in str(row).replace("task", "") or "neighbour" in str(row) for row in rows)
    left = board.get(workspace, item.id)
    assert left.is_held and left.text is None and len(events) == 2 and task.pair_id in {p.id for p in made}
    erase(workspace, "pair", task.pair_id)
    assert board.get(workspace, item.id).text is None


def test_a_reason_that_was_erased_is_not_told_as_none(workspace: Workspace) -> None:
    add_pairs(workspace, 1)
    task = labeling.next_task(workspace, "ada")
    assert task is not None
    item = board.report(workspace, "ada", task.lease, "safety", "it says what my neighbour did to me")
    people.add(workspace, "eva", ["reviewer"])
    board.change(workspace.as_actor("eva"), item.id, {"cleared": True, "status": "done"}, why="ada is fine with it")
    labeling.answer(workspace, "ada", task.lease, "tie")
    erase(workspace, "labeler", "ada", source="web")
    item = board.get(workspace, item.id)
    with workspace.read() as connection:
        told = board.told(item, board.log(connection, item.id), board.Outcome())
    assert told[-1].startswith("Cleared by an expert on ") and told[-1].endswith(f"{item.changed_at[:10]}.")
    assert not any("None" in line for line in told)


def test_the_command_line_goes_the_whole_road(rlhf: CommandLine) -> None:
    """A report on a pair that a version was trained on: told so, left out of the next cut, cleared by another, in again."""
    pair = rlhf.json("feedback", "list")["pairs"][0]["id"]
    n_before = rlhf.json("snapshot", "cut", "before", "--holdout", "0")["pairs"]
    made = rlhf.json("board", "add", "--kind", "safety", "--pair", pair, "--text", "it harms")
    assert rlhf.json("board", "list")["items"][0]["id"] == made["id"] and made["is_held"]
    cut = rlhf.json("snapshot", "cut", "after", "--holdout", "0")
    assert cut["pairs"] == n_before - 1 and cut["left_out"]["pairs_awaiting_safety_review"] == 1
    changed = rlhf.json("board", "set", made["id"], "status=triaged", "impact=4", "effort=2", "--why", "seen")
    assert (changed["status"], changed["impact"], changed["effort"]) == ("triaged", 4, 2)
    shown = rlhf.json("board", "show", made["id"])
    assert [entry["why"] for entry in shown["log"]] == [None, None, "seen"] and shown["pairs"] == [pair]
    assert "before@1" in {name for snapshot in shown["snapshots"] for name in snapshot["names"]}
    refused = rlhf("board", "set", made["id"], "cleared=yes", "--why", "fine", "--json")
    assert refused.status == 1 and "permission review" in refused.error["message"]
    rlhf.json("people", "add", "eva", "--role", "reviewer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHF_ACTOR", "eva")
        assert not rlhf.json("board", "set", made["id"], "cleared=yes", "--why", "fine")["is_held"]
    assert rlhf.json("snapshot", "cut", "after", "--holdout", "0")["pairs"] == n_before
    assert "Cleared by an expert" in rlhf("board", "show", made["id"]).out
    assert rlhf("board", "set", made["id"], "status", "--why", "fine").status == 2
    assert rlhf.json("board", "collect") == {"new": 0, "held": 0, "by_rule": {}}
