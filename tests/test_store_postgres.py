"""SQLite and PostgreSQL give the same results: the same calls on both, then every row compared (promise 12)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import adapter_folders as made
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, func, select, text

from rlhf.errors import Conflict, RlhfError
from rlhf.ids import clock_at, new_id
from rlhf.registry import aliases, descendants, lineage, list_versions, resolve, retire, show, sign, verify
from rlhf.store import Workspace, audit, runs
from rlhf.store.tables import metadata, tokens

pytestmark = pytest.mark.postgres


@pytest.fixture
def new_database(postgres_url: str) -> Callable[[], str]:
    """Makes an empty database of its own and returns its URL."""

    def make() -> str:
        name = f"d{new_id()}"
        engine = create_engine(
            postgres_url.replace("postgresql://", "postgresql+psycopg://", 1), isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            connection.execute(text(f"create database {name}"))
        engine.dispose()
        before, question, after = postgres_url.partition("?")
        return f"{before.rpartition('/')[0]}/{name}{question}{after}"

    return make


@pytest.fixture
def team(new_database: Callable[[], str], tmp_path: Path) -> Iterator[Workspace]:
    """A workspace on PostgreSQL."""
    workspace = Workspace.create(tmp_path / "team", database=new_database(), actor="tester")
    yield workspace
    workspace.close()


def _lived_in(workspace: Workspace, scratch: Path) -> list[Any]:
    """A little of everything; returns what each call answered, refusals included. Only ids of events are by chance."""
    said: list[Any] = []

    def ask(call: Callable[..., Any], *words: Any, **named: Any) -> None:
        try:
            said.append(call(workspace, *words, **named))
        except RlhfError as error:
            said.append((type(error).__name__, error.message, error.fix))

    for seed, at in ((0, 1.0e9), (1, 1.1e9), (2, 1.2e9), (0, 1.3e9)):
        with clock_at(at):
            said.append(made.published(workspace, scratch, seed))
    with clock_at(1.4e9):
        said.append(made.published(workspace, scratch, 3, "p", head=False, parents=(("reward", said[1].digest),)))
        for number in (1, 2, 2, 3, 9):
            ask(
                aliases.move,
                "hh@champion",
                f"hh@{number}",
                why="up",
                evidence={"n": number, "text": "ä\u2028\U0001f600"},
            )
        ask(aliases.roll_back, "hh@champion", why="back")
        ask(aliases.move, "hh@champion", "hh@3", why="late", expect=1)
        for _ in range(2):
            ask(aliases.roll_back, "hh@champion", why="further")
        ask(aliases.history, "hh@champion")
        ask(aliases.list_aliases)
        ask(retire, "hh@1")
        ask(retire, "hh@3")
        for spelled in (
            "hh@2",
            "hh@champion",
            "hh@99999999999999999",
            "hh",
            f"sha256:{said[0].digest[:12]}",
            "sha256:" + "0" * 12,
        ):
            ask(resolve, spelled)
        ask(lineage, "p@1")
        ask(descendants, version="hh@2")
        ask(list_versions)
        ask(show, "hh@2")
        made.report(workspace, "ab12" * 16)
        said.append(sign(workspace, "hh@2", "ab12" * 3, "evaluator").report_digest)
        run = runs.start(workspace, "reward", "hh", None, {"epochs": 1})
        runs.finish(workspace, run, "done", version_digest=said[0].digest)
        said.append(runs.show(workspace, run).state)
        with workspace.write() as write:
            said.append(
                write.insert_new(tokens, [{"digest": d, "actor": "x", "scopes": "", "created_at": ""} for d in "aab"])
            )
            said.append(
                write.insert_new(tokens, [{"digest": d, "actor": "x", "scopes": "", "created_at": ""} for d in "bc"])
            )
        found = verify(workspace)
        said.append((found.ok, found.files, found.versions, found.audit_entries))
    return said


def _rows(workspace: Workspace) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, but for ids of events and what hangs on them."""
    chance = {"signoffs": {"id"}, "runs": {"id", "folder"}, "audit": {"subject", "previous", "hash"}}
    dump = {}
    with workspace.read() as connection:
        for table in metadata.sorted_tables:
            columns = [column for column in table.columns if column.name not in chance.get(table.name, set())]
            dump[table.name] = sorted((tuple(row) for row in connection.execute(select(*columns))), key=repr)
    return dump


