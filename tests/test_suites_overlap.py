"""Which rows of a suite a training has seen."""

from __future__ import annotations

from pathlib import Path

from snapshot_rows import judged, pair_of, put
from suite_files import bench_row, write

from rlhf import erasure, feedback, snapshots, suites
from rlhf.store import Workspace


def test_the_same_pair_and_the_same_opening_turn_are_seen_whatever_its_case(
    workspace: Workspace, tmp_path: Path
) -> None:
    file = write(tmp_path / "f.jsonl", [bench_row(i) for i in range(6)])
    feedback.import_files(workspace, [file])
    cut = snapshots.cut(workspace, "s", holdout=0.0)
    other = bench_row(0, prompt="HOW would you  do task number 0 of the list?", chosen="Quite another reply to it")
    rows = [bench_row(1), other, bench_row(99)]
    suite = suites.import_files(workspace, "b", [write(tmp_path / "b.jsonl", rows)]).suite
    side = suites.train_side(workspace, cut.digest)
    assert side is not None and side.ref == "s@1"
    seen = suites.seen_in(suite.groups(), [side])
    assert sorted(one.same_pair for one in seen) == [False, True] and {one.snapshot for one in seen} == {"s@1"}
    assert suites.train_side(workspace, "0" * 64) is None


def test_the_test_side_of_a_snapshot_is_not_seen(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(40)])
    snapshots.cut(workspace, "s", holdout=0.5)
    suite = suites.cut(workspace, "frozen", snapshot="s")
    assert suites.seen_in(suite.groups(), suites.train_sides(workspace).values()) == []
    snapshots.cut(workspace, "all", holdout=0.0)
    seen = suites.seen_in(suite.groups(), suites.train_sides(workspace).values())
    assert len(seen) == suite.entry.n_pairs and all(one.same_pair and one.snapshot == "all@1" for one in seen)


def test_what_was_erased_from_a_snapshot_is_still_known_to_have_been_trained_on(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(5)])
    cut = snapshots.cut(workspace, "s", holdout=0.0)
    suite = suites.cut(workspace, "frozen", snapshot="s", split="train", held_out=False)
    erasure.erase(workspace, "pair", pair_of(0).id)
    side = suites.train_side(workspace, cut.digest)
    assert side is not None and len(suites.seen_in(suite.groups(), [side])) == 5
