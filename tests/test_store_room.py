"""A workspace's disk budget: what it counts, who is refused, and where it stands."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from rlhf import engine, feedback
from rlhf.errors import BadUsage
from rlhf.store import Workspace, audit, room
from rlhf.store.backup import back_up
from rlhf.store.restoring import restore
from rlhf.store.room import NoRoom

PAIR = '{"prompt": "Question?", "chosen": "Yes", "rejected": "No"}\n'


class Disk(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("20GiB", 20 * 2**30), ("1.5 mib", 3 * 2**19), ("500MB", 500 * 10**6), ("77", 77), ("off", None)],
)
def test_a_size_is_read_as_it_is_written(text: str, n_bytes: int | None) -> None:
    assert room.parsed(text) == n_bytes


@pytest.mark.parametrize("text", ["", "many", "-1GiB", "0", "5 parsec", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BadUsage, match="is no size"):
        room.parsed(text)


def test_a_budget_is_kept_beside_the_key_and_taken_off(workspace: Workspace) -> None:
    assert room.room_of(workspace).budget is None
    room.set_budget(workspace, 2**30)
    again = Workspace.open(workspace.root)
    assert (again.key, room.budget_of(again)) == (workspace.key, 2**30)
    assert (workspace.root / "workspace.yaml").stat().st_mode & 0o077 == 0
    room.set_budget(again, None)
    assert room.budget_of(workspace) is None
    with again.read() as connection:
        assert [entry["details"]["n_bytes"] for entry in audit.entries(connection, action="workspace.budget")] == [
            2**30,
            None,
        ]
    again.close()


def test_what_is_used_counts_every_file_of_the_workspace(workspace: Workspace) -> None:
    before = room.room_of(workspace)
    (workspace.root / "runs" / "x").mkdir()
    (workspace.root / "runs" / "x" / "file").write_bytes(b"x" * 12345)
    after = room.room_of(workspace)
    assert after.used == before.used + 12345 and after.free <= shutil.disk_usage(workspace.root).total
    assert after.left == after.free


def test_a_base_that_passes_the_budget_is_refused_and_leaves_nothing(workspace: Workspace, tiny_folder: Path) -> None:
    room.set_budget(workspace, room.room_of(workspace).used + 10_000)
    with pytest.raises(NoRoom, match=r"the base tiny needs about .* and of the workspace's budget of") as refused:
        engine.add_from_dir(workspace, "tiny", tiny_folder)
    assert "rlhf gc --to-budget --dry-run" in refused.value.fix
    assert list((workspace.root / "bases").iterdir()) == []
    room.set_budget(workspace, 2**30)
    assert engine.add_from_dir(workspace, "tiny", tiny_folder).name == "tiny"


def test_the_same_base_again_needs_no_room(workspace: Workspace, tiny_base: engine.Base, tiny_folder: Path) -> None:
    room.set_budget(workspace, 1)
    assert engine.add_from_dir(workspace, "tiny", tiny_folder).digest == tiny_base.digest


def test_an_import_that_passes_the_budget_is_refused_before_a_row_is_stored(
    workspace: Workspace, tmp_path: Path
) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(PAIR, "utf-8")
    room.set_budget(workspace, 1)
    with pytest.raises(NoRoom, match=r"this import needs about .* too much are used"):
        feedback.import_files(workspace, [file])
    assert feedback.receipts(workspace) == []
    room.set_budget(workspace, None)
    assert feedback.import_files(workspace, [file]).accepted == 1


def test_a_disk_without_room_is_refused_without_a_budget(
    workspace: Workspace, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: Disk(10**9, 10**9 - 1000, 1000))
    with pytest.raises(NoRoom, match="and 1,000 bytes are free where"):
        engine.add_from_dir(workspace, "tiny", tiny_folder)


def test_a_budget_comes_back_with_a_backup(workspace: Workspace, tmp_path: Path) -> None:
    room.set_budget(workspace, 3 * 2**30)
    back_up(workspace, tmp_path / "monday")
    restore(tmp_path / "monday", tmp_path / "back")
    back = Workspace.open(tmp_path / "back")
    assert room.budget_of(back) == 3 * 2**30
    back.close()
