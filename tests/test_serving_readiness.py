"""Readiness: a server whose engine can't compute says so and why, and one whose engine works again is ready again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from serving_made import chat, client_of, error_of, service_of

from rlhf.serving import readiness
from rlhf.serving.service import Service
from rlhf.store import Workspace


@pytest.fixture
def service(to_serve: Workspace) -> Iterator[Service]:
    with service_of(to_serve) as made:
        made.is_warm = True
        yield made


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with client_of(service) as made:
        yield made


def failing(*_: Any) -> Any:
    raise MemoryError("the device is gone")


def test_one_requests_failure_is_no_servers(
    service: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chat(client).status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(service.engine.batch, "join", failing)  # type: ignore[attr-defined]
        error_of(chat(client), 500, "engine_failed")
    readiness.knock(service)
    assert service.trouble is None and service.engine.trouble is None
    assert client.get("/ready").json() == {"status": "ready"}


def test_an_engine_that_fails_on_everything_is_not_ready_until_it_works(
    service: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chat(client).status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(service.engine.batch, "join", failing)  # type: ignore[attr-defined]
        error_of(chat(client), 500, "engine_failed")
        readiness.knock(service)
        told = client.get("/ready")
        assert told.status_code == 503
        assert told.json()["status"] == "failed" and "the device is gone" in told.json()["why"]
        assert client.get("/health").status_code == 200, "the process lives"
        assert "rlhf_engine_alive 1" in client.get("/metrics").text
    readiness.knock(service)
    assert client.get("/ready").json() == {"status": "ready"}


def test_an_engine_that_gives_nothing_in_time_is_not_ready(
    service: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "_KNOCK_S", 0.05)
    assert chat(client).status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(service.engine.batch, "join", failing)  # type: ignore[attr-defined]
        error_of(chat(client), 500, "engine_failed")
    with service.engine._turns._work:  # type: ignore[attr-defined]  # while nobody can tell the engine of anything, nothing comes
        readiness.knock(service)
        assert "no token within" in client.get("/ready").json()["why"]
    readiness.knock(service)
    assert client.get("/ready").status_code == 200


def test_a_dead_engine_is_not_ready_and_its_requests_are_told(
    service: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chat(client).status_code == 200

    def deadly() -> None:
        raise SystemExit("as a library may")

    monkeypatch.setattr(service.engine._turns, "_turn", deadly)  # type: ignore[attr-defined]
    error_of(chat(client), 500, "engine_failed")
    service.engine._turns._thread.join(10)  # type: ignore[attr-defined]
    told = client.get("/ready")
    assert told.status_code == 503 and told.json()["status"] == "failed"
    assert "has ended" in told.json()["why"] and "as a library may" in told.json()["why"]
    assert client.get("/health").status_code == 200
    error_of(chat(client), 500, "engine_failed")
    assert "rlhf_engine_alive 0" in client.get("/metrics").text
    assert (service.overload.n_requests, service.overload.n_replies) == (0, 0)
