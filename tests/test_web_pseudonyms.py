"""Who logs in is known outside by a pseudonym alone: their e-mail, IP and user agent are in no row, export, log or URL."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select
from test_web_labeler import BASE, add_pair, client_of
from test_web_serving import served

from rlhf import feedback, people
from rlhf.errors import RlhfError
from rlhf.store import Workspace
from rlhf.store.tables import judgements, metadata

AGENT = "Observed-Browser/77.7 (telling)"
ADDRESS = "203.0.113.77"
MAIL = "visitor@mail.example"
TELLING = (AGENT.encode(), ADDRESS.encode(), MAIL.encode(), b"127.0.0.1")
HEADERS = {
    "User-Agent": AGENT,
    "X-Forwarded-For": ADDRESS,
    "Forwarded": f"for={ADDRESS}",
    "From": MAIL,
    "Accept": "application/json",
}


def test_a_visit_leaves_neither_address_nor_agent_anywhere(workspace: Workspace, tmp_path: Path) -> None:
    """Through the command as people start it: an invitation, an answer, a refusal and a fault, then everything is read."""
    add_pair(workspace, "q?", "good", "bad")
    code, addresses = people.invite(workspace), []
    with served(workspace) as (process, told):
        origin = {"Origin": told["address"]}
        with httpx.Client(base_url=told["address"], headers={**HEADERS, **origin}) as client:
            asked = client.post("/invite", data={"code": code}).json()
            read = {"guideline": asked["guideline"]["digest"], "consent": asked["consent"]["digest"]}
            came_in = client.post("/invite/accept", data={"code": code, **read})
            task = client.get("/api/tasks/next").json()["task"]
            body = {"lease": task["lease"], "answer": "left", "note": f"I am {MAIL} at {ADDRESS}"}
            answers = [came_in, client.post("/api/judgements", json=body), client.get("/api/progress")]
            answers += [client.get("/no/such/page"), client.post("/login", data={"token": "wrong"})]
            addresses = [str(a.request.url) for a in answers] + [a.headers.get("location", "") for a in answers]
            assert [a.status_code for a in answers[:3]] == [303, 200, 200]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    who = answers[2].json()["labeler"]
    assert "@" not in who and not re.search(r"\d+\.\d+\.\d+\.\d+", who)
    paths = [address.removeprefix(told["address"]) for address in addresses]
    feedback.export(workspace, tmp_path / "out.jsonl")
    kept = {path: path.read_bytes() for path in workspace.root.rglob("*") if path.is_file()}
    said = {
        "export": (tmp_path / "out.jsonl").read_bytes(),
        "log": (out + err).encode(),
        "URLs": " ".join(paths).encode(),
    }
    for where, raw in {**kept, **said}.items():
        assert [word for word in TELLING if word in raw] == [], f"in {where}"
    assert who.encode() in said["export"], "the pseudonym is what an export names"
    with workspace.read() as connection:
        assert connection.scalar(select(judgements.c.note)) == "I am <EMAIL> at <IP>"


def test_an_error_is_logged_without_who_met_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add_pair(workspace, "q?", "good", "bad")
    client = client_of(workspace)
    client.headers.update(HEADERS)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("rlhf.labeling.next_task", fail)
    assert client.get(f"{BASE}/api/tasks/next?from={MAIL}").status_code == 500
    assert "failed" in caplog.text
    assert [word for word in TELLING[:3] if word.decode() in caplog.text] == []


def test_no_table_has_a_place_for_an_address_or_an_agent() -> None:
    columns = {f"{table.name}.{column.name}" for table in metadata.sorted_tables for column in table.columns}
    assert [name for name in columns if re.search(r"e_?mail|(\b|_)ip(\b|_)|agent|address|phone", name)] == []


def test_an_e_mail_address_is_no_name_of_a_person(workspace: Workspace) -> None:
    for add in (people.issue_token, lambda *words: people.add(*words, ("labeler",))):
        with pytest.raises(RlhfError, match="e-mail"):
            add(workspace, MAIL)
    assert people.list_accounts(workspace) == []
