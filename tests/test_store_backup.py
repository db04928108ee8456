"""A backup is the workspace at one moment, whoever writes meanwhile; it appears whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import adapter_folders as made
import pytest
from sqlalchemy import func, select

from rlhf.errors import BadUsage, Conflict, Damaged
from rlhf.feedback import import_files
from rlhf.registry import verify
from rlhf.store import Workspace, audit, runs, tables
from rlhf.store import backup as backups
from rlhf.store.backup import MANIFEST, NoRoom, back_up
from rlhf.store.restoring import restore

_SLOW = """
import sys, time
from rlhf.store import Workspace, backup
workspace = Workspace.open(sys.argv[1])
def told(done, total):
    print(done, flush=True)
    time.sleep(60)
backup.back_up(workspace, sys.argv[2], on_progress=told)
"""


def _beside(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where a backup may go: the only thing in a folder of its own."""
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept" / "monday"


def test_a_backup_under_load_is_one_moment_of_it(workspace: Workspace, tmp_path: Path, target: Path) -> None:
    """Writers import and publish all the while; whatever the copied tables name is in the copy, and its chain holds."""
    stop, n_writes = threading.Event(), [0, 0]

    def import_on() -> None:
        for n in range(10_000):
            if stop.is_set():
                return
            row = {"prompt": f"Question {n}?", "chosen": f"Yes, {n}.", "rejected": "No."}
            (tmp_path / "row.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
            import_files(workspace, [tmp_path / "row.jsonl"], source="load")
            n_writes[0] += 1

    def publish_on() -> None:
        for n in range(10_000):
            if stop.is_set():
                return
            made.published(workspace, tmp_path, n)
            n_writes[1] += 1

    writers = [threading.Thread(target=work) for work in (import_on, publish_on)]
    for writer in writers:
        writer.start()
    try:
        while min(n_writes) < 3:
            time.sleep(0.01)
        for day in range(3):
            seen = list(n_writes)
            back_up(workspace, target.with_name(f"day-{day}"))
            while min(n_writes[i] - seen[i] for i in (0, 1)) < 1:  # nobody waited for the backup for ever
                time.sleep(0.01)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    for day in range(3):
        restore(target.with_name(f"day-{day}"), tmp_path / f"back-{day}", actor="tester")
        back = Workspace.open(tmp_path / f"back-{day}", actor="tester")
        found = verify(back)
        assert found.ok and not found.leftovers and found.versions >= 3
        with back.read() as connection:
            audit.verify(connection)
            assert connection.execute(select(func.count()).select_from(tables.pairs)).scalar_one() >= 3
        back.close()


def test_only_its_owner_may_read_a_backup(workspace: Workspace, target: Path) -> None:
    back_up(workspace, target)
    assert stat.S_IMODE(target.stat().st_mode) & 0o077 == 0
    back_up(workspace, target.with_name("monday.tar"))
    assert stat.S_IMODE(target.with_name("monday.tar").stat().st_mode) & 0o077 == 0


def test_the_key_stands_in_the_settings_alone(workspace: Workspace, target: Path) -> None:
    back_up(workspace, target)
    holding = [f.name for f in target.rglob("*") if f.is_file() and workspace.key.encode() in f.read_bytes()]
    assert holding == ["workspace.yaml.kept"]


def test_a_backup_is_no_workspace_that_could_be_written_to(workspace: Workspace, target: Path) -> None:
    back_up(workspace, target)
    with pytest.raises(Exception, match="no workspace"):
        Workspace.open(target)


def test_a_kill_in_the_middle_leaves_no_backup_and_the_next_one_clears_up(
    workspace: Workspace, tmp_path: Path, target: Path
) -> None:
    made.published(workspace, tmp_path, 0)
    words = [sys.executable, "-c", _SLOW, str(workspace.root), str(target)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "1\n"
        during = _beside(target.parent)
        back_up(workspace, target.with_name("other"))
        assert _beside(target.parent) == sorted([*during, "other"])
        os.kill(process.pid, signal.SIGKILL)
    assert len(during) == 1 and not target.exists()
    back_up(workspace, target)
    assert _beside(target.parent) == ["monday", "other"]


def test_one_that_is_being_written_is_not_taken_for_a_killed_one(
    workspace: Workspace, tmp_path: Path, target: Path
) -> None:
    made.published(workspace, tmp_path, 0)
    seen: list[list[str]] = []

    def another(done: int, total: int) -> None:
        if not seen:
            seen.append(_beside(target.parent))
            back_up(workspace, target)
            seen.append(_beside(target.parent))

    with pytest.raises(Conflict, match="not empty"):
        back_up(workspace, target, on_progress=another)
    assert seen[1] == sorted([*seen[0], "monday"])
    assert _beside(target.parent) == ["monday"]


def test_a_changed_published_file_is_refused_by_name(workspace: Workspace, tmp_path: Path, target: Path) -> None:
    made.published(workspace, tmp_path, 0)
    (file,) = Path(workspace.artifacts.root).rglob("adapter_model.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(Damaged, match=r"versions/hh/1/adapter_model.safetensors was changed"):
        back_up(workspace, target)
    file.unlink()
    with pytest.raises(Damaged, match=r"versions/hh/1/adapter_model.safetensors is missing"):
        back_up(workspace, target)
    assert _beside(target.parent) == []


def test_an_erasure_meanwhile_is_told_from_damage(workspace: Workspace, tmp_path: Path, target: Path) -> None:
    made.published(workspace, tmp_path, 0)
    with workspace.read() as connection:
        *_, last = sorted(workspace.artifacts.recorded(connection, ""))

    def rewrite(done: int, total: int) -> None:
        if done == 1:
            (tmp_path / "new").write_text("without the words", "utf-8")
            workspace.artifacts.rewrite(workspace.database, last, tmp_path / "new")

    with pytest.raises(Conflict, match="an erasure rewrote"):
        back_up(workspace, target, on_progress=rewrite)
    back_up(workspace, target)


def test_a_broken_database_is_not_backed_up(workspace: Workspace, target: Path) -> None:
    with workspace.write() as write:
        write.connection.exec_driver_sql("CREATE TABLE gone (x)")
        page = write.connection.exec_driver_sql("SELECT rootpage FROM sqlite_master WHERE name = 'gone'").scalar_one()
    with workspace.database.engine.connect() as connection:
        size = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    workspace.close()
    sqlite3.connect(workspace.root / "rlhf.db").execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with open(workspace.root / "rlhf.db", "r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with pytest.raises(Damaged, match="not whole"):
        back_up(Workspace.open(workspace.root), target)
    assert _beside(target.parent) == []


def test_a_full_disk_is_refused_before_anything_is_copied(
    workspace: Workspace, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "_size_of", lambda _: 2**60)
    with pytest.raises(NoRoom, match="are wanted"):
        back_up(workspace, target)
    assert _beside(target.parent) == []


def test_the_room_asked_for_is_what_a_backup_takes(workspace: Workspace, tmp_path: Path, target: Path) -> None:
    made.published(workspace, tmp_path, 0)
    runs.start(workspace, "reward", "hh", None, {})
    (workspace.root / "bases" / "tiny").mkdir()
    for folder in (workspace.root / "bases" / "tiny", *(workspace.root / "runs").glob("*")):
        (folder / "file").write_bytes(bytes(100_000))
    row = {"name": "tiny", "digest": "0" * 64, "path": "bases/tiny", "origin": "{}", "details": "{}"}
    made.add_rows(workspace, tables.bases, {**row, "actor": "tester", "created_at": "2026-01-01T00:00:00"})
    asked = backups._size_of(workspace)
    assert back_up(workspace, target).n_bytes == pytest.approx(asked, abs=5_000)


def test_a_place_that_is_taken_or_inside_the_workspace_is_refused(workspace: Workspace, target: Path) -> None:
    with pytest.raises(BadUsage, match="lost with it"):
        back_up(workspace, workspace.root / "backup")
    target.mkdir()
    (target / "mine").write_text("x")
    with pytest.raises(Conflict, match="not empty"):
        back_up(workspace, target)
    with pytest.raises(Conflict, match="there already"):
        back_up(workspace, target / "mine")
    assert (target / "mine").read_text() == "x"


def test_a_backup_to_a_folder_that_is_not_there_makes_it_or_nothing(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(workspace, tmp_path / "a" / "b" / "monday")
    monkeypatch.setattr(backups, "_size_of", lambda _: 2**60)
    with pytest.raises(NoRoom):
        back_up(workspace, tmp_path / "c" / "d" / "monday")
    assert not (tmp_path / "c").exists()


@pytest.mark.postgres
def test_postgresql_is_left_to_its_own_tools(either: Workspace, target: Path) -> None:
    if either.database.is_sqlite:
        back_up(either, target)
        return
    with pytest.raises(BadUsage) as refused:
        back_up(either, target)
    assert "pg_dump" in refused.value.fix


def test_a_bucket_is_left_to_its_own_versioning(workspace: Workspace, target: Path) -> None:
    workspace.artifacts.is_local, workspace.artifacts.url = False, "s3://bucket/prefix"
    with pytest.raises(BadUsage, match=r"s3://bucket/prefix") as refused:
        back_up(workspace, target)
    assert "versioning" in refused.value.fix


def test_runs_go_along_with_what_a_resume_needs_and_without_the_rest(workspace: Workspace, target: Path) -> None:
    done, open_ = (runs.start(workspace, "reward", "hh", None, {"seed": n}) for n in (0, 1))
    for run in (done, open_):
        folder = workspace.root / "runs" / run
        (folder / "checkpoints" / "checkpoint-1").mkdir(parents=True)
        (folder / "checkpoints" / "checkpoint-1" / "whole").write_text("{}")
        (folder / "metrics.jsonl").write_text("{}\n")
        (folder / "lock").write_text("")
    runs.finish(workspace, done, "done")
    (workspace.root / "loop.yaml").write_text("name: hh\n")
    (workspace.root / "mine.csv").write_text("x")
    (workspace.root / "cache" / "state").write_text("x")
    backup = back_up(workspace, target)
    said = json.loads((target / MANIFEST).read_text("utf-8"))
    assert {f for f in said["files"] if f.startswith(("runs", "loop", "cache"))} == {
        "loop.yaml",
        f"runs/{done}/metrics.jsonl",
        f"runs/{open_}/metrics.jsonl",
        f"runs/{open_}/checkpoints/checkpoint-1/whole",
    }
    assert [text.split(" ")[0] for text in backup.left_out] == ["cache/", "mine.csv", "1"]


def test_the_audit_log_knows_of_the_backup(workspace: Workspace, target: Path) -> None:
    made_one = back_up(workspace, target)
    with workspace.read() as connection:
        (entry,) = audit.entries(connection, action="workspace.backup")
    assert entry["details"] == {"file": "monday", "digest": made_one.digest}
