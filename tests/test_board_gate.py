"""The gate: what a safety item holds is in no new snapshot and in no labeler's queue until somebody else has cleared it."""

from __future__ import annotations

from typing import Any

import pytest
from snapshot_rows import judged, pair_of, put
from test_labeling_queue import add_pairs

from rlhf import board, labeling, people, snapshots
from rlhf.errors import BadInput, Conflict, Forbidden, NotFound
from rlhf.store import Workspace, audit


def reviewer(workspace: Workspace, name: str = "eva") -> Workspace:
    people.add(workspace, name, ["reviewer"])
    return workspace.as_actor(name)


def reported(workspace: Workspace, pair_id: str, **said: Any) -> board.Item:
    return board.add(workspace.as_actor("ada"), kind="safety", text="it tells how to hurt", pair=pair_id, **said)


def ids_in(snapshot: snapshots.Snapshot) -> set[str]:
    return {row.pair.id for row in snapshot.rows()}


def test_a_reported_pair_is_in_no_cut_until_cleared_then_is(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(10)])
    held = pair_of(3).id
    item = reported(workspace, held)
    assert item.is_held and item.status == "new" and item.risk == "high"
    first = snapshots.cut(workspace, "hh")
    assert held not in ids_in(first) and first.n_pairs == 9
    assert first.manifest["left_out"]["pairs_awaiting_safety_review"] == 1
    assert "1 pairs that a safety item holds" in first.card
    for status in ("done", "declined", "triaged"):
        board.change(workspace, item.id, {"status": status}, why="no matter")
        assert held not in ids_in(snapshots.cut(workspace, "hh"))
    cleared = board.change(reviewer(workspace), item.id, {"cleared": "yes"}, why="fiction, and said so")
    assert not cleared.is_held
    after = snapshots.cut(workspace, "hh")
    assert held in ids_in(after) and after.manifest["left_out"]["pairs_awaiting_safety_review"] == 0


def test_two_reports_of_a_pair_wait_for_both(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(4)])
    one, other = (reported(workspace, pair_of(1).id, given_by=who) for who in ("ada", "bob"))
    eva = reviewer(workspace)
    board.change(eva, one.id, {"cleared": "yes"}, why="fine")
    assert pair_of(1).id not in ids_in(snapshots.cut(workspace, "hh"))
    board.change(eva, other.id, {"cleared": "yes"}, why="fine")
    assert pair_of(1).id in ids_in(snapshots.cut(workspace, "hh"))


def test_nobody_clears_what_they_reported_nor_without_the_permission(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(0), "a")])
    people.add(workspace, "ada", ["reviewer"])
    people.add(workspace, "op", ["operator"])
    item = reported(workspace, pair_of(0).id)
    for who, why in (
        ("ada", "nobody clears what they reported"),
        ("op", "permission review"),
        ("nobody", "permission review"),
    ):
        for changes in ({"cleared": "yes"}, {"kind": "bug"}):
            with pytest.raises(Forbidden, match=why):
                board.change(workspace.as_actor(who), item.id, changes, why="fine")
    people.add(workspace, "gone", ["reviewer"])
    people.disable(workspace, "gone")
    with pytest.raises(Forbidden):
        board.change(workspace.as_actor("gone"), item.id, {"cleared": "yes"}, why="fine")
    with pytest.raises(BadInput, match="says why"):
        board.change(reviewer(workspace), item.id, {"cleared": "yes"}, why=" ")
    assert board.get(workspace, item.id).is_held and board.get(workspace, item.id).seq == item.seq


def test_who_made_it_a_safety_item_does_not_clear_it(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(0), "a")])
    item = board.add(workspace.as_actor("ada"), kind="bug", text="odd", pair=pair_of(0).id)
    assert not item.is_held
    eva, ben = reviewer(workspace), reviewer(workspace, "ben")
    assert board.change(eva, item.id, {"kind": "safety"}, why="worse than a bug").is_held
    with pytest.raises(Forbidden, match="nobody clears"):
        board.change(eva, item.id, {"cleared": "yes"}, why="fine after all")
    assert not board.change(ben, item.id, {"kind": "bug"}, why="a bug").is_held
    with pytest.raises(Conflict, match="holds nothing"):
        board.change(ben, item.id, {"cleared": "yes"}, why="again")


