"""The labeler's API: blind, idempotent, and its texts stay text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from rlhf import ids, people
from rlhf.records import Message, Pair
from rlhf.store import Workspace
from rlhf.store.tables import judgements, pair_sources, pairs
from rlhf.web import create_app

BASE = "http://127.0.0.1:8765"
XSS = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg/onload=alert(3)>{{7*7}}</textarea>"


def add_pair(workspace: Workspace, prompt: str, one: str, other: str, source: str = "hh") -> Pair:
    pair = Pair.of([Message("user", prompt)], one, other)
    with workspace.write() as write:
        write.insert_new(
            pairs,
            [
                {
                    "id": pair.id,
                    "prompt": json.dumps([m.as_json() for m in pair.prompt]),
                    "reply_a": pair.reply_a,
                    "reply_b": pair.reply_b,
                    "group_digest": pair.group,
                    "created_at": ids.now_text(),
                }
            ],
        )
        write.insert_new(pair_sources, [{"pair_id": pair.id, "source": source, "details": json.dumps({"gold": "a"})}])
    return pair


def client_of(workspace: Workspace, who: str = "ada") -> TestClient:
    """A program with a bearer token, whose person has agreed to the texts."""
    token = people.issue_token(workspace, who)
    agreed(workspace, who)
    return TestClient(create_app(workspace), base_url=BASE, headers={"Authorization": f"Bearer {token}"})


def agreed(workspace: Workspace, who: str = "ada") -> None:
    guideline, consent = people.current_texts(workspace)
    people.agree(workspace, who, guideline.digest, consent.digest)


def choices(workspace: Workspace) -> list[str]:
    with workspace.read() as connection:
        return list(connection.execute(select(judgements.c.choice).order_by(judgements.c.created_at)).scalars())


def test_task_answer_undo_and_progress(workspace: Workspace) -> None:
    add_pair(workspace, "q?", "good", "bad")
    client = client_of(workspace)
    given = client.get("/api/tasks/next").json()
    assert given["progress"] == {"n_done_today": 0, "n_done": 0, "n_skipped": 0, "n_left": 1}
    task = given["task"]
    assert task["prompt"] == [{"role": "user", "content": "q?"}] and {task["left"], task["right"]} == {"good", "bad"}
    body = {"lease": task["lease"], "answer": "left", "seconds": 2.5, "note": " so "}
    saved = client.post("/api/judgements", json=body)
    assert saved.status_code == 200 and saved.json()["progress"]["n_left"] == 0
    assert client.get("/api/tasks/next").json()["task"] is None
    assert client.get("/api/progress").json() == {"labeler": "ada", "progress": saved.json()["progress"]}
    undone = client.post("/api/undo", json={}).json()
    back = undone["task"]
    assert undone["before"] == {"lease": task["lease"], "note": "so"}, "the labeler's own words come back"
    assert (back["left"], back["right"]) == (task["left"], task["right"])
    assert choices(workspace)[1:] == ["skip"]


def test_lost_acknowledgement_sent_again_counts_once(workspace: Workspace) -> None:
    add_pair(workspace, "q?", "good", "bad")
    client = client_of(workspace)
    lease = client.get("/api/tasks/next").json()["task"]["lease"]
    body = {"lease": lease, "answer": "tie", "seconds": 1}
    first, again = (client.post("/api/judgements", json=body).json() for _ in range(2))
    assert first["judgement"] == again["judgement"]
    refused = client.post("/api/judgements", json={**body, "answer": "left"})
    assert refused.status_code == 409 and refused.json()["error"]["code"] == "conflict"
    assert choices(workspace) == ["tie"]


def test_lease_of_another_person_is_not_found(workspace: Workspace) -> None:
    add_pair(workspace, "q?", "good", "bad")
    lease = client_of(workspace, "ada").get("/api/tasks/next").json()["task"]["lease"]
    refused = client_of(workspace, "bob").post("/api/judgements", json={"lease": lease, "answer": "left"})
    assert refused.status_code == 404 and choices(workspace) == []


def test_page_and_api_stay_blind(workspace: Workspace) -> None:
    """Neither source, gold, pair id, acquisition, shown order nor another's vote leaves the server."""
    pair = add_pair(workspace, "q?", "good", "bad", source="secret-source")
    other = client_of(workspace, "bob")
    client = client_of(workspace)
    task = client.get("/api/tasks/next").json()["task"]
    assert task.keys() == {"lease", "prompt", "left", "right", "expires_at", "nodes"}
    said = client.get("/").text + client.get("/api/tasks/next").text + other.get("/api/tasks/next").text
    for secret in ("secret-source", "gold", pair.id[:12], "shown", "acquisition", "reply_a", '"ab"', '"ba"', "bob"):
        assert secret not in said, secret


