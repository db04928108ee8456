"""Checking: leaks, contradictions, copies and lengths are counted with examples."""

from __future__ import annotations

import pytest
from snapshot_rows import judged, pair_of, put

from rlhf import ids, snapshots
from rlhf.records import Pair
from rlhf.store import Workspace

LONG = "Tell me in some detail how a person of my age should go about learning to sail a small boat in a windy place"


def _sided(seed: int, holdout: float, side: str, *, like: str = "", start: int = 0) -> Pair:
    """A pair that the split puts on `side`; its opening begins with `like`."""
    for i in range(start, start + 1000):
        pair = pair_of(i, opening=f"{like} {i}")
        if (ids.unit_interval(seed, pair.group) < holdout) == (side == "test"):
            return pair
    raise AssertionError("no opening falls on that side")


def test_no_opening_leaks_and_the_rows_are_counted(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(40)])
    snapshots.cut(workspace, "hh", holdout=0.4)
    found = snapshots.check(workspace, "hh")
    assert found.pairs == found.searched == 40
    assert {name: f.count for name, f in found.leaks.items()} == {"openings": 0, "replies": 0, "near_prompts": 0}


def test_a_reply_on_both_sides_is_counted(workspace: Workspace) -> None:
    one, other = _sided(0, 0.5, "train"), _sided(0, 0.5, "test")
    put(
        workspace,
        [
            judged(Pair.of(one.prompt, "I can't  help", "x"), "a"),
            judged(Pair.of(other.prompt, "i CAN'T help", "y"), "a"),
        ],
    )
    snapshots.cut(workspace, "hh", holdout=0.5)
    found = snapshots.check(workspace, "hh").leaks["replies"]
    assert found.count == 1 and found.examples == (Pair.of(other.prompt, "i CAN'T help", "y").id,)


def test_a_prompt_that_is_nearly_one_of_the_other_side_is_counted(workspace: Workspace) -> None:
    train, test = _sided(0, 0.5, "train", like=LONG), _sided(0, 0.5, "test", like=LONG)
    far = _sided(0, 0.5, "test", like="Something else entirely, about bread")
    put(workspace, [judged(pair, "a") for pair in (train, test, far)])
    snapshots.cut(workspace, "hh", holdout=0.5)
    found = snapshots.check(workspace, "hh").leaks
    assert found["openings"].count == 0
    assert found["near_prompts"].count == 1 and found["near_prompts"].examples == (test.id,)


def test_contradictions_are_told_apart(workspace: Workspace) -> None:
    put(
        workspace,
        [
            judged(pair_of(0), "a", labeler="w"),
            judged(pair_of(0), "b", labeler="w"),
            judged(pair_of(1), "a"),
            judged(pair_of(1), "b"),
            judged(pair_of(2), "a", labeler="w"),
            judged(pair_of(2), "b", labeler="w", source="t"),
            judged(pair_of(3), "a", labeler="w"),
            judged(pair_of(3), "b", labeler="v"),
        ],
    )
    snapshots.cut(workspace, "hh")
    found = snapshots.check(workspace, "hh").contradictions
    assert {name: f.examples for name, f in found.items()} == {
        "same_labeler": (pair_of(0).id,),
        "unknown_labelers": (pair_of(1).id,),
        "between_sources": (pair_of(2).id,),
    }


def test_copies_and_shared_prompts_are_counted(workspace: Workspace) -> None:
    words = " ".join(f"word{i}" for i in range(60))
    rows = [
        judged(pair_of(0, replies=(words, "no")), "a"),
        judged(pair_of(0, replies=(words + " more", "no")), "a"),
        judged(pair_of(1, replies=("quite another matter, said at length", "yes, well")), "a"),
    ]
    put(workspace, rows)
    snapshots.cut(workspace, "hh")
    found = snapshots.check(workspace, "hh").copies
    assert found["same_prompt"].count == 2 and found["near_pairs"].count == 1


def test_too_long_pairs_need_a_way_to_count_tokens(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i, replies=("w " * (10 * i + 5), "no")), "a") for i in range(10)])
    snapshots.cut(workspace, "hh")
    without = snapshots.check(workspace, "hh", max_tokens=50)
    assert without.too_long is None and "--base" in (without.too_long_reason or "")
    found = snapshots.check(
        workspace,
        "hh",
        max_tokens=50,
        count_tokens=lambda row: max(len(row.pair.reply_a.split()), len(row.pair.reply_b.split())),
    )
    assert found.too_long is not None and found.too_long.count == 5 and found.too_long_reason is None
    assert found.lengths["tokens"]["max"] == 95.0
    assert found.lengths["reply_characters"]["max"] == 190.0


def test_a_check_verifies_every_row_first(workspace: Workspace) -> None:
    from rlhf.errors import Damaged

    put(workspace, [judged(pair_of(0), "a")])
    made = snapshots.cut(workspace, "hh")
    made.shards[0].write_bytes(b"PAR1")
    with pytest.raises(Damaged):
        snapshots.check(workspace, "hh")
