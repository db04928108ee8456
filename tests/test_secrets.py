"""Tokens, log-ins, invitations, the workspace's key and the database's password stand in no log, answer, metric, row or error."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import _new_database
from serving_made import HELLO, publish_policy
from sqlalchemy import select, text

from rlhf import engine, people
from rlhf.errors import RlhfError
from rlhf.registry import aliases
from rlhf.store import Workspace
from rlhf.store.tables import metadata

PASSWORD = "geheim-0f9e8d7c6b5a"


def with_password(url: str) -> str:
    return re.sub(r"//([^:/@]*)(:[^@/]*)?@", rf"//\1:{PASSWORD}@", url)


class Seen:
    """Everything that came out, each with where it came from."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    def add(self, where: str, found: str) -> None:
        self.texts.append((where, found))

    def answer(self, response: httpx.Response) -> httpx.Response:
        head = "\n".join(f"{k}: {v}" for k, v in response.headers.items() if k != "set-cookie")
        self.add(f"{response.request.method} {response.request.url.path}", f"{head}\n{response.text}")
        return response

    def leaks(self, secrets: dict[str, str]) -> list[str]:
        return [f"{name} in {where}" for where, found in self.texts for name, word in secrets.items() if word in found]


@contextmanager
def started(root: Path, seen: Seen, *words: str) -> Iterator[str]:
    """A server as people start it: its address. What it wrote is seen when it has ended."""
    out, log = root.parent / f"{words[0]}.out", root.parent / f"{words[0]}.log"
    command = [sys.executable, "-m", "rlhf.cli", *words, "--port", "0", "--json", "--workspace", str(root)]
    with open(out, "w+") as to, open(log, "w") as err:
        process = subprocess.Popen(command, stdout=to, stderr=err)
        try:
            while not (line := out.read_text("utf-8")).endswith("\n"):
                assert process.poll() is None, log.read_text("utf-8")
            yield json.loads(line)["address"]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            for file in (out, log):
                seen.add(file.name, file.read_text("utf-8"))


def commands(root: Path, seen: Seen, *lines: str) -> None:
    """Each command's output, JSON and log, whatever its end is."""
    for line in lines:
        words = [sys.executable, "-m", "rlhf.cli", *line.split(), "--json", "--workspace", str(root)]
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "RLHF_ACTOR": "tester"})
        seen.add(f"rlhf {line}", f"{done.stdout}\n{done.stderr}")


def provoked_in_serving(address: str, token: str, seen: Seen, break_store: Callable[[str], None]) -> None:
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
        chat = {"model": "a", "messages": HELLO, "max_tokens": 4}

        def ask(path: str, **more: Any) -> int:
            return seen.answer(client.post(path, **more)).status_code

        assert ask("/v1/chat/completions", json=chat) == 200
        assert ask("/v1/chat/completions", json={**chat, "model": "nobody"}) == 404
        assert ask("/v1/chat/completions", json={**chat, "max_tokens": "many"}) == 400
        assert ask("/v1/chat/completions", content=b"{", headers={"Content-Type": "application/json"}) == 400
        assert ask("/v1/chat/completions", json=chat, headers={"Authorization": f"Bearer {token}x"}) == 401
        assert ask("/v1/chat/completions", json=chat, headers={"Authorization": f"Basic {token}"}) == 401
        assert ask("/v1/chat/completions", json=chat, headers={"Host": "elsewhere.example"}) == 400
        assert ask("/v1/aliases/a@champion/actions/rollback", json={"why": "no"}) == 403
        assert seen.answer(client.get("/metrics")).status_code == 200
        break_store("exposures")
        assert ask("/v1/chat/completions", json=chat) >= 500
        assert seen.answer(client.get("/v1/models")).status_code == 200


def provoked_in_the_pages(address: str, token: str, code: str, seen: Seen, break_store: Callable[[str], None]) -> str:
    """The log-in's own word, which is a secret too. Behind TLS the cookie is for TLS alone."""
    secure = {"X-Forwarded-Proto": "https", "Accept": "text/html"}
    with httpx.Client(base_url=address, timeout=60) as client:
        came_in = seen.answer(client.post("/login", data={"token": token}, headers=secure))
        assert came_in.status_code == 303 and "secure" in came_in.headers["set-cookie"].lower()
        plain = seen.answer(client.post("/login", data={"token": token}))
        assert "secure" not in plain.headers["set-cookie"].lower()
        (word,) = plain.cookies.values()
        assert seen.answer(client.get("/api/operate")).status_code == 200
        assert seen.answer(client.post("/invite", data={"code": code})).status_code == 200
        assert seen.answer(client.post("/invite", data={"code": f"{code}x"})).status_code == 403
        assert seen.answer(client.post("/login", data={"token": f"{token}x"})).status_code == 403
        bad = seen.answer(client.post("/api/operate/a@champion/rollback", json={"seen": token}))
        assert bad.status_code == 400
        break_store("alias_gates")
        assert seen.answer(client.get("/api/operate")).status_code == 500
        seen.answer(client.get(f"/?token={token}x", headers={"Accept": "text/html"}))
    return word


