"""What is sent to the server, on every route: too large, too slow, too deep, twice the same header, too often.

Each is refused in the one shape, and the next request is answered.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from fastapi.testclient import TestClient
from test_web_guard import OPEN, stranger
from test_web_labeler import BASE, add_pair, agreed, choices, client_of
from test_web_serving import served

from rlhf import people
from rlhf.serving import limits
from rlhf.store import Workspace
from rlhf.web import create_app, guard
from rlhf.web.guard import MAX_BODY_BYTES

POSTED = (
    "/api/judgements",
    "/api/undo",
    "/api/heartbeat",
    "/api/agree",
    "/api/appeal",
    "/api/items",
    "/api/board/{item}",
    "/api/appeals/{labeler}",
    "/api/operate/{alias}/rollback",
    "/api/operate/rollouts/{rollout}/{verb}",
    "/api/decisions/{number}/revoke",
    "/api/reviews",
    "/api/withdraw",
    "/logout",
    "/login",
    "/invite",
    "/invite/accept",
)
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
LEASE = b'{"lease": "x", "answer": "left", '


def kind_of(path: str) -> dict[str, str]:
    return JSON if path.startswith("/api/") else FORM


def test_these_are_all_the_routes_that_take_a_body(workspace: Workspace) -> None:
    posted = {route.path for route in create_app(workspace).routes if "POST" in (getattr(route, "methods", None) or ())}
    assert posted == set(POSTED), "a new one needs its place here"
    assert {"/login", "/invite", "/invite/accept"} <= OPEN, "three of them for anybody"


@pytest.mark.parametrize("path", POSTED)
@pytest.mark.parametrize("how", ["announced", "chunked", "lied about"])
def test_a_large_body_is_refused_on_every_route(workspace: Workspace, path: str, how: str) -> None:
    client = client_of(workspace)
    big = b"a=" + b"x" * MAX_BODY_BYTES
    pieces = [big[i : i + 5000] for i in range(0, len(big), 5000)]
    headers = kind_of(path) | ({"Content-Length": "10"} if how == "lied about" else {})
    answer = client.post(path, content=big if how == "announced" else iter(pieces), headers=headers)
    reads_no_body = path in ("/api/undo", "/api/withdraw", "/logout") and how != "announced"
    assert answer.status_code == 413 or (reads_no_body and answer.status_code < 500), answer.text
    if answer.status_code == 413:
        assert answer.json()["error"]["code"] == "too_large"
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", " ", "9" * 19, "9" * 5000, "10, 10", "\u0661"])
def test_a_length_that_is_none_is_refused(workspace: Workspace, length: str) -> None:
    headers: Any = [(b"content-length", length.encode()), (b"content-type", b"application/json")]
    answer = client_of(workspace).post("/api/undo", content=iter([b"{}"]), headers=headers)
    assert answer.status_code == 413 and answer.json()["error"].keys() == {"message", "fix", "code"}


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 60_000,
        b'{"lease":' * 6_000,
        LEASE + b'"note": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        LEASE + b'"strength": ' + b"9" * 5_000 + b"}",
        LEASE + b'"strength": ' + b"9" * 400 + b"}",
        LEASE + b'"strength": -9223372036854775809}',
        LEASE + b'"strength": 1e308}',
        LEASE + b'"seconds": 1e400}',
        LEASE + b'"seconds": -1e400}',
        LEASE + b'"seconds": ' + b"9" * 5_000 + b"}",
        LEASE + b'"seconds": Infinity}',
        LEASE + b'"lease": "y", "__proto__": {"a": 1}}',
        b'{"lease": "' + b"x" * 50_000 + b'", "answer": "left"}',
        b"\x00" * 100,
        b"\xed\xa0\x80",
    ],
    ids=range(15),
)
@pytest.mark.parametrize(
    "path", [path for path in POSTED if path in ("/api/judgements", "/api/heartbeat", "/api/agree", "/api/appeal")]
)
def test_deep_huge_and_broken_json_is_refused(workspace: Workspace, path: str, raw: bytes) -> None:
    answer = client_of(workspace).post(path, content=raw, headers=JSON)
    assert answer.status_code == 400 and answer.json()["error"].keys() == {"message", "fix", "code"}, answer.text[:200]


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("application/x-www-form-urlencoded", b"&".join(b"a%d=1" % i for i in range(7_000))),
        ("application/x-www-form-urlencoded", b"token=" + b"%00" * 10_000),
        ("application/x-www-form-urlencoded", b"token=a&token=b"),
        ("multipart/form-data; boundary=x", b"--x\r\n" * 10_000),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="token"; filename="../../t"\r\n\r\nx\r\n--x--',
        ),
        ("multipart/form-data", b"--x\r\n"),
        ("application/json", b'{"token": "x"}'),
        ("text/plain", b"token=x"),
    ],
    ids=range(8),
)
@pytest.mark.parametrize("path", ["/login", "/invite", "/invite/accept"])
def test_a_form_that_is_none_lets_nobody_in(workspace: Workspace, path: str, kind: str, raw: bytes) -> None:
    answer = stranger(workspace).post(path, content=raw, headers={"Content-Type": kind})
    assert answer.status_code in (400, 403, 413) and answer.json()["error"].keys() == {"message", "fix", "code"}
    assert "set-cookie" not in answer.headers and people.list_accounts(workspace) == []


@pytest.mark.parametrize(
    "name", ["Host", "Content-Length", "Content-Type", "Authorization", "Origin", "Sec-Fetch-Site"]
)
def test_a_header_that_stands_there_twice_is_refused(workspace: Workspace, name: str) -> None:
    """A proxy may have read the one, this server would read the other."""
    value = {"Host": "127.0.0.1:8765", "Content-Length": "2", "Content-Type": "application/json", "Origin": BASE}.get(
        name, "none"
    )
    token = people.issue_token(workspace, "ada")
    agreed(workspace)
    first = {"host": "127.0.0.1:8765", "content-type": "application/json", "authorization": f"Bearer {token}"}
    pairs = [(key.encode(), text.encode()) for key, text in first.items()]
    client = TestClient(create_app(workspace), base_url=BASE)
    for headers in ([*pairs, *[(name.lower().encode(), value.encode())] * 2],):
        answer = client.post("/api/undo", content=b"{}", headers=headers)
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "request_refused", answer.text


def test_a_slow_body_is_given_up(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends a byte now and then doesn't hold the request open for ever; a stranger gets not even that far."""
    monkeypatch.setattr(guard, "BODY_S", 0.3)
    app, token = create_app(workspace), people.issue_token(workspace, "ada")
    agreed(workspace)

    async def posted(path: str, *headers: tuple[bytes, bytes]) -> tuple[int, dict[str, Any], float]:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            await anyio.sleep(0.05)
            return {"type": "http.request", "body": b" ", "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "scheme": "http",
            "http_version": "1.1", "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8765),
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", kind_of(path)["Content-Type"].encode()), *headers],
        }  # fmt: skip
        start = time.monotonic()
        await app(scope, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])["error"], time.monotonic() - start

    bearer = (b"authorization", f"Bearer {token}".encode())
    for path in ("/api/judgements", "/api/agree", "/login", "/invite"):
        status, error, took = anyio.run(posted, path, bearer)
        assert (status, error["code"]) == (408, "too_slow") and 0.3 <= took < 5
    status, error, took = anyio.run(posted, "/api/judgements")
    assert (status, error["code"]) == (401, "unauthenticated") and took < 0.3


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    workspace = Workspace.create(tmp_path_factory.mktemp("raw") / "ws", actor="tester")
    with served(workspace) as (_, told):
        yield int(told["address"].rpartition(":")[2])
    workspace.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: +1\r\n\r\na",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET http://evil.example/health HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n folded: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=range(12),
)
def test_what_is_no_request_is_refused_and_the_next_one_answered(port: int, raw: bytes) -> None:
    """Over a plain socket, as no client library would send it: refused, or left without an answer, and no harm done."""
    assert said_to(port, raw)[:1] in (b"4", b"")
    assert said_to(port, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n") == b"200"


def said_to(port: int, raw: bytes) -> bytes:
    """The status of the answer; nothing where none came within a second."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(raw)
        try:
            answer = connection.recv(65536)
        except OSError:
            return b""
    return answer.split(b" ")[1] if answer else b""


def test_chunks_that_never_end_are_cut_off_at_the_limit(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        )
        connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
        n_sent = 0
        try:
            while n_sent < 50 * MAX_BODY_BYTES:
                connection.sendall(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
                n_sent += 0x1000
        except OSError:
            pass
        try:
            answer = connection.recv(65536)
        except OSError:
            answer = b""
    assert n_sent < 50 * MAX_BODY_BYTES or b" 413 " in answer
    assert answer == b"" or b" 413 " in answer.split(b"\r\n")[0] + b" "


def test_an_account_that_asks_too_often_waits_and_nobody_else_does(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Notes, undos and heartbeats by the thousand: 429 and when to come again; other people aren't held up."""
    now = 1000.0
    monkeypatch.setattr(limits.time, "monotonic", lambda: now)
    app = create_app(workspace)
    clients = {}
    for name in ("ada", "bob"):
        bearer = {"Authorization": f"Bearer {people.issue_token(workspace, name)}"}
        clients[name] = TestClient(app, base_url=BASE, headers=bearer)
        agreed(workspace, name)
    add_pair(workspace, "q?", "good", "bad")
    lease = clients["ada"].get("/api/tasks/next").json()["task"]["lease"]
    flood = [clients["ada"].post("/api/heartbeat", json={"lease": lease}).status_code for _ in range(limits.BURST + 5)]
    assert flood == [200] * (limits.BURST - 1) + [429] * 6
    refused = clients["ada"].post("/api/undo", json={})
    assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "too_often" and "1 s" in refused.json()["error"]["fix"]
    assert clients["bob"].get("/api/progress").status_code == 200
    now += 1
    saved = clients["ada"].post("/api/judgements", json={"lease": lease, "answer": "tie"})
    assert saved.status_code == 200 and choices(workspace) == ["tie"]
