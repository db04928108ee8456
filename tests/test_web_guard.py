"""The guard: nothing is open that wasn't opened, and every answer has the same headers and errors the same shape."""

from __future__ import annotations

import logging

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.routing import Mount, Route
from test_web_labeler import BASE, add_pair, agreed, client_of

from rlhf import ids, people
from rlhf.errors import Conflict, Forbidden
from rlhf.serving.limits import MAX_FAILURES
from rlhf.store import Workspace
from rlhf.web import create_app, serve
from rlhf.web.guard import MAX_BODY_BYTES, cookie_name

OPEN = {"/login", "/invite", "/invite/accept", "/health", "/static"}
API = ("tasks/next", "judgements", "undo", "progress", "heartbeat", "texts", "agree", "withdraw", "appeal")
ITEMS = ("items", "items/{item}", "board", "board/{item}", "appeals", "appeals/{labeler}")
OPERATE = ("operate", "operate/{alias}", "operate/{alias}/rollback", "operate/rollouts/{rollout}/{verb}")
DECISIONS = ("decisions", "decisions/{number}", "decisions/{number}/revoke", "reviews")
PAGE = {"Accept": "text/html"}


def stranger(workspace: Workspace, app: FastAPI | None = None) -> TestClient:
    return TestClient(app or create_app(workspace), base_url=BASE, follow_redirects=False)


def browser(workspace: Workspace, who: str = "ada") -> TestClient:
    """A logged-in browser: a cookie, and an Origin on what it posts."""
    client = TestClient(create_app(workspace), base_url=BASE, headers={"Origin": BASE}, follow_redirects=False)
    assert client.post("/login", data={"token": people.issue_token(workspace, who)}).status_code == 303
    agreed(workspace, who)
    return client


def test_every_route_but_the_open_ones_refuses_a_stranger(workspace: Workspace) -> None:
    app = create_app(workspace)
    client = stranger(workspace, app)
    walked = []
    for route in app.routes:
        assert isinstance(route, Route | Mount), route  # a kind that this walk doesn't know would go untested
        walked += [(method, route.path) for method in (getattr(route, "methods", None) or {"GET"})]
    pages = {"/", "/logout", "/board", "/appeals", "/operate", "/dashboard", "/decisions", *OPEN}
    known = pages | {f"/api/{name}" for name in (*API, *ITEMS, *OPERATE, *DECISIONS, "dashboard")}
    assert {path for _, path in walked} == known, "a route that isn't listed here is opened by nobody's decision"
    for method, path in walked:
        if path in OPEN:
            continue
        refused = client.request(method, path, headers={"Content-Type": "application/json"})
        assert refused.status_code == 401, (method, path)
        if method != "HEAD":
            assert refused.json()["error"]["code"] == "unauthenticated"


@pytest.mark.parametrize(
    "path",
    [
        "/api/tasks/next",
        "/nothing",
        "/docs",
        "/openapi.json",
        "/login/",
        "/static",
        "/STATIC/page.css",
        "//api/tasks/next",
        "/static/..%2f..%2fapi/task",
        "/%61pi/task",
        "/api/tasks/next%00",
        "/login%2f..%2fapi/task",
        "/health/x",
    ],
)
def test_no_spelling_of_a_path_gets_past_the_guard(workspace: Workspace, path: str) -> None:
    add_pair(workspace, "q?", "good", "bad")
    refused = stranger(workspace).get(path)
    assert refused.status_code in (401, 404) and "good" not in refused.text
    assert refused.json()["error"].keys() == {"message", "fix", "code"}


@pytest.mark.parametrize(
    "path", ["/static/..%2fapp.py", "/static/../app.py", "/static/%2e%2e/app.py", "/static/....//app.py"]
)
def test_static_files_do_not_climb(workspace: Workspace, path: str) -> None:
    answered = stranger(workspace).get(path)
    assert answered.status_code in (401, 404) and "create_app" not in answered.text


def test_page_sends_a_stranger_to_the_login(workspace: Workspace) -> None:
    sent = stranger(workspace).get("/", headers=PAGE)
    assert sent.status_code == 303 and sent.headers["location"] == "/login"


def test_open_routes_tell_nothing(workspace: Workspace) -> None:
    client = stranger(workspace)
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/login").status_code == 200
    assert client.get("/static/page.css").headers["content-type"].startswith("text/css")


