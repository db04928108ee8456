"""A workspace as any release left it opens with everything in it, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapter_folders as made
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    insert,
    inspect,
    select,
    text,
)

from rlhf.ids import new_id
from rlhf.registry import GateRules, aliases, gates, lineage, show, sign, verify
from rlhf.store import Workspace, audit, database, runs
from rlhf.store.database import Database
from rlhf.store.tables import metadata

FIRST = "0001"
OLDER = [f"{number:04}" for number in range(1, int(database.SCHEMA_HEAD))]
NEW = {"alias_gates", "decisions", "jobs"}  # what came after it


def _lived_in(workspace: Workspace, scratch: Path) -> None:
    first = made.published(workspace, scratch, 0)
    made.published(workspace, scratch, 1, parents=(("from", first.digest),))
    for number in (1, 2):
        aliases.move(workspace, "hh@champion", f"hh@{number}", why="up")
    made.report(workspace, "ab12" * 16)
    sign(workspace, "hh@2", "ab12" * 16, "evaluator")
    runs.finish(workspace, runs.start(workspace, "reward", "hh", None, {"epochs": 1}), "done")


def _rows(workspace: Workspace) -> dict[str, list[dict[str, Any]]]:
    with workspace.read() as connection:
        return {
            table.name: [dict(row._mapping) for row in connection.execute(select(table))]
            for table in metadata.sorted_tables
            if table.name not in NEW
        }


def _migrate(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _as_first_release(url: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    """An empty database brought to the first release's schema by its own migration, then filled."""
    old = Database(url)
    with old.engine.begin() as connection:
        _migrate(connection, FIRST)
        assert not NEW & set(inspect(connection).get_table_names())
        for table in metadata.sorted_tables:
            if rows.get(table.name):
                connection.execute(insert(table), rows[table.name])
    assert old.revision() == FIRST
    old.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes an empty database and returns its URL as `workspace.yaml` would name it."""

    def make() -> str:
        if request.param == "sqlite":
            return f"{new_id()}.db"
        url: str = request.getfixturevalue("postgres_url")
        name = f"d{new_id()}"
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"create database {name}"))
        engine.dispose()
        before, question, after = url.partition("?")
        return f"{before.rpartition('/')[0]}/{name}{question}{after}"

    return make


def test_a_populated_first_release_upgrades_and_goes_on(
    workspace: Workspace, tmp_path: Path, empty_database: Callable[[], str]
) -> None:
    _lived_in(workspace, tmp_path)
    before, history, line = _rows(workspace), aliases.history(workspace, "hh@champion"), lineage(workspace, "hh@2")
    workspace.close()
    settings = workspace.root / "workspace.yaml"
    named = empty_database()
    settings.write_text(settings.read_text().replace("rlhf.db", named))
    url = f"sqlite:///{workspace.root / named}" if "://" not in named else named
    _as_first_release(url.replace("postgresql://", "postgresql+psycopg://", 1), before)

    upgraded = Workspace.open(workspace.root, actor="tester")
    assert upgraded.database.revision() == database.SCHEMA_HEAD
    assert _rows(upgraded) == before
    assert (aliases.history(upgraded, "hh@champion"), lineage(upgraded, "hh@2")) == (history, line)
    assert [s["role"] for s in show(upgraded, "hh@2").signoffs] == ["evaluator"]
    assert verify(upgraded).ok
    gates.set_gate(upgraded, "hh@champion", GateRules(signoffs=("evaluator",), report="evaluation"), "new here")
    aliases.roll_back(upgraded, "hh@champion", why="still works")
    assert gates.check(upgraded, "hh@champion", "hh@2").evidence["signoffs"][0]["who"] == "tester"
    with upgraded.read() as connection:
        audit.verify(connection)
    upgraded.close()


def _value(column: Column[Any], i: int) -> Any:
    """Of this column in row `i`: fits its type and length, and is another one in every row; of a reference, that row's key."""
    if column.foreign_keys:
        return _value(next(iter(column.foreign_keys)).column, i)
    if isinstance(column.type, Float):
        return i + 0.5
    if isinstance(column.type, Integer):
        return i + 1
    assert isinstance(column.type, String), f"a kind of column that this test doesn't know: {column!r}"
    return f"{i}ä{column.table.name}.{column.name}"[: column.type.length]


def _fill(connection: Connection, tables: list[Table]) -> None:
    """Two rows in each table, the first one empty where it may be; the audit log by its own pen, for it is a chain."""
    for table in tables:
        if table.name == "audit":
            for i in range(3):
                audit.append(connection, "tester", "deed", f"subject {i}", {"i": i})
            continue
        for i in range(2):
            row = {c.name: None if c.nullable and not i else _value(c, i) for c in table.columns}
            connection.execute(insert(table), [row])


def _read(connection: Connection, tables: list[Table]) -> dict[str, list[tuple[Any, ...]]]:
    return {t.name: sorted((tuple(row) for row in connection.execute(select(t))), key=repr) for t in tables}


@pytest.mark.parametrize("revision", OLDER)
def test_every_row_of_every_table_of_an_older_schema_is_there_after_the_upgrade(
    workspace: Workspace, empty_database: Callable[[], str], revision: str
) -> None:
    workspace.close()
    settings = workspace.root / "workspace.yaml"
    named = empty_database()
    settings.write_text(settings.read_text().replace("rlhf.db", named))
    url = f"sqlite:///{workspace.root / named}" if "://" not in named else named
    old = Database(url.replace("postgresql://", "postgresql+psycopg://", 1))
    reflected = MetaData()
    with old.engine.begin() as connection:
        _migrate(connection, revision)
        reflected.reflect(connection)
        tables = [table for table in reflected.sorted_tables if table.name != "alembic_version"]
        _fill(connection, tables)
        before = _read(connection, tables)
    assert old.revision() == revision and len(tables) >= 15 and all(before.values())
    old.close()

    upgraded = Workspace.open(workspace.root, actor="tester")
    assert upgraded.database.revision() == database.SCHEMA_HEAD
    with upgraded.write() as write:
        write.audit("deed", "after the upgrade")
    with upgraded.read() as connection:
        assert set(inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}
        after = _read(connection, tables)
        assert audit.verify(connection) == 4
    assert after.pop("audit")[:3] == before.pop("audit")
    assert after == before
    upgraded.close()