def test_a_clearing_is_in_the_log_and_in_the_audit_log_with_who_and_why(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(0), "a")])
    item = reported(workspace, pair_of(0).id)
    board.change(reviewer(workspace), item.id, {"cleared": "yes"}, why="ask ann@example.org, it is fiction")
    with workspace.read() as connection:
        events = board.log(connection, item.id)
        said = audit.entries(connection, action="board.clear")
        audit.verify(connection)
    assert [(e.action, e.who) for e in events] == [("set", "ada"), ("hold", "ada"), ("clear", "eva")]
    assert events[-1].why == "ask <EMAIL>, it is fiction" and events[1].pair_id == pair_of(0).id
    assert [(entry["actor"], entry["subject"]) for entry in said] == [("eva", item.id)]


def test_a_mix_of_an_older_snapshot_leaves_what_was_reported_since_out(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(12)])
    old = snapshots.cut(workspace, "old", holdout=0.3)
    put(workspace, [judged(pair_of(i), "b", source="later") for i in range(12, 30)])
    whole = snapshots.cut(workspace, "whole", holdout=0.3)
    named: dict[str, Any] = {"of": whole.ref, "seen": [old.ref], "replay": 1.0}
    before = snapshots.mix(workspace, "mixed", **named)
    held = sorted(ids_in(before))[0]
    item = reported(workspace, held)
    mixed = snapshots.mix(workspace, "mixed", **named)
    assert held in ids_in(before) and held not in ids_in(mixed)
    assert mixed.manifest["left_out"]["pairs_awaiting_safety_review"] == 1
    board.change(reviewer(workspace), item.id, {"cleared": "yes"}, why="fine")
    assert snapshots.mix(workspace, "mixed", **named).digest == before.digest


def test_a_count_of_new_judgements_is_of_what_a_cut_would_hold(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(6)])
    assert snapshots.count_new(workspace, None, holdout=0) == 6
    reported(workspace, pair_of(2).id)
    assert snapshots.count_new(workspace, None, holdout=0) == 5


def test_a_held_pair_is_drawn_by_reviewers_alone_and_is_not_counted_as_left(workspace: Workspace) -> None:
    made = add_pairs(workspace, 2)
    reported(workspace, made[0].id)
    task = labeling.next_task(workspace, "cas")
    assert task is not None and task.pair_id == made[1].id and task.n_left == 1
    labeling.answer(workspace, "cas", task.lease, "tie")
    assert labeling.next_task(workspace, "cas") is None and labeling.progress(workspace, "cas").n_left == 0
    reviewer(workspace)
    drawn = labeling.next_task(workspace, "eva")
    assert drawn is not None and drawn.pair_id == made[0].id


def test_who_has_the_pair_on_the_screen_keeps_it(workspace: Workspace) -> None:
    add_pairs(workspace, 1)
    task = labeling.next_task(workspace, "cas")
    assert task is not None
    board.report(workspace, "cas", task.lease, "safety", None)
    again = labeling.next_task(workspace, "cas")
    assert again is not None and again.lease == task.lease
    labeling.answer(workspace, "cas", task.lease, "both_bad")
    assert labeling.next_task(workspace, "bob") is None


def test_a_change_that_somebody_else_overtook_is_refused(workspace: Workspace) -> None:
    item = board.add(workspace, kind="bug", text="the page is slow")
    board.change(workspace, item.id, {"impact": 4}, why="often", expect=item.seq)
    with pytest.raises(Conflict, match="changed meanwhile"):
        board.change(workspace, item.id, {"impact": 2}, why="seldom", expect=item.seq)
    with pytest.raises(Conflict, match="like that already"):
        board.change(workspace, item.id, {"impact": "4"}, why="often")
    with pytest.raises(NotFound):
        board.change(workspace, "0" * 26, {"impact": 2}, why="none")
