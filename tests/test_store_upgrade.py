"""A workspace as the first release left it opens with everything in it, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapter_folders as made
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, insert, inspect, select, text

from rlhf.ids import new_id
from rlhf.registry import GateRules, aliases, gates, lineage, show, sign, verify
from rlhf.store import Workspace, audit, database, runs
from rlhf.store.database import Database
from rlhf.store.tables import metadata

FIRST = "0001"
NEW = {"alias_gates", "jobs"}  # what came after it


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


def _as_first_release(url: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    """An empty database brought to the first release's schema by its own migration, then filled."""
    old = Database(url)
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with old.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, FIRST)
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
