"""A workspace is made whole, opens whole, and older ones upgrade with what is in them."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import adapter_folders as made
import pytest
import yaml
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, inspect, text

from rlhf.errors import BadInput, BadUsage, Conflict, Damaged, NotFound, RlhfError
from rlhf.registry import aliases, lineage, open_version, verify
from rlhf.store import Workspace, audit, database
from rlhf.store.tables import metadata


def test_a_workspace_opens_as_it_was_made(tmp_path: Path) -> None:
    made_one = Workspace.create(tmp_path / "ws", actor="ann")
    opened = Workspace.open(tmp_path / "ws", actor="bob")
    assert opened.key == made_one.key and opened.actor == "bob"
    with opened.read() as connection:
        (entry,) = audit.entries(connection)
    assert (entry["actor"], entry["action"]) == ("ann", "workspace.create")


def test_the_secret_key_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    Workspace.create(tmp_path / "ws")
    assert stat.S_IMODE((tmp_path / "ws" / "workspace.yaml").stat().st_mode) == 0o600


def test_a_workspace_is_not_made_twice_nor_opened_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no workspace"):
        Workspace.open(tmp_path / "ws")
    Workspace.create(tmp_path / "ws")
    with pytest.raises(Conflict):
        Workspace.create(tmp_path / "ws")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput):
        Workspace.create(tmp_path / "file")
    with pytest.raises(NotFound):
        Workspace.open(tmp_path / "file")


@pytest.mark.parametrize("content", ["", "[]", "key: 1\n", "{"])
def test_a_broken_settings_file_is_an_error_of_ours(tmp_path: Path, content: str) -> None:
    Workspace.create(tmp_path / "ws").close()
    (tmp_path / "ws" / "workspace.yaml").write_text(content)
    with pytest.raises(RlhfError):
        Workspace.open(tmp_path / "ws")


def test_a_making_that_was_cut_short_is_no_workspace_and_can_be_made_again(tmp_path: Path) -> None:
    Workspace.create(tmp_path / "ws").close()
    (tmp_path / "ws" / "workspace.yaml").rename(tmp_path / "ws" / "workspace.yaml.new")
    with pytest.raises(NotFound):
        Workspace.open(tmp_path / "ws")
    Workspace.create(tmp_path / "ws")


def test_a_workspace_can_be_moved(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    ref = made.published(workspace, tmp_path, 0)
    workspace.close()
    shutil.move(tmp_path / "ws", tmp_path / "moved")
    moved = Workspace.open(tmp_path / "moved")
    assert open_version(moved, "hh@1").ref == ref and verify(moved).ok


def test_the_migrated_schema_is_the_one_that_the_code_reads(workspace: Workspace) -> None:
    with workspace.read() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), metadata)
    assert difference == []
    assert workspace.database.revision() == database.SCHEMA_HEAD


def test_the_migrated_tables_have_the_keys_that_the_code_counts_on(workspace: Workspace) -> None:
    """Primary, foreign and unique keys: `compare_metadata` passes over most of them."""

    def keys(connection: Connection) -> dict[str, tuple[object, ...]]:
        seen = inspect(connection)
        return {
            name: (
                seen.get_pk_constraint(name)["constrained_columns"],
                sorted((k["constrained_columns"], k["referred_table"]) for k in seen.get_foreign_keys(name)),
                sorted(k["column_names"] for k in seen.get_unique_constraints(name)),
            )
            for name in metadata.tables
        }

    with create_engine("sqlite://").begin() as plain, workspace.read() as migrated:
        metadata.create_all(plain)
        assert keys(migrated) == keys(plain)


def test_an_emptied_database_is_damaged_and_not_an_empty_workspace(workspace: Workspace) -> None:
    workspace.close()
    for file in workspace.root.glob("rlhf.db-*"):
        file.unlink()
    (workspace.root / "rlhf.db").write_bytes(b"")
    with pytest.raises(Damaged, match="holds no tables"):
        Workspace.open(workspace.root)


@pytest.mark.parametrize("setting", [{"database": "nosuch://x"}, {"artifacts": "nosuch://x"}])
def test_a_store_of_an_unknown_kind_is_refused_and_leaves_nothing(tmp_path: Path, setting: dict[str, str]) -> None:
    with pytest.raises(RlhfError, match=r"can't be opened|'nosuch://…' is neither"):
        Workspace.create(tmp_path / "ws", **setting)
    assert not (tmp_path / "ws").exists()


@pytest.mark.parametrize("outside", ["../../x.db", "../x.db", "", ".", "a/../..", "mysql://x", "sqlite:////x.db"])
def test_a_database_that_leaves_the_workspace_is_wrong_usage(tmp_path: Path, outside: str) -> None:
    with pytest.raises(BadUsage, match=r"no file inside the workspace|SQLite file name nor a postgresql:// URL"):
        Workspace.create(tmp_path / "some" / "ws", database=outside)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("setting", [{"database": "no/folder/x.db"}, {"database": "postgresql://u:s@127.0.0.1:1/x"}])
def test_a_failed_making_takes_back_what_it_made_and_nothing_else(
    tmp_path: Path, setting: dict[str, str], there: bool
) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    root = tmp_path / "some" / "ws"
    if there:
        (root / "runs").mkdir(parents=True)
        (root / "mine").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RlhfError, match="can't be used"):
        Workspace.create(root, artifacts="deep/artifacts", **setting)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_making_that_fails_late_leaves_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit, "append", full)
    with pytest.raises(BadInput, match="No space left"):
        Workspace.create(tmp_path / "ws")
    assert list(tmp_path.iterdir()) == []


_NEXT = """
from alembic import op
import sqlalchemy as sa
revision = "9999"
down_revision = "{head}"
def upgrade():
    with op.batch_alter_table("versions") as table:
        table.add_column(sa.Column("shelf", sa.String(20), nullable=False, server_default="top"))
    op.create_table("shelves", sa.Column("name", sa.String(20), primary_key=True))
    {more}