def test_every_answer_has_the_headers(workspace: Workspace) -> None:
    client = client_of(workspace)
    answers = [
        client.get(path)
        for path in ("/", "/login", "/static/label.js", "/health", "/api/tasks/next", "/nothing", "/api/nothing")
    ]
    answers += [
        client.get("/", headers={"Host": "evil.example"}),
        client.post("/api/tasks/next", json={}),
        stranger(workspace).get("/api/tasks/next"),
        client.post("/api/undo", content=b"x" * (MAX_BODY_BYTES + 1)),
    ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] in ("no-store", "no-cache")


def test_login_sets_a_cookie_that_scripts_and_other_sites_cannot_use(workspace: Workspace) -> None:
    token = people.issue_token(workspace, "ada")
    client = stranger(workspace)
    answered = client.post("/login", data={"token": f"  {token} "}, headers={"Origin": BASE})
    cookie = answered.headers["set-cookie"].lower()
    assert answered.status_code == 303 and answered.headers["location"] == "/"
    assert "httponly" in cookie and "samesite=strict" in cookie and "secure" not in cookie
    assert client.get("/", headers=PAGE).status_code == 200
    secure = TestClient(create_app(workspace), base_url="https://127.0.0.1", follow_redirects=False)
    assert "secure" in secure.post("/login", data={"token": token}).headers["set-cookie"].lower()


def test_wrong_token_is_refused_on_the_page_and_for_programs(workspace: Workspace) -> None:
    client = stranger(workspace)
    page = client.post("/login", data={"token": "<script>alert(1)</script>"}, headers=PAGE)
    assert page.status_code == 403 and "<script>alert" not in page.text and "isn&#39;t known" in page.text
    assert client.post("/login", data={"token": "nope"}).json()["error"]["code"] == "forbidden"
    assert client.post("/login").status_code == 400
    assert "set-cookie" not in page.headers


def test_expired_and_revoked_tokens_end_the_session(workspace: Workspace) -> None:
    client = browser(workspace)
    assert client.get("/api/progress").status_code == 200
    people.revoke(workspace, "ada")
    assert client.get("/api/progress").status_code == 401
    with ids.clock_at(ids.now().timestamp() - 40 * 86_400):
        old = people.issue_token(workspace, "bob")
    assert stranger(workspace).get("/api/tasks/next", headers={"Authorization": f"Bearer {old}"}).status_code == 401


