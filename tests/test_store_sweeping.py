"""gc removes what crashes left and what can be made again, and nothing that anything names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import adapter_folders as made
import pytest
from sqlalchemy import insert

from rlhf.errors import Conflict
from rlhf.ids import digest_text, new_id, now, now_text
from rlhf.registry import aliases, verify
from rlhf.store import Workspace, audit, runs, tables
from rlhf.store.cache import STATES, Cache
from rlhf.store.heavy import heavy
from rlhf.store.holding import holding
from rlhf.store.sweeping import sweep

DAY_S = 24 * 3600


def _age(path: Path, days: float = 2) -> Path:
    """As if it had been written so long ago."""
    for entry in (path, *path.rglob("*")):
        os.utime(entry, times=(now().timestamp() - days * DAY_S,) * 2)
    return path


def _write(path: Path, text: str = "12345678") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def _everything(workspace: Workspace) -> set[str]:
    return {str(f.relative_to(workspace.root)) for f in workspace.root.rglob("*") if "rlhf.db" not in f.name}


LEFT: dict[str, Callable[[Path], Path]] = {
    "a publication's staging": lambda root: _write(root / "cache" / "staging" / new_id() / "a" / "b").parent.parent,
    "a base half added": lambda root: _write(root / "bases" / f".tiny.{new_id()}" / "config.json").parent,
    "a temporary folder": lambda root: _write(root / "cache" / "tmpab12" / "votes.jsonl").parent,
    "pairs half offered": lambda root: _write(root / "cache" / f"0123abcd.{new_id()}.jsonl"),
    "replies half kept": lambda root: _write(root / "cache" / "replies" / f"ab12.json.{new_id()}"),
    "an export half written": lambda root: _write(root / f".out.csv.{new_id()}.new"),
    "a run's file half written": lambda root: _write(root / "runs" / new_id() / "state.new"),
}


@pytest.mark.parametrize("what", LEFT)
def test_what_a_crash_left_goes_after_a_day(workspace: Workspace, what: str) -> None:
    left = LEFT[what](workspace.root)
    before = _everything(workspace)
    assert sweep(workspace).n_bytes == 0 and _everything(workspace) == before  # somebody may be at work on it
    _age(left)
    dry = sweep(workspace, dry_run=True)
    assert _everything(workspace) == before
    swept = sweep(workspace)
    assert swept.kinds == dry.kinds
    assert swept.kinds["leftovers"].paths == (str(left.relative_to(workspace.root)),)
    assert swept.n_bytes == 8 and not left.exists()


def test_a_folder_in_which_somebody_writes_stays(workspace: Workspace) -> None:
    folder = workspace.root / "cache" / "staging" / new_id()
    _write(folder / "old")
    _age(folder)
    _write(folder / "new")
    sweep(workspace)
    assert (folder / "old").exists()


def test_people_s_own_files_stay(workspace: Workspace) -> None:
    own = [
        _write(workspace.root / name) for name in ("mine.csv", "notes.new", "loop.yaml", "out/hh/adapter_config.json")
    ]
    own += [_write(workspace.root / "cache" / "replies" / "ab12.json")]
    own += [_write(workspace.root / "cache" / "rewriting" / "ab12.json")]  # an erasure's note of what it has to record
    for file in own:
        _age(file)
    assert sweep(workspace).n_bytes == 0 and all(file.exists() for file in own)


def test_what_was_published_stays_whatever_names_it(workspace: Workspace, tmp_path: Path) -> None:
    first = made.published(workspace, tmp_path, 0)
    made.published(workspace, tmp_path, 1, parents=(("from", first.digest),))
    made.report(workspace, "ab12" * 16)
    aliases.move(workspace, "hh@champion", "hh@2", why="up")
    with workspace.write() as write:
        write.connection.execute(tables.versions.update().values(retired_at=now_text()))
    root = Path(workspace.artifacts.root)
    _age(root)
    before = _everything(workspace)
    assert sweep(workspace).n_bytes == 0 and _everything(workspace) == before
    assert verify(workspace).ok


def test_what_was_never_published_goes_and_its_neighbours_stay(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 0)
    root = Path(workspace.artifacts.root)
    for name in (
        "versions/hh/2/adapter_model.safetensors",
        "versions/hh/2/more/card.md",
        "snapshots/hh/1/rows.parquet",
    ):
        _write(root / name)
    stranger = _write(root / "versions" / "hh" / "1" / "added.txt")  # damage, which verify names; not ours to take away
    _age(root)
    assert len(verify(workspace).leftovers) >= 2
    swept = sweep(workspace)
    assert swept.kinds["unpublished"].paths == ("artifacts/snapshots/hh/1", "artifacts/versions/hh/2")
    assert swept.n_bytes == 24 and stranger.exists()
    stranger.unlink()
    assert verify(workspace).ok and not verify(workspace).leftovers


def test_checkpoints_of_done_runs_go_and_those_that_a_resume_reads_stay(workspace: Workspace) -> None:
    folders = {}
    for state in ("done", "interrupted", "failed", "cancelled"):
        run = runs.start(workspace, "reward", "hh", None, {"state": state})
        folders[state] = workspace.root / "runs" / run
        _write(folders[state] / "checkpoints" / "checkpoint-3" / "whole")
        _write(folders[state] / "metrics.jsonl")
        runs.finish(workspace, run, state)  # type: ignore[arg-type]
    lost = runs.start(workspace, "reward", "hh", None, {"state": "lost"})
    folders["lost"] = workspace.root / "runs" / lost
    _write(folders["lost"] / "checkpoints" / "checkpoint-3" / "whole")
    _write(folders["lost"] / "lock")
    swept = sweep(workspace)
    assert {state for state, folder in folders.items() if (folder / "checkpoints").exists()} == set(folders) - {"done"}
    assert (folders["done"] / "metrics.jsonl").exists()
    assert swept.kinds["checkpoints"].n_bytes == 8 == swept.n_bytes


def test_a_done_run_s_folder_outside_of_runs_is_its_owner_s(workspace: Workspace, tmp_path: Path) -> None:
    for folder in (tmp_path / "mine", workspace.root / "mine"):
        _write(folder / "checkpoints" / "x")
        runs.finish(workspace, runs.start(workspace, "reward", "hh", folder, {}), "done")
    sweep(workspace)
    assert (tmp_path / "mine" / "checkpoints" / "x").exists() and (
        workspace.root / "mine" / "checkpoints" / "x"
    ).exists()


def test_states_above_the_bound_go_oldest_first(workspace: Workspace) -> None:
    cache = Cache(workspace.root / STATES, 2**30)
    for n in range(4):
        cache.put(f"{n}" * 8, "ab", bytes(968))  # 1,000 with its checksum
        _age(workspace.root / STATES / f"{n}{n}" / (f"{n}" * 8) / "ab", days=4 - n)
    assert sweep(workspace).n_bytes == 0
    swept = sweep(workspace, states_gib=2500 / 2**30)
    assert swept.kinds["states"].n_bytes == 2000
    kept = Cache(workspace.root / STATES, 2**30)
    assert [kept.get(f"{n}" * 8, "ab") is not None for n in range(4)] == [False, False, True, True]


def test_bases_that_no_version_uses_are_listed_and_stay(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 0)  # on a base with this digest
    for name, digest in (("used", made.BASE_DIGEST), ("unused", digest_text("another"))):
        _write(workspace.root / "bases" / name / "config.json")
        row = {"name": name, "digest": digest, "path": f"bases/{name}", "origin": "{}", "details": "{}"}
        with workspace.write() as write:
            write.connection.execute(insert(tables.bases).values(**row, actor="tester", created_at=now_text()))
    assert sweep(workspace).unused_bases == {"unused": 8}
    assert (workspace.root / "bases" / "unused" / "config.json").exists()


def test_nothing_is_swept_while_a_run_is_under_way(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    left = _age(LEFT["a temporary folder"](workspace.root))
    with holding(workspace.root / "runs" / "heavy.lock", "reward hh"), pytest.raises(Conflict, match="busy with"):
        sweep(workspace)
    monkeypatch.setenv("RLHF_HEAVY_JOBS", "2")  # a free slot is no leave to sweep
    run = runs.start(workspace, "reward", "hh", None, {})
    with (
        holding(workspace.root / "runs" / "heavy.lock", "reward hh"),
        holding(workspace.root / "runs" / run / runs.LOCK_FILE, f"run {run}"),
        pytest.raises(Conflict, match=f"run {run}"),
    ):
        sweep(workspace)
    assert left.exists()
    runs.finish(workspace, run, "interrupted")
    with heavy(workspace, "reward hh"):
        assert sweep(workspace, dry_run=True).n_bytes == 8  # only to look disturbs nobody
    sweep(workspace)
    assert not left.exists()


def test_a_sweep_is_written_down_and_a_dry_run_is_not(workspace: Workspace) -> None:
    _age(LEFT["a temporary folder"](workspace.root))
    sweep(workspace, dry_run=True)
    sweep(workspace)
    with workspace.read() as connection:
        (entry,) = audit.entries(connection, action="workspace.gc")
    assert entry["details"] == {"leftovers": 8, "checkpoints": 0, "states": 0, "unpublished": 0}
