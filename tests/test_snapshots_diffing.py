"""What differs between two cuts."""

from __future__ import annotations

from snapshot_rows import judged, pair_of, put

from rlhf import snapshots
from rlhf.store import Workspace


def test_a_cut_equals_itself_cut_again(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(12)])
    snapshots.cut(workspace, "hh")
    snapshots.cut(workspace, "hh")
    found = snapshots.diff(workspace, "hh@1", "hh@2")
    assert found.same_digest and found.unchanged == 12 and not any(found.counts.values())


def test_added_rows_and_judgements_are_told_from_unchanged_ones(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(12)])
    snapshots.cut(workspace, "hh")
    more = [judged(pair_of(0), "b", labeler="w"), judged(pair_of(1), "a", source="t"), judged(pair_of(50), "a")]
    put(workspace, more)
    snapshots.cut(workspace, "hh")
    there, back = snapshots.diff(workspace, "hh@1", "hh@2"), snapshots.diff(workspace, "hh@2", "hh@1")
    assert there.counts == {"added": 1, "removed": 0, "side_moved": 0, "judgements_changed": 2, "sources_changed": 1}
    assert there.unchanged == back.unchanged == 10
    assert there.examples["added"] == (pair_of(50).id,) == back.examples["removed"]
    assert there.examples["sources_changed"] == (pair_of(1).id,)


def test_another_seed_moves_sides_and_nothing_else(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(60)])
    one, other = snapshots.cut(workspace, "one", holdout=0.5), snapshots.cut(workspace, "other", holdout=0.5, seed=1)
    sides = {row.pair.id: row.split for row in one.rows()}
    moved = sum(sides[row.pair.id] != row.split for row in other.rows())
    found = snapshots.diff(workspace, "one", "other")
    assert found.counts["side_moved"] == moved > 5 and found.unchanged == 60 - moved
    assert found.counts["judgements_changed"] == found.counts["added"] == found.counts["removed"] == 0