"""


def _next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str = "") -> None:
    """The code as a later release would be: one migration more."""
    folder = tmp_path / "release" / "migrations"
    shutil.copytree(Path(database.__file__).parent / "migrations", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "9999_shelves.py").write_text(_NEXT.format(head=database.SCHEMA_HEAD, more=more))
    monkeypatch.setattr(database, "__file__", str(tmp_path / "release" / "database.py"))
    monkeypatch.setattr(database, "SCHEMA_HEAD", "9999")


def test_a_populated_workspace_upgrades_with_everything_in_it(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made.published(workspace, tmp_path, 0)
    made.published(workspace, tmp_path, 1, parents=(("from", first.digest),))
    for number in (1, 2):
        aliases.move(workspace, "hh@champion", f"hh@{number}", why="up")
    history, line = aliases.history(workspace, "hh@champion"), lineage(workspace, "hh@2")
    _next_release(tmp_path, monkeypatch)
    upgraded = Workspace.open(workspace.root)
    assert upgraded.database.revision() == "9999"
    with upgraded.read() as connection:
        assert inspect(connection).has_table("shelves")
        assert set(connection.execute(text("select shelf from versions")).scalars()) == {"top"}
    assert (aliases.history(upgraded, "hh@champion"), lineage(upgraded, "hh@2")) == (history, line)
    assert verify(upgraded).ok
    aliases.roll_back(upgraded, "hh@champion", why="still works")
    Workspace.open(workspace.root).close()


def test_a_migration_that_fails_changes_nothing(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.published(workspace, tmp_path, 0)
    head = database.SCHEMA_HEAD
    with monkeypatch.context() as later:
        _next_release(tmp_path, later, more='raise RuntimeError("half way")')
        with pytest.raises(RuntimeError, match="half way"):
            Workspace.open(workspace.root)
    opened = Workspace.open(workspace.root)
    assert opened.database.revision() == head and verify(opened).ok
    with opened.read() as connection:
        assert not inspect(connection).has_table("shelves")


def test_a_newer_workspace_is_refused(workspace: Workspace) -> None:
    with workspace.write() as write:
        write.connection.execute(text("update alembic_version set version_num = '9999'"))
    with pytest.raises(Damaged, match="schema is 9999"):
        Workspace.open(workspace.root)


def test_a_database_that_cannot_be_used_is_an_error_of_ours(workspace: Workspace) -> None:
    settings = yaml.safe_load((workspace.root / "workspace.yaml").read_text())
    settings["database"] = "absent/rlhf.db"
    (workspace.root / "workspace.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(Damaged, match=r"absent/rlhf\.db is missing"):
        Workspace.open(workspace.root)


def test_a_missing_database_is_an_error_and_not_an_empty_workspace(workspace: Workspace) -> None:
    workspace.close()
    for file in workspace.root.glob("rlhf.db*"):
        file.unlink()
    with pytest.raises(Damaged, match="is missing"):
        Workspace.open(workspace.root)
    assert not (workspace.root / "rlhf.db").exists()


def test_a_file_that_is_no_database_is_an_error_of_ours(workspace: Workspace) -> None:
    workspace.close()
    for file in workspace.root.glob("rlhf.db*"):
        file.unlink()
    (workspace.root / "rlhf.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(RlhfError, match=r"no workspace|can't be used|can't be read|lacks"):
        Workspace.open(workspace.root)
