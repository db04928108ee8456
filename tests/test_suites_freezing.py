"""A suite cut from a snapshot's side."""

from __future__ import annotations

from pathlib import Path

import pytest
from snapshot_rows import judged, pair_of, put

from rlhf import snapshots, suites
from rlhf.errors import BadInput, BadUsage
from rlhf.store import Workspace
from rlhf.store.backup import back_up
from rlhf.store.restoring import restore
from rlhf.store.sweeping import sweep
from rlhf.store.tables import suites as table


def cut_snapshot(workspace: Workspace) -> snapshots.Snapshot:
    rows = [judged(pair_of(i), "a", source="even" if i % 2 == 0 else "odd") for i in range(30)]
    rows += [judged(pair_of(100 + i), "b", consent=("train",)) for i in range(20)]
    put(workspace, rows)
    return snapshots.cut(workspace, "s", holdout=0.5)


def test_a_suite_from_a_snapshot_is_its_side_with_the_sources_as_strata(workspace: Workspace) -> None:
    cut = cut_snapshot(workspace)
    made = suites.cut(workspace, "frozen", snapshot="s")
    assert {row.pair.id for row in made.rows()} == {row.pair.id for row in cut.rows("test")}
    assert set(made.strata) == {"even", "odd"} and made.entry.origin["snapshot_digest"] == cut.digest
    assert suites.cut(workspace, "again", snapshot="s").digest == made.digest


def test_who_agreed_to_training_alone_is_not_measured_on(workspace: Workspace) -> None:
    cut = cut_snapshot(workspace)
    made = suites.cut(workspace, "trained", snapshot="s", split="train", held_out=False)
    only_train = sum(row.judgements[0].consent == ("train",) for row in cut.rows("train"))
    assert only_train > 0 and made.manifest["left_out"] == {"without_consent_or_verdict": only_train}
    assert not made.entry.held_out


def test_a_train_side_is_never_held_out_nor_is_one_that_was_frozen_as_such_before(workspace: Workspace) -> None:
    cut_snapshot(workspace)
    made = suites.cut(workspace, "trained", snapshot="s", split="train")
    assert not made.entry.held_out and made.manifest["held_out"] is False
    said_so = suites.cut(workspace, "trained", snapshot="s", split="train", held_out=False)
    assert said_so.digest == made.digest
    with workspace.write() as write:
        write.connection.execute(table.update().values(held_out=1))
    old = suites.open_suite(workspace, "trained@1")
    assert old.digest == made.digest and not old.entry.held_out and old.manifest["held_out"] is False
    assert not any(entry.held_out for entry in suites.list_suites(workspace))


def test_a_side_without_pairs_is_refused(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(5)])
    snapshots.cut(workspace, "whole", holdout=0.0)
    with pytest.raises(BadInput, match="no pair in its test split"):
        suites.cut(workspace, "frozen", snapshot="whole")
    with pytest.raises(BadUsage, match="no split 'dev'"):
        suites.cut(workspace, "frozen", snapshot="whole", split="dev")


def test_backups_hold_suites_and_a_sweep_leaves_them(workspace: Workspace, tmp_path: Path) -> None:
    cut_snapshot(workspace)
    made = suites.cut(workspace, "frozen", snapshot="s")
    sweep(workspace)
    assert suites.open_suite(workspace, "frozen").digest == made.digest
    with workspace.read() as connection:
        n_files, wrong, left = workspace.artifacts.verify_all(connection)
    assert n_files > 0 and not wrong and not left
    back_up(workspace, tmp_path / "copy")
    restore(tmp_path / "copy", tmp_path / "restored")
    there = Workspace.open(tmp_path / "restored", actor="tester")
    assert [row.digest for row in suites.open_suite(there, "frozen").rows()] == [row.digest for row in made.rows()]
    there.close()
