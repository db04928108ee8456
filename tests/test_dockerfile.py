"""The container's recipe: what it copies is there, what it starts is ours, and nothing secret gets into it.

No image is built here: that wants a daemon and a network.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator

import pytest
import uvicorn
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from test_docs import PROJECT, parse

from rlhf.serving.guard import OPEN
from rlhf.serving.listening import bind
from rlhf.store import Workspace
from rlhf.web import create_app

TEXT = (PROJECT / "Dockerfile").read_text("utf-8")
LOGICAL = [
    line.strip()
    for line in re.sub(r"^\s*#.*\n", "", TEXT, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    if line.strip()
]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))


def steps(word: str) -> list[str]:
    """What stands behind each instruction of this kind."""
    return [line.removeprefix(word).strip() for line in LOGICAL if line.startswith(f"{word} ")]


def default_of(name: str) -> str:
    (found,) = {arg.partition("=")[2] for arg in steps("ARG") if arg.startswith(f"{name}=")}
    return found


def test_every_path_that_is_copied_exists_and_is_let_in() -> None:
    sources = [path for step in steps("COPY") if "--from" not in step for path in step.split()[:-1]]
    let_in = [line[1:] for line in (PROJECT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]
    assert sources and sorted(sources) == sorted(let_in)
    assert [path for path in sources if not (PROJECT / path).exists()] == []


def test_everything_else_stays_outside() -> None:
    lines = [line for line in (PROJECT / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert lines[0] == "*", "a workspace beside the sources, its key in it, must not get into a layer"


def test_the_python_and_the_extras_are_those_of_the_package() -> None:
    assert default_of("PYTHON") in SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert all(step.startswith("python:${PYTHON}-slim") for step in steps("FROM"))
    extras = re.findall(r"(\w+)\) extras=([\w,]+)", TEXT)
    assert [name for name, _ in extras] == ["cpu", "cuda"] and default_of("ACCELERATOR") == "cpu"
    assert {one for _, names in extras for one in names.split(",")} <= PYPROJECT["project"][
        "optional-dependencies"
    ].keys()


def test_torch_is_the_one_that_is_locked() -> None:
    (pattern,) = re.findall(r"grep '([^']+)' requirements.lock", TEXT)
    (locked,) = [
        line for line in (PROJECT / "requirements.lock").read_text("utf-8").splitlines() if re.match(pattern, line)
    ]
    wanted = next(Requirement(text) for text in PYPROJECT["project"]["dependencies"] if text.startswith("torch"))
    assert Requirement(locked).name == "torch" and locked.partition("==")[2] in wanted.specifier


def test_the_entry_is_our_command_and_it_parses() -> None:
    entry, command = (json.loads(*steps(word)) for word in ("ENTRYPOINT", "CMD"))
    assert entry == ["rlhf"] and "rlhf" in PYPROJECT["project"]["scripts"]
    assert parse(command) == "rlhf serve"
    port = command[command.index("--port") + 1]
    assert port in steps("EXPOSE")[0].split() and f"HEALTH_PORT={port}" in TEXT
    assert command[command.index("--host") + 1] == "0.0.0.0", "loopback inside a container reaches nobody"


def test_it_runs_as_nobody_in_particular_and_keeps_its_workspace_in_a_volume() -> None:
    (user,) = steps("USER")
    assert user not in ("root", "0") and f"--create-home {user}" in TEXT
    (volume,) = steps("VOLUME")
    assert f"RLHF_WORKSPACE={volume}" in TEXT and f"-o {user} -g {user} -m 700 {volume}" in TEXT
    assert LOGICAL.index(f"USER {user}") < LOGICAL.index(
        next(line for line in LOGICAL if line.startswith("ENTRYPOINT"))
    )


def test_no_layer_holds_a_secret() -> None:
    for word in ("ARG", "ENV"):
        assert not [step for step in steps(word) if re.search(r"TOKEN|PASSWORD|SECRET|_KEY|postgresql:", step)]


@pytest.fixture
def served(workspace: Workspace) -> Iterator[int]:
    with bind("127.0.0.1", 0) as bound:
        server = uvicorn.Server(uvicorn.Config(create_app(workspace), log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield bound.getsockname()[1]
        server.should_exit = True
        thread.join()


def healthy(port: int) -> bool:
    """What the container's own check says of a server at this port."""
    (check,) = steps("HEALTHCHECK")
    command = json.loads(check[check.index("[") :])
    assert command[0] == "python"
    return (
        subprocess.run([sys.executable, *command[1:]], env={"HEALTH_PORT": str(port)}, capture_output=True).returncode
        == 0
    )


def test_the_health_check_tells_a_server_from_none(served: int) -> None:
    assert "/health" in OPEN
    assert healthy(served)
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
    assert not healthy(port)