@pytest.mark.postgres
@pytest.mark.slow
def test_no_secret_stands_in_what_servers_and_commands_write(
    postgres_url: str, tmp_path: Path, tiny_folder: Path
) -> None:
    workspace = Workspace.create(tmp_path / "ws", database=with_password(_new_database(postgres_url)), actor="tester")
    assert PASSWORD in (workspace.root / "workspace.yaml").read_text("utf-8")
    base = engine.add_from_dir(workspace, "tiny", tiny_folder)
    publish_policy(workspace, base, tmp_path / "a", 1)
    aliases.move(workspace, "a@champion", "a@1", why="first")
    people.add(workspace, "op", ["operator"])
    serving = people.issue_token(workspace, "app", ("serve", "evaluate"))
    secrets = {
        "the serving token": serving,
        "the page's token": people.issue_token(workspace, "op", ("evaluate", "roll_back")),
    }
    secrets |= {
        "the invitation": people.invite(workspace, ["labeler"]),
        "the password": PASSWORD,
        "the key": workspace.key,
    }

    def break_store(table: str) -> None:
        with workspace.database.engine.begin() as connection:
            connection.execute(text(f"alter table {table} rename to {table}_gone"))

    def mend(table: str) -> None:
        with workspace.database.engine.begin() as connection:
            connection.execute(text(f"alter table {table}_gone rename to {table}"))

    seen = Seen()
    with started(workspace.root, seen, "serve") as address:
        provoked_in_serving(address, serving, seen, break_store)
    mend("exposures")
    with started(workspace.root, seen, "web") as address:
        pages = secrets["the page's token"], secrets["the invitation"]
        secrets["the log-in"] = provoked_in_the_pages(address, *pages, seen, break_store)
    mend("alias_gates")
    commands(workspace.root, seen, "doctor", "people list", "alias list", "run list", "label status", "gc --dry-run")
    commands(workspace.root, seen, "backup out.tar", "alias rollback a@champion --why no", "adapter verify")
    with workspace.read() as connection:
        for table in metadata.sorted_tables:
            seen.add(f"table {table.name}", "\n".join(str(tuple(row)) for row in connection.execute(select(table))))
    for file in (*(workspace.root / "runs").rglob("*"), *(workspace.root / "cache").rglob("*")):
        if file.is_file():
            seen.add(file.name, file.read_bytes().decode("utf-8", "replace"))
    workspace.close()
    assert all(len(word) >= 16 for word in secrets.values()), "a word that is no secret would be found nowhere"
    assert "Traceback" in dict(seen.texts)["web.log"], "an error of the server must have been logged"
    assert seen.leaks(secrets) == []


UNREACHABLE = {
    "nobody listens": f"postgresql://rlhf:{PASSWORD}@127.0.0.1:9/rlhf",
    "no such host": f"postgresql://rlhf:{PASSWORD}@nowhere.invalid/rlhf",
    "no port": f"postgresql://rlhf:{PASSWORD}@127.0.0.1:port/rlhf",
    "no driver": f"mysql://rlhf:{PASSWORD}@127.0.0.1/rlhf",
    "an option": f"postgresql://127.0.0.1:9/rlhf?user=rlhf&password={PASSWORD}",
    "an unknown option": f"postgresql://127.0.0.1:9/rlhf?passwort=x&password={PASSWORD}",
}


@pytest.mark.parametrize("how", UNREACHABLE)
def test_a_database_that_cannot_be_reached_is_named_without_its_password(
    workspace: Workspace, tmp_path: Path, how: str
) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with pytest.raises(RlhfError) as made:
        Workspace.create(tmp_path / "new", database=UNREACHABLE[how])
    workspace.close()
    settings = workspace.root / "workspace.yaml"
    settings.write_text(settings.read_text("utf-8").replace("rlhf.db", f"'{UNREACHABLE[how]}'"), "utf-8")
    with pytest.raises(RlhfError) as opened:
        Workspace.open(workspace.root)
    for refused in (made.value, opened.value):
        assert PASSWORD not in f"{refused.message} {refused.fix}"
