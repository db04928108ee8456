"""Too much: what doesn't fit the queue is told when to come again, who leaves frees their row, and a server ends in order."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from serving_made import HELLO, chat, client_of, error_of, events_of, running, service_of
from sqlalchemy import select

from rlhf.engine.wanted import Piece
from rlhf.serving.overload import Overload
from rlhf.serving.refusals import Busy, Draining
from rlhf.serving.serve import _keep_warm
from rlhf.serving.service import Service
from rlhf.store import Workspace
from rlhf.store.tables import exposures

LONG = {"max_tokens": 900, "temperature": 1, "seed": 1}


def until(what: Callable[[], bool], seconds: float = 10.0) -> None:
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, "it didn't come to that"
        time.sleep(0.005)


def is_quiet(service: Service) -> bool:
    """Nothing is held, nothing is computed."""
    busy = service.engine.busy()
    held = [one.held for one in service.engine.resident().values()]
    return (busy.rows, busy.waiting, service.overload.n_requests, service.overload.n_replies) == (
        0,
        0,
        0,
        0,
    ) and not any(held)


def rows(workspace: Workspace) -> list[Any]:
    with workspace.read() as connection:
        return list(connection.execute(select(exposures).order_by(exposures.c.at)))


def test_the_queue_is_bounded_and_says_when_to_come_again() -> None:
    overload = Overload(rows=2, queue=1)
    overload.enter(2)
    overload.enter(1)
    with pytest.raises(Busy) as refused:
        overload.enter(1)
    assert refused.value.http_status == 429 and int(refused.value.retry_after) >= 1
    overload.leave(2, 8.0)
    with pytest.raises(Busy) as refused:
        overload.enter(4)
    assert 8 <= int(refused.value.retry_after) <= 60, "as long as the latest took"
    overload.enter(1)
    overload.drain()
    with pytest.raises(Draining):
        overload.enter(1)
    assert not overload.wait_idle(0.01)
    overload.leave(1, 0.1)
    overload.leave(1, 0.1)
    assert overload.wait_idle(0.01) and overload.n_shed == 2


def test_past_the_queue_a_request_gets_429_and_those_before_their_replies(to_serve: Workspace) -> None:
    with service_of(to_serve, rows=2, queue=2) as service, running(service) as url:

        async def ask() -> list[httpx.Response]:
            async with httpx.AsyncClient(base_url=url, timeout=60) as client:
                body = {"model": "a", "messages": HELLO, **LONG, "max_tokens": 200}
                return await asyncio.gather(*(client.post("/v1/chat/completions", json=body) for _ in range(12)))

        answers = asyncio.run(ask())
        good = [one for one in answers if one.status_code == 200]
        shed = [one for one in answers if one.status_code != 200]
        assert len(good) >= 4 and shed, [one.status_code for one in answers]
        for one in shed:
            error_of(one, 429, "overloaded")
            assert int(one.headers["retry-after"]) >= 1
        assert {row.request_id for row in rows(to_serve)} == {one.json()["id"] for one in good}
        assert is_quiet(service)
        with httpx.Client(base_url=url) as client:
            told = client.get("/metrics").text
        assert f"rlhf_requests_shed_total {len(shed)}" in told
        assert f'rlhf_lost_total{{arm="",model="a@champion",why="shed"}} {len(shed)}' in told


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_client_that_leaves_frees_its_row(to_serve: Workspace, stream: bool) -> None:
    with service_of(to_serve) as service, running(service) as url:
        body = json.dumps({"model": "a", "messages": HELLO, **LONG, "stream": stream}).encode()
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
            head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            head += f"Content-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
            until(lambda: service.engine.busy().rows == 1)
        until(lambda: is_quiet(service))
        until(lambda: len(rows(to_serve)) == 1)
        (row,) = rows(to_serve)
        assert row.status == "cancelled" and row.tokens_out < 900


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_deadline_ends_a_reply_that_takes_too_long(to_serve: Workspace, stream: bool) -> None:
    with service_of(to_serve, deadline_s=0.3) as service, client_of(service) as client:
        service.holding.warm(service.router.wanted())
        began = time.monotonic()
        answer = chat(client, **LONG, stream=stream)
        assert time.monotonic() - began < 3
        if stream:
            *_, last = events_of(answer.text)
            assert last["error"]["code"] == "deadline_exceeded", "and no [DONE] behind it"
        else:
            error_of(answer, 504, "deadline_exceeded")
            assert answer.headers["x-should-retry"] == "false", "once more would be the same work for a slow server"
        until(lambda: is_quiet(service))
        until(lambda: bool(rows(to_serve)))
        assert rows(to_serve)[0].status == "error"
        told = client.get("/metrics").text
        assert 'rlhf_lost_total{arm="",model="a@champion",why="deadline"} 1' in told


def test_a_score_that_is_shed_or_late_is_counted_under_its_model(
    to_serve: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service_of(to_serve, rows=1, queue=0, deadline_s=0.3) as service, client_of(service) as client:
        service.holding.warm(service.router.wanted())
        asked = {"model": "judge", "prompt": "How?", "reply": "Well."}
        with service.overload.admitted(1):
            error_of(client.post("/v1/score", json=asked), 429, "overloaded")
            error_of(client.post("/v1/score", json={**asked, "model": "nobody"}), 429, "overloaded")
        go, honest = threading.Event(), service.engine.score

        def slow(*words: Any, **more: Any) -> Any:
            go.wait(10)
            return honest(*words, **more)

        monkeypatch.setattr(service.engine, "score", slow)
        error_of(client.post("/v1/score", json=asked), 504, "deadline_exceeded")
        go.set()
        monkeypatch.undo()
        told = client.get("/metrics").text
        for why, model in (("shed", "judge@champion"), ("shed", "unknown"), ("deadline", "judge@champion")):
            assert f'rlhf_lost_total{{arm="",model="{model}",why="{why}"}} 1' in told
        until(lambda: len(rows(to_serve)) == 1)
        assert rows(to_serve)[0].status == "error"
        until(lambda: is_quiet(service))


def test_an_engine_that_breaks_ends_the_stream_without_done(
    to_serve: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service_of(to_serve) as service, client_of(service) as client:
        honest = service.engine.reply

        def breaking(wanted: Any) -> Any:
            streams = honest(wanted)
            for stream in streams:
                tell = stream.on_piece

                def on_piece(call: Any, tell: Any = tell) -> None:
                    n = 0

                    def broken(piece: Any) -> None:
                        nonlocal n
                        n += isinstance(piece, Piece)
                        call(RuntimeError("secret") if n == 3 else piece)

                    tell(broken)

                monkeypatch.setattr(stream, "on_piece", on_piece)
            return streams

        service.holding.warm(service.router.wanted())
        monkeypatch.setattr(service.engine, "reply", breaking)
        *parts, last = events_of(chat(client, stream=True).text)
        assert last["error"]["code"] == "server_error" and "secret" not in str(last)
        assert "[DONE]" not in parts
        error_of(chat(client), 500, "server_error")
        monkeypatch.undo()
        until(lambda: is_quiet(service))
        assert chat(client).status_code == 200


def test_a_draining_server_ends_what_it_began_and_takes_nothing_new(to_serve: Workspace) -> None:
    with service_of(to_serve) as service, running(service) as url, httpx.Client(base_url=url, timeout=60) as client:
        service.is_warm = True
        told: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: told.append(chat(client, **{**LONG, "max_tokens": 300})))
        thread.start()
        until(lambda: service.engine.busy().rows == 1)
        service.overload.drain()
        with httpx.Client(base_url=url) as late:
            refused = chat(late)
            error_of(refused, 503, "draining")
            assert refused.headers["retry-after"]
            assert late.get("/ready").status_code == 503 and late.get("/health").status_code == 200
        thread.join()
        assert told[0].status_code == 200 and told[0].json()["usage"]["completion_tokens"] == 300


def test_a_rank_above_the_servers_is_its_own_fault_and_said_at_the_start(
    to_serve: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    with service_of(to_serve, max_rank=2) as service, client_of(service) as client:
        warming = threading.Thread(target=_keep_warm, args=(service,))
        warming.start()
        until(lambda: service.is_warm)
        service.overload.drain()
        warming.join()
        (told,) = (record.message for record in caplog.records if "a@3" in record.message)
        assert told.startswith("warning: a@3 (a@champion) can't be served: the LoRA has rank 4")
        service.overload._is_draining = False
        answer = chat(client)
        assert "larger max_rank" in error_of(answer, 503, "version_unavailable")["message"]
        assert answer.headers["x-should-retry"] == "false"


def test_slots_that_are_all_in_use_are_no_reason_for_another_version(to_serve: Workspace) -> None:
    with service_of(to_serve, slots=1) as service, client_of(service) as client:
        service.holding.room_s = 0.05
        assert chat(client, "a@1").json()["model"] == "a@1"
        lease = service.holding.lease_now(service.router.resolve("a@1").digest or "")
        assert lease is not None
        error_of(chat(client, "a@2"), 503, "version_unavailable")
        lease.close()
        assert chat(client, "a@2").json()["model"] == "a@2"
        assert chat(client, "a@1").json()["model"] == "a@1", "what made room comes back"
