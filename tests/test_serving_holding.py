"""Versions in memory: checked before anybody gets them, loaded once for all who wait, and held as long as somebody needs them."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import live_versions
import pytest
from serving_made import (
    HELLO,
    chat,
    client_of,
    digest_named,
    draft_of,
    error_of,
    events_of,
    publish_policy,
    running,
    service_of,
    text_of,
)
from sqlalchemy.exc import OperationalError

from rlhf import engine, registry
from rlhf.errors import Damaged
from rlhf.registry import aliases
from rlhf.serving.service import Service
from rlhf.store import Workspace


@pytest.fixture
def service(to_serve: Workspace) -> Iterator[Service]:
    with service_of(to_serve) as made:
        yield made


def test_a_version_that_many_wait_for_is_loaded_once(
    service: Service, to_serve: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    honest = service.engine.load

    def counting(digest: str, folder: Any) -> float:
        loaded.append(digest)
        return honest(digest, folder)

    monkeypatch.setattr(service.engine, "load", counting)
    digest = digest_named(to_serve, "a@1")
    with ThreadPoolExecutor(8) as pool:
        leases = list(pool.map(service.holding.lease, [digest] * 8))
    assert loaded == [digest]
    assert service.engine.resident()[digest].held == 8
    for lease in leases:
        lease.close()
    assert service.engine.resident()[digest].held == 0


def test_nobody_gets_a_version_between_loading_and_its_check(
    service: Service, to_serve: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, seen = digest_named(to_serve, "judge@1"), []
    honest = service.engine.score

    def watched(asked: str, renderings: Any, **how: Any) -> Any:
        seen.append((asked in service.engine.resident(), service.holding.lease_now(asked)))
        return honest(asked, renderings, **how)

    monkeypatch.setattr(service.engine, "score", watched)
    service.holding.lease(digest).close()
    assert seen == [(True, None)]
    lease = service.holding.lease_now(digest)
    assert lease is not None
    lease.close()


def test_what_made_room_is_checked_anew_before_it_is_held_again(to_serve: Workspace) -> None:
    with service_of(to_serve, slots=1) as service:
        one, other = digest_named(to_serve, "a@1"), digest_named(to_serve, "a@2")
        service.holding.lease(one).close()
        service.holding.lease(other).close()
        assert service.holding.lease_now(one) is None
        weights = registry.open_version(to_serve, "a@1").folder / "adapter_model.safetensors"
        weights.chmod(0o644)
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
        with pytest.raises(Damaged):
            service.holding.lease(one)


@pytest.mark.parametrize("how", ["other weights", "other figures"])
def test_a_policy_that_says_otherwise_than_when_published_takes_no_traffic(
    service: Service, to_serve: Workspace, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every digest is right: the weights were changed before publication, or the engine computes something else."""
    base = engine.get(to_serve, "tiny")
    if how == "other weights":
        honest = registry.open_version(to_serve, "a@1").folder
        digest = publish_policy(to_serve, base, tmp_path / "swapped", 20, name="b", says=honest)
    else:
        digest = publish_policy(to_serve, base, tmp_path / "honest", 20, name="b")
        asked = service.engine.log_probabilities

        def off(*words: Any) -> list[float]:
            return [total + 0.05 for total in asked(*words)]

        monkeypatch.setattr(service.engine, "log_probabilities", off)
    aliases.move(to_serve, "b@champion", "b@1", why="first")
    with client_of(service) as client:
        for model in ("b", "b@1", "b@champion"):
            said = error_of(chat(client, model), 500, "damaged")
            assert "probes" in said["message"]
        monkeypatch.undo()
        assert service.holding.lease_now(digest) is None, "it stays refused for a while"
        error_of(chat(client, "b"), 500, "damaged")
        assert service.engine.busy().tokens == 0, "nothing answered in its place"
        assert service.engine.resident()[digest].held == 0
        assert chat(client, "a@1").status_code == 200


