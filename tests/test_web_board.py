"""Reports from the page and the board over HTTP: one's own alone, nobody's change lost, nobody clears what they reported."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from test_web_labeler import BASE, XSS, add_pair, agreed, client_of

from rlhf import board, people, snapshots
from rlhf.board import changing
from rlhf.store import Workspace
from rlhf.web import create_app


def expert(workspace: Workspace, name: str = "eva", role: str = "reviewer", scopes: tuple[str, ...] = ()) -> TestClient:
    people.add(workspace, name, [role])
    agreed(workspace, name)
    token = people.issue_token(workspace, name, scopes or people.ROLES[role])
    return TestClient(
        create_app(workspace), base_url=BASE, headers={"Authorization": f"Bearer {token}"}, follow_redirects=False
    )


def report(client: TestClient, kind: str = "safety", text: str | None = "it could harm") -> Any:
    lease = client.get("/api/tasks/next").json()["task"]["lease"]
    return client.post("/api/items", json={"lease": lease, "kind": kind, "text": text})


def test_a_report_is_masked_told_and_once(workspace: Workspace) -> None:
    pair = add_pair(workspace, "q?", "good", "bad")
    ada = client_of(workspace)
    said = report(ada, text=" mail ann@example.org ")
    assert said.status_code == 200
    item = said.json()["item"]
    assert item["text"] == "mail <EMAIL>" and item["status"] == "new" and "An expert has to clear it" in item["told"][1]
    assert report(ada, text="mail ann@example.org").json()["item"]["id"] == item["id"]
    assert ada.get("/api/items").json() == {"items": [item]}
    assert ada.get(f"/api/items/{item['id']}").json() == {"item": item}
    assert pair.id[:12] not in ada.get("/api/items").text
    (kept,) = board.list_items(workspace)
    assert (kept.pair_id, kept.given_by, kept.channel, kept.is_held) == (pair.id, "ada", "web", True)


def test_another_s_report_looks_like_none(workspace: Workspace) -> None:
    add_pair(workspace, "q?", "good", "bad")
    item = report(client_of(workspace)).json()["item"]["id"]
    bob = client_of(workspace, "bob")
    assert bob.get("/api/items").json() == {"items": []}
    asked = [bob.get(f"/api/items/{word}") for word in (item, item[:8], "0" * 26, "%25", "x")]
    assert {answer.status_code for answer in asked} == {404} and len({answer.text for answer in asked}) == 1


def test_a_source_s_labeler_of_the_same_name_is_another_person(workspace: Workspace) -> None:
    board.add(workspace.as_actor("bob"), kind="bug", text="mine", given_by="bob")
    with workspace.write() as write:
        changing.add_in(
            write, kind="bug", risk=None, channel="chat", pair_id=None, comment=None, body="not bob's", given_by="bob", once="x",
            rule="bug words",
        )  # fmt: skip
    said = client_of(workspace, "bob").get("/api/items").json()["items"]
    assert [item["text"] for item in said] == ["mine"]


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "preference", "text": "x"}, {"kind": "safety", "text": "x" * 2001}, {"kind": "bug", "text": " "},
        {"kind": "bug", "text": "a\x00b"}, {"kind": "bug", "text": "x", "status": "done"}, {"text": "x"},
    ],
)  # fmt: skip
def test_what_cannot_be_a_report_is_refused(workspace: Workspace, body: dict[str, Any]) -> None:
    add_pair(workspace, "q?", "good", "bad")
    ada = client_of(workspace)
    lease = ada.get("/api/tasks/next").json()["task"]["lease"]
    refused = ada.post("/api/items", json={"lease": lease, **body})
    assert refused.status_code == 400 and board.list_items(workspace) == ()


def test_a_lease_of_another_person_reports_nothing(workspace: Workspace) -> None:
    add_pair(workspace, "q?", "good", "bad")
    lease = client_of(workspace).get("/api/tasks/next").json()["task"]["lease"]
    bob = client_of(workspace, "bob")
    asked = [bob.post("/api/items", json={"lease": word, "kind": "safety"}) for word in (lease, "0" * 26)]
    assert {answer.status_code for answer in asked} == {404} and len({answer.text for answer in asked}) == 1
    assert board.list_items(workspace) == ()


def test_reports_have_a_pace(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changing, "MAX_REPORTS_AN_HOUR", 3)
    add_pair(workspace, "q?", "good", "bad")
    ada = client_of(workspace)
    answers = [report(ada, text=f"words {i}").status_code for i in range(5)]
    assert answers == [200, 200, 200, 429, 429]
    assert report(ada, text="words 1").status_code == 200, "the same again is no further one"


def test_the_board_is_moved_and_nobody_s_change_is_lost(workspace: Workspace) -> None:
    add_pair(workspace, "q?", "good", "bad")
    item = report(client_of(workspace), "bug", XSS).json()["item"]["id"]
    op, eva = expert(workspace, "op", "operator"), expert(workspace)
    (card,) = op.get("/api/board").json()["items"]
    assert card["text"] == XSS and card["given_by"] == "ada"
    move = {"seen": card["seq"], "impact": 5, "effort": 1, "status": "triaged", "owner": "eva"}
    moved = op.post(f"/api/board/{item}", json=move).json()["item"]
    assert (moved["impact"], moved["effort"], moved["status"], moved["owner"]) == (5, 1, "triaged", "eva")
    late = eva.post(f"/api/board/{item}", json={"seen": card["seq"], "status": "declined"})
    assert late.status_code == 409 and "changed meanwhile" in late.json()["error"]["message"]
    shown = eva.get(f"/api/board/{item}").json()
    assert [entry["who"] for entry in shown["log"]] == ["ada", "op"] and len(shown["replies"]) == 2
    assert op.get("/api/board", params={"status": "done"}).json()["items"] == []
    assert op.get("/api/board", params={"status": ["new", "triaged"], "kind": "bug"}).json()["n_shown"] == 1
    back = eva.post(f"/api/board/{item}", json={"seen": moved["seq"], "impact": None, "owner": None}).json()["item"]
    assert back["impact"] is None and back["owner"] is None and back["effort"] == 1


@pytest.mark.parametrize("status", ["done", "declined"])
def test_what_is_closed_says_why_and_what_is_held_stays_among_the_open(workspace: Workspace, status: str) -> None:
    pair = add_pair(workspace, "q?", "good", "bad")
    bug = board.add(workspace, kind="bug", text="odd")
    held = board.add(workspace, kind="safety", pair=pair.id)
    eva = expert(workspace)
    for item in (bug, held):
        for why in (None, "  "):
            refused = eva.post(f"/api/board/{item.id}", json={"seen": item.seq, "status": status, "why": why})
            assert refused.status_code == 400 and f"{status} says why" in refused.json()["error"]["message"]
        moved = eva.post(f"/api/board/{item.id}", json={"seen": item.seq, "status": status, "why": "seen to"})
        assert moved.json()["item"]["status"] == status
        again = {"seen": moved.json()["item"]["seq"], "effort": 2}
        assert eva.post(f"/api/board/{item.id}", json=again).status_code == 200, "what is closed needn't say it again"
    ids = [
        [one["id"] for one in eva.get("/api/board", params={"open": word}).json()["items"]]
        for word in ("true", "false")
    ]
    assert ids == [[held.id], [bug.id]]


@pytest.mark.parametrize(
    "body",
    [{}, {"seen": 1}, {"seen": 1, "impact": 6}, {"seen": 1, "impact": "3"}, {"seen": 1, "status": "gone"},
     {"seen": 1, "cleared": False}, {"seen": 1, "given_by": "bob"}, {"impact": 3}, {"seen": 1, "kind": None}],
)  # fmt: skip
def test_what_cannot_be_a_move_is_refused(workspace: Workspace, body: dict[str, Any]) -> None:
    item = board.add(workspace, kind="bug", text="odd")
    assert expert(workspace).post(f"/api/board/{item.id}", json=body).status_code == 400
    assert board.get(workspace, item.id) == item


def test_the_board_shows_the_replies_as_who_reported_them_saw_them(workspace: Workspace) -> None:
    for i in range(8):  # the sides are drawn: both orders are among eight, but for one chance in 128
        add_pair(workspace, f"question {i}?", f"good {i}", f"bad {i}")
    eva, orders = expert(workspace), set()
    for i in range(8):
        who = client_of(workspace, f"labeler{i}")
        task = who.get("/api/tasks/next").json()["task"]
        made = who.post("/api/items", json={"lease": task["lease"], "kind": "bug", "text": "Reply 1 is odd"}).json()[
            "item"
        ]
        assert eva.get(f"/api/board/{made['id']}").json()["replies"] == [task["left"], task["right"]]
        orders.add(board.get(workspace, made["id"]).shown)
    assert orders == {"ab", "ba"}


def test_clearing_over_http_takes_another_reviewer_and_their_token_s_scope(workspace: Workspace) -> None:
    add_pair(workspace, "q?", "good", "bad")
    eva = expert(workspace)
    item = report(eva).json()["item"]["id"]
    seen = board.get(workspace, item).seq
    clear = {"seen": seen, "cleared": True, "why": "fiction"}
    own = eva.post(f"/api/board/{item}", json=clear)
    assert own.status_code == 403 and "nobody clears what they reported" in own.json()["error"]["message"]
    for client in (expert(workspace, "op", "operator"), expert(workspace, "adm", "admin", ("promote",))):
        for body in (clear, {"seen": seen, "kind": "bug", "why": "no"}):
            assert client.post(f"/api/board/{item}", json=body).status_code == 403
    assert board.get(workspace, item).is_held
    ben = expert(workspace, "ben")
    assert ben.post(f"/api/board/{item}", json={"seen": seen, "cleared": True}).status_code == 400, "it says why"
    assert ben.post(f"/api/board/{item}", json=clear).json()["item"]["is_held"] is False
    told = " ".join(eva.get(f"/api/items/{item}").json()["item"]["told"])
    assert "Cleared by an expert" in told and "fiction" in told and "ben" not in told


def test_who_reported_reads_which_model_learnt_from_it(workspace: Workspace) -> None:
    add_pair(workspace, "q?", "good", "bad")
    ada = client_of(workspace)
    item = report(ada, "bug", "odd").json()["item"]["id"]
    lease = ada.get("/api/tasks/next").json()["task"]["lease"]
    ada.post("/api/judgements", json={"lease": lease, "answer": "left"})
    snapshots.cut(workspace, "x", holdout=0)
    told = ada.get(f"/api/items/{item}").json()["item"]["told"]
    assert any("part of the snapshot x@1, to learn from" in line for line in told)


def test_an_operator_is_sent_to_the_board_and_a_labeler_sees_no_link(workspace: Workspace) -> None:
    sent = expert(workspace, "op", "operator").get("/")
    assert sent.status_code == 303 and sent.headers["location"] == "/board"
    assert "/board" not in client_of(workspace).get("/").text and "/board" in expert(workspace).get("/").text
