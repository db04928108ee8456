"""A mix holds all that is new, a seeded share of what was seen, and the whole test side; what is new is counted before a cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from preferences import write_polite

from rlhf import feedback, snapshots
from rlhf.errors import BadInput, BadUsage, NotFound
from rlhf.snapshots import Snapshot
from rlhf.store import Workspace

HOLDOUT = 0.3


def say(workspace: Workspace, folder: Path, n: int, seed: int) -> Snapshot:
    feedback.import_files(workspace, [write_polite(folder / f"{seed}.jsonl", n, seed)])
    return snapshots.cut(workspace, "hh", holdout=HOLDOUT)


@pytest.fixture
def two(workspace: Workspace, tmp_path: Path) -> tuple[Workspace, Snapshot, Snapshot]:
    return workspace, say(workspace, tmp_path, 40, 0), say(workspace, tmp_path, 20, 1)


def side(snapshot: Snapshot, split: str) -> set[str]:
    return {row.digest for row in snapshot.rows(split)}  # type: ignore[arg-type]


@pytest.mark.parametrize(("replay", "times"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (1000.0, None)])
def test_a_mix_is_the_new_rows_a_share_of_the_old_and_the_whole_test_side(
    two: tuple[Workspace, Snapshot, Snapshot], replay: float, times: float | None
) -> None:
    workspace, before, after = two
    made = snapshots.mix(workspace, "hh-mix", of="hh@2", seen=["hh@1"], replay=replay)
    new, old = side(after, "train") - side(before, "train"), side(before, "train")
    assert new and new <= side(made, "train") <= new | old
    replayed = len(side(made, "train") & old)
    assert replayed == (len(old) if times is None else round(times * len(new)))
    assert side(made, "test") == side(after, "test")
    assert made.rule["mix"]["new"] == len(new) and made.rule["mix"]["replayed"] == replayed
    assert f"{replayed:,} of the {len(old):,}" in made.card
    assert snapshots.open_snapshot(workspace, made.ref).digest == made.digest


def test_the_same_mix_again_is_the_cut_that_is_there_and_another_seed_is_another(
    two: tuple[Workspace, Snapshot, Snapshot],
) -> None:
    workspace = two[0]
    made = snapshots.mix(workspace, "m", of="hh@2", seen=["hh@1"], replay=0.5)
    assert snapshots.mix(workspace, "m", of="hh", seen=["hh@1"], replay=0.5) == made
    other = snapshots.mix(workspace, "m", of="hh@2", seen=["hh@1"], replay=0.5, seed=5)
    assert (other.ref, other.n_pairs) == ("m@2", made.n_pairs) and other.digest != made.digest


def test_a_judgement_more_makes_a_row_new(workspace: Workspace, tmp_path: Path) -> None:
    say(workspace, tmp_path, 40, 0)
    feedback.import_files(workspace, [tmp_path / "0.jsonl"], source="again")
    snapshots.cut(workspace, "hh", holdout=HOLDOUT)
    made = snapshots.mix(workspace, "m", of="hh@2", seen=["hh@1"], replay=0)
    assert made.splits["train"] == snapshots.open_snapshot(workspace, "hh@1").splits["train"]


def test_a_mix_of_nothing_new_is_refused(two: tuple[Workspace, Snapshot, Snapshot]) -> None:
    with pytest.raises(BadInput, match=r"hh@1 has no train pair that is not in hh@2"):
        snapshots.mix(two[0], "m", of="hh@1", seen=["hh@2"], replay=1)
    with pytest.raises(BadUsage, match="replay = -1"):
        snapshots.mix(two[0], "m", of="hh@2", seen=["hh@1"], replay=-1)
    with pytest.raises(NotFound):
        snapshots.mix(two[0], "m", of="hh@2", seen=["hh@9"], replay=1)
    assert not [entry for entry in snapshots.list_snapshots(two[0]) if entry.name == "m"]


def test_what_is_new_is_counted_on_the_train_side_without_a_cut(workspace: Workspace, tmp_path: Path) -> None:
    first = say(workspace, tmp_path, 40, 0)
    count = lambda since, **more: snapshots.count_new(workspace, since, holdout=HOLDOUT, **more)  # noqa: E731
    assert count(None) == first.splits["train"] and count("hh@1") == 0
    feedback.import_files(workspace, [write_polite(tmp_path / "1.jsonl", 20, 1)])
    assert len(snapshots.list_snapshots(workspace)) == 1
    n_new = count("hh@1")
    assert count("hh@1", sources=["1"]) == n_new and count("hh@1", sources=["0"]) == 0
    assert count("hh@1", kinds=["simulated"]) == 0
    after = snapshots.cut(workspace, "hh", holdout=HOLDOUT)
    assert n_new == after.splits["train"] - first.splits["train"] > 0
    feedback.import_files(workspace, [tmp_path / "1.jsonl"], source="again")  # the same pairs, judged once more
    assert count("hh@2") == n_new