def test_logout_ends_the_session(workspace: Workspace) -> None:
    client = browser(workspace)
    assert client.post("/logout").status_code == 303
    assert client.get("/api/progress").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "file://"},
        {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_other_site_cannot_post(workspace: Workspace, headers: dict[str, str]) -> None:
    client = browser(workspace)
    for path in ("/api/undo", "/api/judgements", "/logout", "/login"):
        refused = client.post(path, json={}, headers=headers)
        assert refused.status_code == 400 and refused.json()["error"]["code"] == "request_refused", path
    assert client.get("/api/progress").status_code == 200


def test_form_of_another_site_cannot_reach_the_api(workspace: Workspace) -> None:
    """A browser sends a form or plain text across sites unasked; JSON it doesn't."""
    client = browser(workspace)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        refused = client.post("/api/undo", content=b"{}", headers={"Content-Type": kind})
        assert refused.json()["error"]["code"] == "request_refused"


def test_own_form_without_referrer_may_post(workspace: Workspace) -> None:
    token = people.issue_token(workspace, "ada")
    own = {"Origin": "null", "Sec-Fetch-Site": "same-origin"}
    assert stranger(workspace).post("/login", data={"token": token}, headers=own).status_code == 303


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example:8765"])
def test_foreign_host_name_is_refused(workspace: Workspace, host: str) -> None:
    refused = client_of(workspace).get("/api/tasks/next", headers={"Host": host})
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "request_refused"


@pytest.mark.parametrize("host", ["localhost:8765", "127.0.0.1", "[::1]:8765", "192.168.1.7:8765", "LOCALHOST"])
def test_own_names_and_addresses_are_answered(workspace: Workspace, host: str) -> None:
    assert client_of(workspace).get("/api/tasks/next", headers={"Host": host}).status_code == 200


def test_named_host_is_answered(workspace: Workspace) -> None:
    app = create_app(workspace, hosts=["label.example"])
    assert TestClient(app, base_url="http://label.example").get("/health").status_code == 200


def test_large_body_is_refused_announced_or_not(workspace: Workspace) -> None:
    client = client_of(workspace)
    big = b'{"lease": "' + b"x" * MAX_BODY_BYTES + b'"}'
    for content in (big, iter([big[:1000], big[1000:]])):
        refused = client.post("/api/judgements", content=content, headers={"Content-Type": "application/json"})
        assert refused.status_code == 413 and refused.json()["error"]["code"] == "too_large"


def test_error_is_a_page_for_people_and_json_for_programs(workspace: Workspace) -> None:
    client = client_of(workspace)
    page = client.get("/nothing<script>", headers=PAGE)
    assert page.status_code == 404 and page.headers["content-type"].startswith("text/html")
    assert "<script>" not in page.text
    assert client.get("/api/nothing", headers=PAGE).json()["error"]["code"] == "not_found"
    assert client.get("/api/judgements").json()["error"].keys() == {"message", "fix", "code"}
    assert client.get("/api/judgements").status_code == 405


def test_own_mistake_is_a_500_in_the_one_shape_without_details(
    workspace: Workspace,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = create_app(workspace)

    @app.get("/api/broken")
    def broken() -> None:
        raise ValueError("inner secret")

    token = people.issue_token(workspace, "ada")
    client = TestClient(app, base_url=BASE, headers={"Authorization": f"Bearer {token}"})
    with caplog.at_level(logging.ERROR, logger="rlhf.web"):
        answered = client.get("/api/broken")
    assert answered.status_code == 500 and "inner secret" not in answered.text
    assert answered.json()["error"].keys() == {"message", "fix", "code"}
    assert "content-security-policy" in answered.headers
    assert "inner secret" in caplog.text and token not in caplog.text


def test_reachable_host_without_a_token_is_refused(workspace: Workspace) -> None:
    with pytest.raises(Forbidden, match="nobody is known here") as refusal:
        serve(workspace, "0.0.0.0", 0)
    assert "rlhf people invite" in refusal.value.fix


def test_taken_port_is_told(workspace: Workspace) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Conflict, match="can't be used"):
            serve(workspace, "127.0.0.1", taken.getsockname()[1])


def test_wrong_words_are_slowed_down_and_right_ones_are_not(workspace: Workspace) -> None:
    app = create_app(workspace)
    inside, outside = browser(workspace), stranger(workspace, app)
    token = people.issue_token(workspace, "bob")
    answers = [outside.post("/login", data={"token": "rlhf_" + "x" * 32}).status_code for _ in range(MAX_FAILURES + 2)]
    assert answers == [403] * MAX_FAILURES + [429] * 2
    refused = outside.post("/invite", data={"code": "rlhfi_" + "x" * 32})
    assert refused.status_code == 429 and refused.json()["error"]["code"] == "too_often"
    assert outside.get("/api/progress", headers={"Authorization": "Bearer wrong"}).status_code == 429
    assert outside.get("/api/progress", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    ended = {"Cookie": f"{cookie_name(workspace)}=rlhfs_{'x' * 32}"}
    answers = [stranger(workspace, app).get("/api/progress", headers=ended).status_code for _ in range(3)]
    assert answers == [401] * 3, "a log-in that has ended is no guess"
    assert outside.get("/health").status_code == 200 and inside.get("/api/progress").status_code == 200


FOR_LABELERS = {
    ("GET", "/"), ("GET", "/api/tasks/next"), ("POST", "/api/judgements"), ("POST", "/api/undo"), ("GET", "/api/progress"),
    ("POST", "/api/heartbeat"), ("GET", "/api/texts"), ("POST", "/api/agree"), ("POST", "/api/withdraw"),
    ("GET", "/api/appeal"), ("POST", "/api/appeal"), ("POST", "/api/items"), ("GET", "/api/items"), ("GET", "/api/items/{item}"),
}  # fmt: skip
FOR_REVIEWERS = {("GET", "/appeals"), ("GET", "/api/appeals"), ("POST", "/api/appeals/{labeler}")}
FOR_THE_BOARD = {("GET", "/board"), ("GET", "/api/board"), ("GET", "/api/board/{item}"), ("POST", "/api/board/{item}")}
FOR_LOOKERS = {
    ("GET", "/operate"), ("GET", "/api/operate"), ("GET", "/api/operate/{alias}"),
    ("GET", "/dashboard"), ("GET", "/api/dashboard"),
    ("GET", "/decisions"), ("GET", "/api/decisions"), ("GET", "/api/decisions/{number}"),
}  # fmt: skip
FOR_OPERATORS = {
    ("POST", "/api/operate/{alias}/rollback"), ("POST", "/api/operate/rollouts/{rollout}/{verb}"),
    ("POST", "/api/decisions/{number}/revoke"),
}  # fmt: skip
FOR_WHO_DECIDES = {("POST", "/api/reviews")}


@pytest.mark.parametrize("role", people.ROLES)
def test_each_role_comes_through_its_own_doors_alone(workspace: Workspace, role: str) -> None:
    """Every route, found by walking the router, by every role: 403 where it isn't theirs, and never where it is."""
    people.add(workspace, role, [role])
    app = create_app(workspace)
    bearer = {"Authorization": f"Bearer {people.issue_token(workspace, role, people.ROLES[role])}"}
    agreed(workspace, role)
    client = TestClient(app, base_url=BASE, headers=bearer, follow_redirects=False)
    may_label = "label" in people.ROLES[role]
    may_board = role in ("reviewer", "operator", "admin")
    may_look = role in ("evaluator", "researcher", "operator", "admin")
    walked = {(method, route.path) for route in app.routes for method in getattr(route, "methods", None) or ()}
    doors = {(method, path) for method, path in walked if path not in OPEN and method != "HEAD"} - {("POST", "/logout")}
    listed = FOR_LABELERS | FOR_THE_BOARD | FOR_REVIEWERS | FOR_LOOKERS | FOR_OPERATORS | FOR_WHO_DECIDES
    assert doors == listed, "a new door needs its row here"
    bodies: dict[str, dict[str, object]] = {
        "/api/items": {"lease": "x", "kind": "bug", "text": "x"},
        "/api/board/{item}": {"seen": 1, "impact": 3},
        "/api/appeals/{labeler}": {"seen": 1, "decision": "resume", "why": "x"},
        "/api/operate/{alias}/rollback": {"seen": 1, "why": "x"},
        "/api/decisions/1/revoke": {"why": "x"},
        "/api/reviews": {"seen": 1, "notes": "x"},
        "/api/operate/rollouts/{rollout}/pause": {"seen": 1, "why": "x"},
        "/api/judgements": {"lease": "x", "answer": "tie"},
        "/api/heartbeat": {"lease": "x"},
        "/api/appeal": {"text": "x"},
    }
    for method, path in sorted(doors):
        path_sent = path.replace("{verb}", "pause").replace("{number}", "1")
        body: dict[str, object] = (
            {"guideline": "x", "consent": "x"} if path == "/api/agree" else bodies.get(path_sent, {})
        )
        answer = client.request(method, path_sent, json=body if method == "POST" else None)
        allowed = (
            may_board if (method, path) in FOR_THE_BOARD else may_label or (path == "/" and (may_board or may_look))
        )
        if (method, path) in FOR_LOOKERS:
            allowed = may_look
        if (method, path) in FOR_OPERATORS:
            allowed = role in ("operator", "admin")
        if (method, path) in FOR_WHO_DECIDES:
            allowed = role in ("evaluator", "operator", "admin")
        if (method, path) in FOR_REVIEWERS:
            allowed = role in ("reviewer", "admin")
        assert (answer.status_code == 403) == (not allowed), (method, path, answer.status_code, answer.text)
        assert answer.status_code < 500


def test_what_one_may_not_see_looks_like_what_is_not_there(workspace: Workspace) -> None:
    """Another's lease, a used one, and one that never was give one answer."""
    add_pair(workspace, "q?", "good", "bad")
    ada, bob = client_of(workspace), client_of(workspace, "bob")
    lease = ada.get("/api/tasks/next").json()["task"]["lease"]
    asked = [bob.post("/api/judgements", json={"lease": word, "answer": "tie"}) for word in (lease, "0" * 26, "x")]
    assert {answer.status_code for answer in asked} == {404} and len({answer.text for answer in asked}) == 1
    beats = [bob.post("/api/heartbeat", json={"lease": word}) for word in (lease, "0" * 26)]
    assert {answer.status_code for answer in beats} == {404} and len({answer.text for answer in beats}) == 1