@pytest.mark.parametrize(
    "text", [XSS, "שלום עולם", "a\u202eb", "tab\tnew\nline  two spaces", "😀" * 50, "</script>", "&lt;b&gt;"]
)
def test_texts_go_through_unchanged_and_only_as_json(workspace: Workspace, text: str) -> None:
    add_pair(workspace, text, text + " 1", text + " 2")
    client = client_of(workspace)
    answered = client.get("/api/tasks/next")
    task = answered.json()["task"]
    assert answered.headers["content-type"] == "application/json"
    assert task["prompt"][0]["content"] == text and {task["left"], task["right"]} == {text + " 1", text + " 2"}
    assert text + " 1" not in client.get("/").text
    client.post("/api/judgements", json={"lease": task["lease"], "answer": "left", "note": text})
    with workspace.read() as connection:
        assert connection.execute(select(judgements.c.note)).scalar() == text.strip()


def test_script_never_builds_html() -> None:
    """The page's scripts set text; what could turn text into HTML or code doesn't occur in them."""
    import rlhf.web

    for file in (Path(rlhf.web.__file__).parent / "static").glob("*.js"):
        script = file.read_text("utf-8")
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "DOMParser",
            "http:",
            "https:",
        ):
            assert word not in script, f"{file.name}: {word}"


def test_templates_never_switch_escaping_off() -> None:
    import rlhf.web

    for file in (Path(rlhf.web.__file__).parent / "templates").glob("*.html"):
        page = file.read_text("utf-8")
        for word in (
            "|safe",
            "| safe",
            "autoescape",
            "<style",
            "style=",
            "onclick",
            "onload",
            "javascript:",
            "http:",
            "https:",
        ):
            assert word not in page, f"{file.name}: {word}"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"lease": "x"},
        {"lease": "x", "answer": "a"},
        {"lease": "x", "answer": "left", "choice": "a"},
        {"lease": 7, "answer": "left"},
        {"lease": "x", "answer": "left", "note": "n" * 4001},
        {"lease": "x", "answer": "left", "note": "a\x00b"},
        {"lease": "x", "answer": "skip", "reason": "r" * 501},
        {"lease": "x", "answer": "left", "seconds": -1},
        {"lease": "x", "answer": "left", "seconds": "soon"},
        {"lease": "x", "answer": "left", "strength": 9},
        [],
        "left",
        None,
    ],
)
def test_body_that_cannot_be_is_refused_in_the_one_shape(workspace: Workspace, body: object) -> None:
    refused = client_of(workspace).post("/api/judgements", json=body)
    assert refused.status_code == 400 and refused.json()["error"].keys() == {"message", "fix", "code"}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"lease": "x", "answer": "left", "note": "\\ud800"}',
        b'{"lease": "x", "answer": "left", "seconds": NaN}',
        b'{"lease": "x", "answer": "left", "seconds": 1e999}',
    ],
)
def test_body_that_is_no_json_is_refused_in_the_one_shape(workspace: Workspace, raw: bytes) -> None:
    refused = client_of(workspace).post("/api/judgements", content=raw, headers={"Content-Type": "application/json"})
    assert refused.status_code == 400 and refused.json()["error"].keys() == {"message", "fix", "code"}


def test_token_without_the_scope_may_not_label(workspace: Workspace) -> None:
    add_pair(workspace, "q?", "good", "bad")
    token = people.issue_token(workspace, "eve", ["evaluate"])
    client = TestClient(create_app(workspace), base_url=BASE, headers={"Authorization": f"Bearer {token}"})
    first = client.get("/", follow_redirects=False)
    assert (first.status_code, first.headers["location"]) == (303, "/decisions"), (
        "who evaluates has a page of their own"
    )
    for path in ("/api/tasks/next", "/api/progress"):
        assert client.get(path).status_code == 403
    for path, body in (("/api/judgements", {"lease": "x", "answer": "left"}), ("/api/undo", {})):
        assert client.post(path, json=body).status_code == 403