def test_the_same_calls_leave_the_same_rows(workspace: Workspace, team: Workspace, tmp_path: Path) -> None:
    with clock_at(0.9e9):
        here = Workspace.create(tmp_path / "here" / "team", actor="tester")
    with team.write() as write:
        write.connection.execute(text("delete from audit"))
    with here.write() as write:
        write.connection.execute(text("delete from audit"))
    one, other = _lived_in(here, tmp_path / "a"), _lived_in(team, tmp_path / "b")
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert left == right
    left_rows, right_rows = _rows(here), _rows(team)
    for name in left_rows:
        assert left_rows[name] == right_rows[name], name
    for each in (here, team):
        with each.read() as connection:
            audit.verify(connection)


def test_one_of_many_movers_wins(team: Workspace, tmp_path: Path) -> None:
    for seed in range(6):
        made.published(team, tmp_path, seed)
    aliases.move(team, "hh@champion", "hh@1", why="first")
    barrier, outcomes = threading.Barrier(5), []

    def race(number: int) -> None:
        barrier.wait()
        try:
            aliases.move(team, "hh@champion", f"hh@{number}", why="race", expect=1)
            outcomes.append(number)
        except Conflict as lost:
            assert "moved meanwhile" in lost.message

    threads = [threading.Thread(target=race, args=(number,)) for number in range(2, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1 and aliases.current(team, "hh@champion").number == outcomes[0]


def test_publishers_at_once_take_different_numbers(team: Workspace, tmp_path: Path) -> None:
    taken = []

    def publish(first: int) -> None:
        for seed in range(first, first + 4):
            taken.append(made.published(team, tmp_path / str(first), seed).number)
        taken.append(made.published(team, tmp_path / str(first), 7).digest)  # the same content from all

    threads = [threading.Thread(target=publish, args=(first,)) for first in (100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(n for n in taken if isinstance(n, int)) == sorted(set(range(1, 14)) - _number_of(team, 7, tmp_path))
    assert len({digest for digest in taken if isinstance(digest, str)}) == 1
    with team.read() as connection:
        assert audit.verify(connection) == 14


def _number_of(workspace: Workspace, seed: int, scratch: Path) -> set[int]:
    return {made.published(workspace, scratch, seed).number}


_WRITE = """
import sys
from rlhf.store import Workspace
from rlhf.store.tables import tokens
workspace = Workspace.open(sys.argv[1])
for n in range(10**6):
    with workspace.write() as write:
        write.connection.execute(tokens.insert(), [
            {"digest": f"{n}-{half}", "actor": "x", "scopes": "", "created_at": ""} for half in "ab"])
        write.audit("token", str(n))
    print(n, flush=True)
"""


def test_a_killed_writer_leaves_the_last_good_state(team: Workspace) -> None:
    process = subprocess.Popen([sys.executable, "-c", _WRITE, str(team.root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(5)]
    os.kill(process.pid, signal.SIGKILL)
    with process:  # its output is closed, too
        said += process.stdout.read().splitlines(keepends=True)
    n_said = len([line for line in said if line.endswith("\n")])
    with team.write() as write:  # waits for the server to notice that the writer is gone
        write.audit("after", "the crash")
    with team.read() as connection:
        n_rows = connection.execute(select(func.count()).select_from(tokens)).scalar_one()
        n_entries = audit.verify(connection) - 2
    assert n_rows == 2 * n_entries and n_said <= n_entries <= n_said + 1


def test_the_migrated_schema_is_the_one_that_the_code_reads(team: Workspace) -> None:
    with team.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_every_thread_of_a_server_has_a_connection(team: Workspace) -> None:
    """Forty at once: with fewer connections than threads, who came back first took again before those that waited."""
    together, views = threading.Barrier(40, timeout=30), []

    def look(_: int) -> None:
        with team.read() as connection:
            connection.execute(text("select 1"))
            views.append(together.wait())

    with ThreadPoolExecutor(40) as threads:
        list(threads.map(look, range(40)))
    assert sorted(views) == list(range(40))


def test_a_workspace_on_postgresql_opens_again(team: Workspace, tmp_path: Path) -> None:
    ref = made.published(team, tmp_path, 0)
    again = Workspace.open(team.root)
    assert resolve(again, "hh@1") == ref and again.database.revision() == team.database.revision()
    again.close()
