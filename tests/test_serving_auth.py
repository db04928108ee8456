"""Who may ask: nobody without a token once there is one, each route its own scope, and no foreign page at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from serving_made import HELLO, URL, chat, client_of, error_of, service_of
from starlette.routing import Route

from rlhf import people
from rlhf.errors import Forbidden
from rlhf.serving.api import create_app
from rlhf.serving.guard import OPEN, SCOPES
from rlhf.serving.limits import MAX_FAILURES
from rlhf.serving.serve import serve
from rlhf.serving.service import Service
from rlhf.store import Workspace

JSON = {"Content-Type": "application/json"}
NEEDS = {
    "/v1/models": "serve",
    "/v1/models/{model:path}": "serve",
    "/v1/chat/completions": "serve",
    "/v1/completions": "serve",
    "/v1/score": "serve",
    "/v1/feedback": "feedback",
    "/v1/aliases/{alias}/actions/rollback": "roll_back",
    "/metrics": "evaluate",
}


@pytest.fixture
def service(to_serve: Workspace) -> Iterator[Service]:
    with service_of(to_serve) as made:
        yield made


def walked(service: Service) -> list[tuple[str, str]]:
    """Every route with each of its methods."""
    found = []
    for route in create_app(service).routes:
        assert isinstance(route, Route), route  # a kind that this walk doesn't know would go untested
        found += [(method, route.path) for method in sorted(route.methods or ())]
    return found


def test_every_route_but_two_wants_a_token_once_there_is_one(service: Service, to_serve: Workspace) -> None:
    people.issue_token(to_serve, "app", ["serve"])
    assert {path for _, path in walked(service)} == {*NEEDS, *OPEN}, "a new one needs its place here"
    with client_of(service) as client:
        for method, path in walked(service):
            answer = client.request(method, path, headers=JSON)
            if path in OPEN:
                assert answer.status_code in (200, 503)
            elif method != "HEAD":
                assert f"--scope {NEEDS[path]}" in error_of(answer, 401, "invalid_api_key")["message"]
                assert answer.headers["www-authenticate"] == "Bearer"


def test_each_route_wants_its_own_scope(service: Service, to_serve: Workspace) -> None:
    people.add(to_serve, "all", ["admin"])
    scopes = sorted({scope for _, scope in SCOPES})
    for scope in scopes:
        with client_of(service, token=people.issue_token(to_serve, "all", [scope])) as client:
            for method, path in walked(service):
                if path in OPEN or method == "HEAD":
                    continue
                answer = client.request(
                    method, path.replace("{alias}", "a@b").replace("{model:path}", "x"), headers=JSON
                )
                if NEEDS[path] == scope:
                    assert answer.status_code not in (401, 403), (method, path, answer.text)
                else:
                    assert f"not {NEEDS[path]}" in error_of(answer, 403, "forbidden")["message"]


def test_a_token_of_another_trade_opens_nothing(service: Service, to_serve: Workspace) -> None:
    people.issue_token(to_serve, "app", ["serve"])
    with client_of(service, token=people.issue_token(to_serve, "ada", ["label"])) as client:
        error_of(chat(client), 403, "forbidden")


def test_on_loopback_any_key_does_until_one_was_made(service: Service, to_serve: Workspace) -> None:
    with client_of(service, token="sk-anything") as client, client_of(service) as without:
        assert chat(client).status_code == chat(without).status_code == 200
        token = people.issue_token(to_serve, "app", ["serve"])
        error_of(chat(client), 401, "invalid_api_key")
        error_of(chat(without), 401, "invalid_api_key")
        with client_of(service, token=token) as known:
            assert chat(known).status_code == 200
            people.revoke(to_serve, "app")
            error_of(chat(known), 401, "invalid_api_key")
        error_of(chat(without), 401, "invalid_api_key")


def test_where_others_reach_it_a_token_is_wanted_in_any_case(service: Service) -> None:
    with client_of(service, is_local=False) as client:
        error_of(chat(client), 401, "invalid_api_key")
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1"])
def test_a_host_that_others_reach_is_refused_without_a_live_token(to_serve: Workspace, host: str) -> None:
    with pytest.raises(Forbidden, match="nobody has a token for serving"):
        serve(to_serve, host, 0)
    people.issue_token(to_serve, "app", ["serve"])
    people.revoke(to_serve, "app")
    with pytest.raises(Forbidden, match="nobody has a token for serving"):
        serve(to_serve, host, 0)


@pytest.mark.parametrize(
    "path",
    ["//v1/models", "/V1/models", "/v1/models/", "/v1/%6dodels", "/health/", "/health/../v1/models", "/ready/x", "/openapi.json"],
)  # fmt: skip
def test_no_spelling_of_a_path_gets_past_the_guard(service: Service, to_serve: Workspace, path: str) -> None:
    people.issue_token(to_serve, "app", ["serve"])
    with client_of(service) as client:
        answer = client.get(path)
        assert answer.status_code == 401 and "a@1" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
)
def test_a_foreign_page_reaches_nothing(service: Service, headers: dict[str, str]) -> None:
    import json

    with client_of(service) as client:
        body = json.dumps({"model": "a", "messages": HELLO, "why": "x"})
        for path in ("/v1/chat/completions", "/v1/aliases/a@champion/actions/rollback"):
            error_of(client.post(path, content=body, headers={**JSON, **headers}), 400, "request_refused")


def test_headers_that_decide_stand_there_once(service: Service) -> None:
    twice: Any = [("authorization", "Bearer a"), ("authorization", "Bearer b")]
    with client_of(service) as client:
        error_of(client.get("/v1/models", headers=twice), 400, "request_refused")


def test_guessing_is_slowed_down_and_a_right_token_is_not(service: Service, to_serve: Workspace) -> None:
    token = people.issue_token(to_serve, "app", ["serve"])
    with client_of(service, token="rlhf_" + "x" * 32) as client:
        for _ in range(MAX_FAILURES):
            error_of(client.get("/v1/models"), 401, "invalid_api_key")
        answer = client.get("/v1/models")
        error_of(answer, 429, "too_often")
        assert int(answer.headers["retry-after"]) > 0
        assert client.get("/v1/models", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_a_token_that_asks_too_often_waits_and_no_other(to_serve: Workspace) -> None:
    tokens = [people.issue_token(to_serve, name, ["serve"]) for name in ("one", "two")]
    with service_of(to_serve, per_s=0.001, burst=3) as service:
        app = create_app(service)
        with TestClient(app, base_url=URL) as client:
            one, two = ({"Authorization": f"Bearer {token}"} for token in tokens)
            assert [client.get("/v1/models", headers=one).status_code for _ in range(3)] == [200, 200, 200]
            answer = client.get("/v1/models", headers=one)
            error_of(answer, 429, "too_often")
            assert int(answer.headers["retry-after"]) > 1
            assert client.get("/v1/models", headers=two).status_code == 200


def test_an_admins_verb_is_in_the_admins_name(service: Service, to_serve: Workspace) -> None:
    from rlhf.registry import aliases

    token = people.issue_token(to_serve, "olga", ["roll_back"])
    with client_of(service, token=token) as client:
        assert client.post("/v1/aliases/a@champion/actions/rollback", json={"why": "worse"}).status_code == 200
        error_of(chat(client), 403, "forbidden")
    assert aliases.history(to_serve, "a@champion")[-1].who == "olga"
