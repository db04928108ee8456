"""The server as people start it: its link logs in, and what it has acknowledged survives kill -9."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import select
from test_web_labeler import add_pair, agreed

from rlhf import people
from rlhf.store import Workspace
from rlhf.store.tables import judgements, leases

# The command itself, without the rest of the tree.
_COMMAND = "import sys, typer; from rlhf.cli import web; app = typer.Typer(); web.register(app); app(sys.argv[1:])"


@contextmanager
def served(workspace: Workspace, *words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """`rlhf web` in a process of its own, and what it printed."""
    env = {**os.environ, "RLHF_SQLITE_SYNC": "full"}
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, "web", "--port", "0", "--json", "--workspace", str(workspace.root), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def test_first_start_prints_one_admins_link_until_somebody_followed_it(workspace: Workspace) -> None:
    codes = []
    for _ in range(2):
        with served(workspace) as (_, told):
            address, _, code = told["link"].partition("/invite#code=")
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address)
            codes.append(code)
            if len(codes) == 1:
                continue
            with httpx.Client(base_url=address, headers={"Origin": address, "Accept": "application/json"}) as client:
                assert client.post("/invite", data={"code": codes[0]}).status_code == 403, "the link before it is shut"
                asked = client.post("/invite", data={"code": code}).json()
                assert asked["roles"] == ["admin"]
                read = {"guideline": asked["guideline"]["digest"], "consent": asked["consent"]["digest"]}
                assert client.post("/invite/accept", data={"code": code, **read}).status_code == 303
                assert client.get("/api/progress").json()["labeler"] == "admin"
                assert client.post("/invite/accept", data={"code": code, **read}).status_code == 403, "once"
    with served(workspace) as (_, told):
        assert told["link"] is None
    assert [account.roles for account in people.list_accounts(workspace)] == [("admin",)]


def test_acknowledged_answers_survive_kill_9(workspace: Workspace) -> None:
    for i in range(6):
        add_pair(workspace, f"q{i}?", "good", "bad")
    token = people.issue_token(workspace, "ada")
    agreed(workspace)
    acknowledged = []
    with served(workspace) as (process, told):
        with httpx.Client(base_url=told["address"], headers={"Authorization": f"Bearer {token}"}) as client:
            for word in ("left", "right", "tie", "skip"):
                lease = client.get("/api/tasks/next").json()["task"]["lease"]
                saved = client.post("/api/judgements", json={"lease": lease, "answer": word}).json()
                acknowledged.append((lease, saved["judgement"]))
        process.send_signal(signal.SIGKILL)
        process.wait()
    with workspace.read() as connection:
        kept = set(connection.execute(select(judgements.c.id)).scalars())
        used = {row.id: row.judgement_id for row in connection.execute(select(leases))}
    assert kept == {judgement for _, judgement in acknowledged}
    assert all(used[lease] == judgement for lease, judgement in acknowledged)


def test_answer_sent_again_after_a_crash_counts_once(workspace: Workspace) -> None:
    """The acknowledgement is lost with the server; the page sends the answer again to the next one."""
    add_pair(workspace, "q?", "good", "bad")
    headers = {"Authorization": f"Bearer {people.issue_token(workspace, 'ada')}"}
    agreed(workspace)
    ids = []
    for _ in range(2):
        with served(workspace) as (process, told):
            if not ids:
                task = httpx.get(told["address"] + "/api/tasks/next", headers=headers).json()["task"]
                body = {"lease": task["lease"], "answer": "left"}
            ids.append(httpx.post(told["address"] + "/api/judgements", json=body, headers=headers).json()["judgement"])
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert ids[0] == ids[1]


def test_ctrl_c_ends_the_server_in_order(workspace: Workspace) -> None:
    with served(workspace) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0


@pytest.mark.parametrize(
    "words", [["--port", "70000"], ["--host", "no.such.host.invalid"], ["--host", "0.0.0.0"], ["--overlap", "0"]]
)
def test_server_that_cannot_start_says_why(workspace: Workspace, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, "web", "--workspace", str(workspace.root), *words],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode != 0
    assert people.list_invitations(workspace) == []  # a link that nobody saw is no link
