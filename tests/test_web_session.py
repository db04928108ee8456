"""Coming in: an invitation makes an account, an agreement and a session, all or nothing; each log-in is a new session."""

from __future__ import annotations

from fastapi.testclient import TestClient
from test_web_labeler import BASE

from rlhf import people
from rlhf.store import Workspace
from rlhf.web import create_app


def visitor(workspace: Workspace) -> TestClient:
    return TestClient(create_app(workspace), base_url=BASE, headers={"Origin": BASE}, follow_redirects=False)


def test_who_is_invited_reads_agrees_and_is_in(workspace: Workspace) -> None:
    client, code = visitor(workspace), people.invite(workspace)
    asked = client.post("/invite", data={"code": code}).json()
    read = {"guideline": asked["guideline"]["digest"], "consent": asked["consent"]["digest"]}
    assert asked["roles"] == ["labeler"] and asked["consent"]["scopes"] == ["evaluate", "train"]
    assert client.post("/invite/accept", data={"code": code, **read, "consent": "0" * 64}).status_code == 409
    assert people.list_accounts(workspace) == [], "an invitation that failed on the way isn't used up"
    assert client.post("/invite/accept", data={"code": code, **read}).headers["location"] == "/"
    assert client.get("/api/tasks/next").status_code == 200
    again = visitor(workspace).post("/invite/accept", data={"code": code, **read})
    assert again.status_code == 403 and "set-cookie" not in again.headers


def test_the_pages_address_never_holds_a_code(workspace: Workspace) -> None:
    client, code = visitor(workspace), people.invite(workspace)
    assert client.get("/invite").status_code == 200
    assert client.get("/invite", params={"code": code}).text == client.get("/invite").text
    assert people.look(workspace, code).state == "open"


def test_a_log_in_rotates_the_session_and_the_log_out_ends_it_on_the_server(workspace: Workspace) -> None:
    client, token = visitor(workspace), people.issue_token(workspace, "ada")
    words = []
    for _ in range(2):
        client.post("/login", data={"token": token})
        words.append(next(iter(client.cookies.jar)).value)
    assert words[0] != words[1] and token not in words
    stolen = [
        visitor(workspace).get("/api/progress", headers={"Authorization": f"Bearer {word}"}).status_code
        for word in words
    ]
    assert stolen == [401, 200]
    client.post("/logout")
    assert visitor(workspace).get("/api/progress", headers={"Authorization": f"Bearer {words[1]}"}).status_code == 401
