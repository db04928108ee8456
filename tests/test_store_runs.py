"""Runs: what was started, with what, and how it ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.errors import BadInput, Conflict, NotFound
from rlhf.ids import clock_at, digest_of, now
from rlhf.store import Workspace, audit, runs
from rlhf.store.holding import holding


def test_a_run_is_recorded_from_start_to_end(workspace: Workspace) -> None:
    run = runs.start(workspace, "reward", "hh", None, {"epochs": 1})
    row = runs.show(workspace, run)
    assert (row.state, row.folder, row.settings, row.actor) == ("running", f"runs/{run}", {"epochs": 1}, "tester")
    assert (workspace.root / row.folder).is_dir() and row.ended_at is None
    runs.finish(workspace, run, "done", version_digest="a" * 64)
    row = runs.show(workspace, run)
    assert (row.state, row.version_digest) == ("done", "a" * 64) and row.ended_at is not None
    with workspace.read() as connection:
        assert [e["action"] for e in audit.entries(connection, subject=run)] == ["run.start", "run.done"]


def test_the_folder_is_relative_where_it_lies_inside(workspace: Workspace, tmp_path: Path) -> None:
    inside = runs.start(workspace, "reward", "hh", workspace.root / "runs" / "mine", {})
    outside = runs.start(workspace, "reward", "hh", tmp_path / "elsewhere", {})
    assert runs.show(workspace, inside).folder == "runs/mine"
    assert runs.show(workspace, outside).folder == str(tmp_path / "elsewhere")


def test_latest_finds_the_last_run_with_these_settings(workspace: Workspace) -> None:
    settings = {"epochs": 1, "name": "hh"}
    runs.start(workspace, "reward", "hh", None, settings)
    second = runs.start(workspace, "reward", "hh", None, dict(reversed(settings.items())))
    runs.start(workspace, "reward", "hh", None, {"epochs": 2})
    runs.start(workspace, "policy", "hh", None, settings)
    found = runs.latest(workspace, "reward", "hh", digest_of(settings))
    assert found is not None and found.id == second
    assert runs.latest(workspace, "reward", "other", digest_of(settings)) is None


def test_an_interrupted_run_goes_on_and_a_done_one_stays_done(workspace: Workspace) -> None:
    run = runs.start(workspace, "reward", "hh", None, {})
    runs.finish(workspace, run, "interrupted", error="Ctrl-C")
    assert runs.show(workspace, run).error == "Ctrl-C"
    runs.finish(workspace, run, "running")
    assert runs.show(workspace, run).ended_at is None and runs.show(workspace, run).error is None
    runs.finish(workspace, run, "done")
    with pytest.raises(Conflict, match="done already"):
        runs.finish(workspace, run, "failed")
    assert runs.show(workspace, run).state == "done"


def test_runs_are_found_by_the_beginning_of_their_id(workspace: Workspace) -> None:
    first, second = (runs.start(workspace, "reward", "hh", None, {}) for _ in range(2))
    assert [row.id for row in runs.list_runs(workspace)] == sorted([first, second])
    assert runs.show(workspace, second[:-1] + second[-1].upper()).id == second
    with pytest.raises(NotFound, match="more than one"):
        runs.show(workspace, first[:2])
    for unknown in ("zzz", "%", "_"):
        with pytest.raises(NotFound, match="no run"):
            runs.show(workspace, unknown)
    with pytest.raises(BadInput):
        runs.show(workspace, "")
    with pytest.raises(NotFound):
        runs.finish(workspace, "zzz", "done")


def test_a_run_with_settings_that_are_no_json_is_refused_whole(workspace: Workspace) -> None:
    with pytest.raises((ValueError, TypeError)):
        runs.start(workspace, "reward", "hh", None, {"x": float("nan")})
    assert runs.list_runs(workspace) == ()


def test_a_run_is_lost_where_no_process_holds_its_lock(workspace: Workspace) -> None:
    with clock_at(now().timestamp() - 3600):
        run = runs.start(workspace, "reward", "hh", None, {})
    row = runs.show(workspace, run)
    lock = workspace.root / row.folder / runs.LOCK_FILE
    assert runs.state_now(workspace, row) == "lost"  # an hour on, and it never took its lock
    with holding(lock, "reward hh"):
        assert runs.state_now(workspace, row) == "running"
    assert runs.state_now(workspace, row) == "lost" and runs.show(workspace, run).state == "running"
    runs.finish(workspace, run, "interrupted")
    assert runs.state_now(workspace, runs.show(workspace, run)) == "interrupted"
    with holding(lock, "reward hh"):  # resumed
        assert runs.state_now(workspace, runs.show(workspace, run)) == "running"
        runs.finish(workspace, run, "done")
        assert runs.state_now(workspace, runs.show(workspace, run)) == "done"


def test_a_run_that_was_just_started_is_not_lost_yet_nor_one_on_another_machine(
    workspace: Workspace, tmp_path: Path
) -> None:
    just = runs.show(workspace, runs.start(workspace, "reward", "hh", None, {}))
    assert runs.state_now(workspace, just) == "running"
    with clock_at(1.0e9):
        far = runs.start(workspace, "reward", "hh", tmp_path / "far", {})
    (tmp_path / "far").rmdir()
    assert runs.state_now(workspace, runs.show(workspace, far)) == "running"


def test_a_cancelled_run_may_go_on(workspace: Workspace) -> None:
    run = runs.start(workspace, "reward", "hh", None, {})
    runs.finish(workspace, run, "cancelled", error="killed by ann")
    runs.finish(workspace, run, "running")
    runs.finish(workspace, run, "done")
    with pytest.raises(Conflict, match="done already"):
        runs.finish(workspace, run, "cancelled")
