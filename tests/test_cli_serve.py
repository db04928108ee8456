"""`rlhf serve` as people start it: one line that says where, replies, a rollback from elsewhere, and an end in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import CommandLine
from serving_made import HELLO
from sqlalchemy import select

from rlhf import people
from rlhf.registry import aliases
from rlhf.serving.bounds import ServeSettings
from rlhf.store import Workspace
from rlhf.store.tables import exposures

_SMALL = ("rows=4", "slots=6", "max_rank=8")


def command(workspace: Workspace, *words: str) -> list[str]:
    return [sys.executable, "-m", "rlhf.cli", "serve", "--json", "--workspace", str(workspace.root), *words]


@contextmanager
def served(workspace: Workspace, *words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`rlhf serve` in a process of its own, and what it printed once it listened."""
    process = subprocess.Popen(
        command(workspace, "--port", "0", *_SMALL, *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RLHF_SQLITE_SYNC": "full", "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate()


def body(**more: Any) -> dict[str, Any]:
    return {"model": "a", "messages": HELLO, "max_tokens": 4, "temperature": 0, **more}


def until(told: dict[str, Any], path: str, said: str) -> None:
    """Until the server says this at the path."""
    ends = time.monotonic() + 20
    while said not in httpx.get(told["address"] + path).text:
        assert time.monotonic() < ends, f"{path} never said {said}"
        time.sleep(0.01)


def test_it_answers_sees_a_rollback_of_another_process_and_drains_on_sigterm(to_serve: Workspace) -> None:
    with served(to_serve) as (process, told):
        assert told["url"] == f"{told['address']}/v1" and told["base"] == "tiny" and told["wants_token"] is False
        with httpx.Client(base_url=told["url"], timeout=60) as client:
            assert client.post("/chat/completions", json=body()).json()["model"] == "a@3"
            aliases.roll_back(to_serve, "a@champion", why="worse")
            rolled = time.monotonic()
            while client.post("/chat/completions", json=body()).json()["model"] != "a@2":
                assert time.monotonic() - rolled < 5
            ready = httpx.get(told["address"] + "/ready")
            assert ready.status_code in (200, 503)

            answers: list[httpx.Response] = []
            long = body(max_tokens=700, temperature=1, seed=1)
            thread = threading.Thread(target=lambda: answers.append(client.post("/chat/completions", json=long)))
            thread.start()
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            thread.join()
            assert answers[0].status_code == 200 and answers[0].json()["choices"][0]["finish_reason"]
        assert process.wait(timeout=20) == 0
        with to_serve.read() as connection:
            row = connection.execute(select(exposures).where(exposures.c.request_id == answers[0].json()["id"])).one()
        assert row.status == "ok"


def test_ctrl_c_ends_it_with_nothing_to_complain_about(to_serve: Workspace) -> None:
    with served(to_serve) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_what_outlasts_the_drain_is_told_so_in_openais_shape(to_serve: Workspace) -> None:
    long = body(max_tokens=900, temperature=1, seed=1)
    with served(to_serve, "drain_s=0") as (process, told), httpx.Client(base_url=told["url"], timeout=60) as client:
        assert client.post("/chat/completions", json=body()).status_code == 200
        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(client.post("/chat/completions", json=long)))
        with client.stream("POST", "/chat/completions", json={**long, "stream": True}) as stream:
            lines = stream.iter_lines()
            next(lines)
            thread.start()
            until(told, "/metrics", "rlhf_requests_under_way 2")
            process.send_signal(signal.SIGTERM)
            events = [line for line in lines if line]
        thread.join()
        assert process.wait(timeout=60) == 0
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "draining"
        assert answers[0].status_code == 503 and answers[0].json()["error"]["code"] == "draining"
        assert process.stderr is not None
        err = process.stderr.read()
        assert "Traceback" not in err and "2 requests lasted longer than drain_s=0" in err
    with to_serve.read() as connection:
        states = connection.execute(select(exposures.c.status)).scalars().all()
    assert sorted(states) == ["cancelled", "cancelled", "ok"]


def test_a_second_ctrl_c_cuts_off_what_is_under_way_and_is_an_interrupt(to_serve: Workspace) -> None:
    asked = body(max_tokens=900, temperature=1, seed=1, stream=True)
    with served(to_serve) as (process, told), httpx.Client(base_url=told["url"], timeout=60) as client:
        with client.stream("POST", "/chat/completions", json=asked) as stream:
            lines = stream.iter_lines()
            next(lines)
            process.send_signal(signal.SIGINT)
            until(told, "/ready", "draining")
            process.send_signal(signal.SIGINT)
            events = [line for line in lines if line]
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "draining"
        assert process.wait(timeout=60) == 1
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.read())["error"]["code"] == "interrupted"
        assert "Traceback" not in process.stderr.read()


def test_settings_are_listed_with_their_defaults_and_nothing_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = CommandLine(tmp_path / "none", capsys, monkeypatch)
    told = nowhere.json("serve", "--settings")
    assert {name: one["default"] for name, one in told.items()} == ServeSettings().model_dump()
    assert all(one["help"] for one in told.values()) and "a default, no limit" in told["max_tokens"]["help"]
    lines = nowhere("serve", "--settings").out
    assert all(f"{name}=" in lines for name in told)


def test_fixes_are_spelled_as_the_command_is(
    to_serve: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rlhf = CommandLine(to_serve.root, capsys, monkeypatch)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "--device cpu" in rlhf("serve", "--device", "cuda", "--json").error["fix"]
    assert rlhf("rollout", "start", "a@champion", "a@2", "--kind", "ab", "--why", "trial", "--json").status == 0
    context = rlhf("rollout", "status", "a@champion", "--unit", "u1", "--context", "country", "--json").error
    assert "country=AT" in context["fix"] and "'country' is no fact" in context["message"]
    helped = " ".join(rlhf("people", "token", "--help").out.replace("│", " ").split())
    assert all(scope in helped for scope in people.roles.PERMISSIONS)


def test_what_was_acknowledged_survives_kill_9(to_serve: Workspace) -> None:
    ids = []
    with served(to_serve) as (process, told):
        with httpx.Client(base_url=told["url"], timeout=60) as client:
            for _ in range(5):
                ids.append(client.post("/chat/completions", json=body()).json()["id"])
        process.send_signal(signal.SIGKILL)
        process.wait()
    with to_serve.read() as connection:
        assert set(connection.execute(select(exposures.c.request_id)).scalars()) == set(ids)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "nobody has a token for serving"),
        (["--host", "no.such.host.invalid"], "nobody has a token"),
        (["--port", "70000"], "no port"),
        (["--base", "nobody"], "no base"),
        (["rows=0"], "rows"),
        (["colour=red"], "unknown setting 'colour'"),
        (["--device", "abacus"], "unknown"),
    ],
)
def test_a_server_that_cannot_start_says_why(
    to_serve: Workspace, words: list[str], said: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = CommandLine(to_serve.root, capsys, monkeypatch)("serve", *words, "--json")
    assert answer.status in (1, 2)
    assert said in answer.error["message"]


def test_a_made_token_is_wanted_and_said_so(to_serve: Workspace) -> None:
    token = people.issue_token(to_serve, "app", ["serve"])
    with served(to_serve) as (_, told):
        assert told["wants_token"] is True
        assert httpx.get(told["url"] + "/models").status_code == 401
        assert httpx.get(told["url"] + "/models", headers={"Authorization": f"Bearer {token}"}).status_code == 200