def test_a_policy_published_without_probes_is_asked_for_numbers(
    service: Service, to_serve: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = live_versions.policy_folder(engine.get(to_serve, "tiny"), tmp_path / "imported", 21)
    digest = registry.publish(to_serve, folder, draft_of(engine.get(to_serve, "tiny"), "c", "policy", 21)).digest
    monkeypatch.setattr(
        service.engine, "log_probabilities", lambda _digest, prompts, _replies: [math.nan] * len(prompts)
    )
    with pytest.raises(Damaged, match="no probability"):
        service.holding.lease(digest)
    monkeypatch.undo()
    monkeypatch.setattr("rlhf.serving.holding._REFUSED_S", 0.0)
    service.holding.lease(digest).close()


def test_warming_goes_on_past_a_version_that_fails(service: Service, to_serve: Workspace) -> None:
    weights = registry.open_version(to_serve, "a@1").folder / "adapter_model.safetensors"
    weights.unlink()
    digests = [digest_named(to_serve, name) for name in ("a@1", "a@2", "judge@1")]
    wrong = service.holding.warm(digests)
    assert list(wrong) == digests[:1]
    assert set(service.engine.resident()) == set(digests[1:])


def test_a_stream_keeps_its_version_whatever_happens_meanwhile(to_serve: Workspace) -> None:
    """Rolled back, retired, wanted by others for its slot: to the last token it is the version that began."""
    with service_of(to_serve, slots=1) as service, running(service) as url:
        service.holding.room_s = 0.05
        asked = {"model": "a", "messages": HELLO, "max_tokens": 400, "temperature": 0.05, "seed": 3}
        with httpx.Client(base_url=url, timeout=60) as client:
            alone = text_of(chat(client, **asked))
            with client.stream("POST", "/v1/chat/completions", json={**asked, "stream": True}) as answer:
                lines = answer.iter_lines()
                got = [next(lines) for _ in range(4)]
                aliases.roll_back(to_serve, "a@champion", why="worse")
                registry.retire(to_serve, "a@3")
                with httpx.Client(base_url=url, timeout=60) as other:
                    error_of(chat(other), 503, "version_unavailable")
                got += list(lines)
            *chunks, done = events_of("\n".join(got) + "\n")
            assert done == "[DONE]"
            assert "".join(one["choices"][0]["delta"].get("content", "") for one in chunks) == alone
            assert {one["model"] for one in chunks} == {"a@3"}
            assert chat(client).json()["model"] == "a@2", "and the next request gets the one before"
            error_of(chat(client, "a@3"), 410, "retired")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_reply_that_could_not_be_recorded_is_not_called_whole(
    service: Service, to_serve: Workspace, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    with client_of(service) as client:
        assert chat(client).status_code == 200

        def full() -> Any:
            raise OperationalError("insert", {}, Exception("database or disk is full"))

        monkeypatch.setattr(to_serve.database, "write", full)
        answer = chat(client, stream=stream)
        if stream:
            *_, last = events_of(answer.text)
            assert "full" in last["error"]["message"]
        else:
            assert "full" in error_of(answer, 503, "not_recorded")["message"]
        monkeypatch.undo()
        assert chat(client).status_code == 200
        assert (service.overload.n_requests, service.overload.n_replies) == (0, 0)


def test_the_address_that_asks_leaves_while_its_version_loads(
    to_serve: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the loading thread gets after the deadline is given back."""
    with service_of(to_serve, deadline_s=0.2) as service, client_of(service) as client:
        go, honest = threading.Event(), service.engine.load

        def slow(digest: str, folder: Any) -> float:
            go.wait(10)
            return honest(digest, folder)

        monkeypatch.setattr(service.engine, "load", slow)
        error_of(chat(client), 504, "deadline_exceeded")
        go.set()
        digest = digest_named(to_serve, "a@3")
        for _ in range(400):
            if digest in service.engine.resident() and service.engine.resident()[digest].held == 0:
                break
            threading.Event().wait(0.01)
        assert service.engine.resident()[digest].held == 0
        assert service.overload.n_requests == 0