def test_nobody_gets_a_pair_before_they_agreed_and_a_new_text_asks_again(workspace: Workspace) -> None:
    add_pair(workspace, "q?", "good", "bad")
    token = people.issue_token(workspace, "ada")
    client = TestClient(create_app(workspace), base_url=BASE, headers={"Authorization": f"Bearer {token}"})
    for refused in (
        client.get("/api/tasks/next"),
        client.post("/api/undo", json={}),
        client.post("/api/judgements", json={"lease": "x", "answer": "tie"}),
    ):
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "agreement_wanted")
    texts = client.get("/api/texts").json()
    assert texts["guideline"]["nodes"][1][0] == "ul" and texts["consent"]["nodes"][0][0] == "p", "read as Markdown"
    assert texts["agreement"] is None and texts["consent"]["scopes"] == ["evaluate", "train"]
    read = {"guideline": texts["guideline"]["digest"], "consent": texts["consent"]["digest"]}
    assert client.post("/api/agree", json={**read, "consent": "0" * 64}).json()["error"]["code"] == "conflict"
    assert client.post("/api/agree", json=read).json()["agreement"]["in_force"] is True
    lease = client.get("/api/tasks/next").json()["task"]["lease"]
    people.publish_text(workspace, "consent", "For measuring alone.", scopes=["evaluate"])
    answer = {"lease": lease, "answer": "left"}
    assert "have changed" in client.post("/api/judgements", json=answer).json()["error"]["message"]
    agreed(workspace)
    assert client.post("/api/judgements", json=answer).status_code == 200
    with workspace.read() as connection:
        kept = connection.execute(select(judgements)).one()
    assert (kept.consent, kept.guideline) == ("evaluate", read["guideline"])


def test_who_takes_consent_back_gets_no_more_pairs(workspace: Workspace) -> None:
    add_pair(workspace, "q?", "good", "bad")
    client = client_of(workspace)
    assert client.post("/api/withdraw", json={}).json()["agreement"]["withdrawn"] is True
    assert client.get("/api/tasks/next").json()["error"]["message"] == "you took your consent back"
    assert client.post("/api/withdraw", json={}).status_code == 409


def test_a_heartbeat_keeps_a_pair_on_its_labelers_screen(workspace: Workspace) -> None:
    add_pair(workspace, "q?", "good", "bad")
    start = ids.now().timestamp()
    ada, bob = client_of(workspace), client_of(workspace, "bob")
    with ids.clock_at(start):
        task = ada.get("/api/tasks/next").json()["task"]
    with ids.clock_at(start + 20 * 60):
        assert ada.post("/api/heartbeat", json={"lease": task["lease"]}).json()["expires_at"] > task["expires_at"]
        assert bob.post("/api/heartbeat", json={"lease": task["lease"]}).status_code == 404
    with ids.clock_at(start + 45 * 60):
        assert bob.get("/api/tasks/next").json()["task"] is None
        assert ada.post("/api/judgements", json={"lease": task["lease"], "answer": "tie"}).status_code == 200
        assert ada.post("/api/heartbeat", json={"lease": task["lease"]}).status_code == 409


def test_the_next_pair_comes_with_the_acknowledgement_where_it_is_asked_for(workspace: Workspace) -> None:
    for i in range(3):
        add_pair(workspace, f"q{i}?", "good", "bad")
    client = client_of(workspace)
    task = client.get("/api/tasks/next").json()["task"]
    body = {"lease": task["lease"], "answer": "tie", "next": True}
    saved = client.post("/api/judgements", json=body).json()
    assert saved["task"]["lease"] != task["lease"] and saved["progress"]["n_done"] == 1
    assert client.get("/api/tasks/next").json()["task"] == saved["task"]
    assert client.post("/api/judgements", json=body).json() == saved, "sent again: the same answer, the same next pair"
    last = client.post("/api/judgements", json={"lease": saved["task"]["lease"], "answer": "left"}).json()
    assert last.keys() == {"judgement", "progress"}
