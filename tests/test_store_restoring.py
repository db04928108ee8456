"""A restored workspace is the one that was backed up, or there is none."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapter_folders as made
import pytest
from sqlalchemy import select

from rlhf.errors import BadInput, Conflict, Damaged, NotFound
from rlhf.ids import digest_of
from rlhf.registry import aliases, open_version, resolve, verify
from rlhf.store import Workspace, audit, backup, database, restoring
from rlhf.store.backup import MANIFEST, NoRoom, back_up
from rlhf.store.restoring import restore
from rlhf.store.tables import metadata


@pytest.fixture
def lived_in(workspace: Workspace, tmp_path: Path) -> Workspace:
    first = made.published(workspace, tmp_path, 0)
    made.published(workspace, tmp_path, 1, parents=(("from", first.digest),))
    for number in (1, 2):
        aliases.move(workspace, "hh@champion", f"hh@{number}", why="up")
    return workspace


@pytest.fixture(params=["monday", "monday.tar"])
def kept(request: pytest.FixtureRequest, lived_in: Workspace, tmp_path: Path) -> Path:
    """A backup as a folder, then as one file."""
    target = tmp_path / "kept" / request.param
    back_up(lived_in, target)
    return target


def _rows(workspace: Workspace) -> dict[str, list[dict[str, Any]]]:
    with workspace.read() as connection:
        return {t.name: [dict(r._mapping) for r in connection.execute(select(t))] for t in metadata.sorted_tables}


def _change_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    said = json.loads((folder / MANIFEST).read_text("utf-8"))
    del said["digest"]
    change(said)
    (folder / MANIFEST).write_text(json.dumps({**said, "digest": digest_of(said)}), "utf-8")


def test_restored_equals_backed_up(lived_in: Workspace, kept: Path, tmp_path: Path) -> None:
    before, ref = _rows(lived_in), resolve(lived_in, "hh@champion")
    before["audit"] = [row for row in before["audit"] if row["action"] != "workspace.backup"]
    said = restore(kept, tmp_path / "back", actor="ann")
    back = Workspace.open(tmp_path / "back", actor="tester")
    after = _rows(back)
    *chain, last = after["audit"]
    assert {**after, "audit": chain} == before
    assert (last["action"], last["actor"]) == ("workspace.restore", "ann")
    assert json.loads(last["details"])["backup"] == said.digest
    assert verify(back).ok and back.key == lived_in.key
    with back.read() as connection:
        assert audit.verify(connection) == len(chain) + 1
    assert resolve(back, "hh@champion") == ref
    open_version(back, ref)
    aliases.roll_back(back, "hh@champion", why="still works")
    assert stat.S_IMODE((tmp_path / "back" / "workspace.yaml").stat().st_mode) == 0o600
    back.close()


def test_an_empty_folder_will_do_and_a_taken_one_will_not(kept: Path, tmp_path: Path) -> None:
    (tmp_path / "back").mkdir()
    restore(kept, tmp_path / "back")
    with pytest.raises(Conflict, match="not empty"):
        restore(kept, tmp_path / "back")


@pytest.mark.parametrize("harm", ["changed", "cut short", "missing"])
def test_the_first_file_that_is_wrong_is_named_and_nothing_is_left(
    lived_in: Workspace, tmp_path: Path, harm: str
) -> None:
    back_up(lived_in, tmp_path / "monday")
    file = tmp_path / "monday" / "artifacts" / "versions" / "hh" / "2" / "adapter_model.safetensors"
    raw = file.read_bytes()
    if harm == "changed":
        file.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    elif harm == "cut short":
        file.write_bytes(raw[:-1])
    else:
        file.unlink()
    (tmp_path / "at").mkdir()
    with pytest.raises(Damaged, match=r"^artifacts/versions/hh/2/adapter_model.safetensors"):
        restore(tmp_path / "monday", tmp_path / "at" / "back")
    assert list((tmp_path / "at").iterdir()) == []


def test_a_file_cut_short_is_refused_wherever_it_ends(lived_in: Workspace, tmp_path: Path) -> None:
    back_up(lived_in, tmp_path / "monday.tar")
    raw = (tmp_path / "monday.tar").read_bytes()
    (tmp_path / "at").mkdir()
    for part in (0.5, 0.9):
        (tmp_path / "cut.tar").write_bytes(raw[: int(len(raw) * part)])
        with pytest.raises(Damaged, match=r"is missing|was backed up"):
            restore(tmp_path / "cut.tar", tmp_path / "at" / "back")
    assert list((tmp_path / "at").iterdir()) == []


def test_a_changed_manifest_is_refused(lived_in: Workspace, tmp_path: Path) -> None:
    back_up(lived_in, tmp_path / "monday")
    file = tmp_path / "monday" / MANIFEST
    file.write_text(file.read_text("utf-8").replace('"n_bytes"', '"n_bytez"', 1), "utf-8")
    with pytest.raises(Damaged, match=MANIFEST):
        restore(tmp_path / "monday", tmp_path / "back")


def test_a_newer_schema_than_ours_is_refused(lived_in: Workspace, tmp_path: Path) -> None:
    back_up(lived_in, tmp_path / "monday")
    _change_manifest(tmp_path / "monday", lambda said: said.update(revision="9999"))
    with pytest.raises(BadInput, match="9999") as refused:
        restore(tmp_path / "monday", tmp_path / "back")
    assert "newer rlhf" in refused.value.fix and not (tmp_path / "back").exists()


def test_an_older_schema_is_brought_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace of the release before: its database is made by the migrations up to there."""
    from alembic import command

    older, upgrade = f"{int(database.SCHEMA_HEAD) - 1:04}", command.upgrade
    with monkeypatch.context() as patch:
        patch.setattr(database, "SCHEMA_HEAD", older)
        patch.setattr(command, "upgrade", lambda config, _: upgrade(config, older))
        old = Workspace.create(tmp_path / "old", actor="tester")
        made_one = back_up(old, tmp_path / "monday")
        old.close()
    assert made_one.revision == older
    assert restore(tmp_path / "monday", tmp_path / "back").revision == older
    back = Workspace.open(tmp_path / "back")
    assert back.database.revision() == database.SCHEMA_HEAD
    with back.read() as connection:
        assert audit.verify(connection) == 2
    back.close()
    with sqlite3.connect(tmp_path / "monday" / "rlhf.db") as untouched:
        assert untouched.execute("SELECT version_num FROM alembic_version").fetchone() == (older,)


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "artifacts/../../outside"])
def test_nothing_is_written_outside_of_the_workspace(lived_in: Workspace, tmp_path: Path, name: str) -> None:
    back_up(lived_in, tmp_path / "monday")
    _change_manifest(tmp_path / "monday", lambda said: said["files"].update({name: {"sha256": "0" * 64, "n_bytes": 1}}))
    with pytest.raises(BadInput, match="outside"):
        restore(tmp_path / "monday", tmp_path / "at" / "back")
    assert not (tmp_path / "at").exists()


def test_a_link_in_a_backup_is_not_followed(lived_in: Workspace, tmp_path: Path) -> None:
    back_up(lived_in, tmp_path / "monday")
    folder = tmp_path / "monday" / "artifacts"
    shutil.move(folder, tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Damaged, match=r"^artifacts/.* is missing"):
        restore(tmp_path / "monday", tmp_path / "back")


def test_a_backup_behind_a_link_is_found(lived_in: Workspace, tmp_path: Path) -> None:
    back_up(lived_in, tmp_path / "monday")
    (tmp_path / "latest").symlink_to(tmp_path / "monday")
    restore(tmp_path / "latest", tmp_path / "back")


def test_what_is_no_backup_is_refused_as_that(lived_in: Workspace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for wrong in (tmp_path / "file", tmp_path / "folder", lived_in.root):
        with pytest.raises(BadInput, match="no backup"):
            restore(wrong, tmp_path / "back")
    with pytest.raises(NotFound):
        restore(tmp_path / "nothing", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_full_disk_is_refused_first(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(backup.shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(NoRoom, match="are wanted"):
        restoring.restore(kept, tmp_path / "at" / "back")
    assert not (tmp_path / "at").exists()
