"""The promise of a server, under load: while versions are published, promoted, rolled back and retired, every request is answered
once, by exactly one version, and says by which.

What each version writes to each prompt is computed before, alone; a reply is held against the version that it names. RLHF_REQUESTS
says how many requests (10,000 take some minutes on two cores).
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_made import digest_named, events_of, publish_policy, running, service_of
from sqlalchemy import select

from rlhf import engine, registry
from rlhf.errors import Conflict, RlhfError
from rlhf.registry import aliases
from rlhf.serving.service import Service
from rlhf.store import Workspace
from rlhf.store.tables import exposures

N_REQUESTS = int(os.environ.get("RLHF_REQUESTS", "1000"))
N_CLIENTS = 32
N_VERSIONS = 6
PROMPTS = [[{"role": "user", "content": f"Tell me about {what}"}] for what in ("rain", "a fox", "seven", "tea")]
SCORED = [{"prompt": f"Question {i}?", "reply": f"Answer {i}."} for i in range(4)]

pytestmark = pytest.mark.slow


class Tally:
    """What the clients got, as they got it."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.kinds: Counter[str] = Counter()
        self.digests: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._lock = threading.Lock()

    def note(self, kind: str, request_id: str, digest: str | None, problem: str | None) -> None:
        with self._lock:
            self.kinds[kind] += 1
            self.ids.append(request_id)
            if digest:
                self.digests[digest] += 1
            if problem:
                self.wrong.append(f"{kind} {request_id}: {problem}")


def test_every_request_is_answered_once_by_one_version_while_versions_come_and_go(
    to_serve: Workspace, tmp_path: Path
) -> None:
    base = engine.get(to_serve, "tiny")
    for seed in range(3, N_VERSIONS):
        publish_policy(to_serve, base, tmp_path / f"more{seed}", seed)
    digests = [digest_named(to_serve, f"a@{n + 1}") for n in range(N_VERSIONS)]
    tally, left = Tally(), threading.Semaphore(N_REQUESTS)
    with service_of(to_serve, rows=16, slots=5, queue=200) as service, running(service) as url:
        texts = written_alone(service, digests)
        assert len({tuple(texts[digest, i] for i in range(len(PROMPTS))) for digest in digests}) == N_VERSIONS
        points = [scored_alone(service, digest_named(to_serve, "judge@1"), i) for i in range(len(SCORED))]
        clients = [
            threading.Thread(target=ask, args=(url, number, left, texts, points, tally)) for number in range(N_CLIENTS)
        ]
        stop = threading.Event()
        mover = threading.Thread(target=move, args=(to_serve, stop))
        for thread in (mover, *clients):
            thread.start()
        for thread in clients:
            thread.join()
        stop.set()
        mover.join()
        service.recorder.close()

    assert tally.wrong == []
    assert len(tally.ids) == len(set(tally.ids)) == N_REQUESTS, "none missing, none doubled"
    with to_serve.read() as connection:
        rows = connection.execute(select(exposures.c.request_id, exposures.c.digest, exposures.c.status)).all()
    by_id = {row.request_id: row for row in rows}
    answered = [one for one in tally.ids if one in by_id]
    assert len(answered) == N_REQUESTS - tally.kinds["unknown"] - tally.kinds["retired"] == len(rows)
    assert {row.status for row in rows} == {"ok"}
    assert len(tally.digests) >= 3, "the alias moved under load"


def written_alone(service: Service, digests: list[str]) -> dict[tuple[str, int], str]:
    """Each version's greedy reply to each prompt, one at a time."""
    from rlhf.engine.wanted import Wanted
    from rlhf.records import Message

    found = {}
    for digest in digests:
        with service.holding.lease(digest):
            for i, prompt in enumerate(PROMPTS):
                ids = tuple(service.engine.renderer.opening([Message(**turn) for turn in prompt]))
                (stream,) = service.engine.reply([Wanted(ids, digest, 8, temperature=0.0)])
                found[digest, i] = "".join(piece.text for piece in stream)
    return found


def scored_alone(service: Service, digest: str, i: int) -> float:
    from rlhf.records import Message

    with service.holding.lease(digest):
        chat = (Message("user", SCORED[i]["prompt"]), Message("assistant", SCORED[i]["reply"]))
        return service.engine.score(digest, [[service.engine.renderer.ids(chat)]])[0][0][0]


def move(workspace: Workspace, stop: threading.Event) -> None:
    """Promote, roll back, retire, over and over."""
    chance = random.Random(1)
    while not stop.is_set():
        try:
            if chance.random() < 0.5:
                aliases.move(workspace, "a@champion", f"a@{chance.randint(2, N_VERSIONS)}", why="forward")
            else:
                aliases.roll_back(workspace, "a@champion", why="back")
        except (Conflict, RlhfError):
            pass  # it points there already, or is at its first entry
        if chance.random() < 0.05:
            with contextlib.suppress(Conflict):  # it is in force
                registry.retire(workspace, "a@1")
        time.sleep(0.02)


def ask(
    url: str,
    number: int,
    left: threading.Semaphore,
    texts: dict[tuple[str, int], str],
    points: list[float],
    tally: Tally,
) -> None:
    chance = random.Random(number)
    kinds: list[Callable[..., None]] = [whole, whole, streamed, streamed, by_number, scored, unknown]
    with httpx.Client(base_url=f"{url}/v1", timeout=120) as client:
        while left.acquire(blocking=False):
            chance.choice(kinds)(client, chance, texts, points, tally)


def body_of(chance: random.Random, model: str, **more: Any) -> tuple[int, dict[str, Any]]:
    i = chance.randrange(len(PROMPTS))
    asked = {
        "model": model,
        "messages": PROMPTS[i],
        "max_tokens": 8,
        "temperature": 0,
        "user": f"u{chance.randrange(50)}",
    }
    return i, {**asked, **more}


def checked(kind: str, answer: httpx.Response, i: int, text: str, body: Any, texts: Any, tally: Tally) -> None:
    digest, request_id = answer.headers["x-adapter-digest"], answer.headers["x-request-id"]
    problem = None
    if text != texts[digest, i]:
        problem = f"{digest[:12]} wrote {text!r}, alone {texts[digest, i]!r}"
    if not digest == body["system_fingerprint"] == body["rlhf"]["digest"] or body["id"] != request_id:
        problem = "header and body name different versions"
    tally.note(kind, request_id, digest, problem)


def whole(client: httpx.Client, chance: random.Random, texts: Any, points: Any, tally: Tally) -> None:
    i, asked = body_of(chance, "a")
    answer = client.post("/chat/completions", json=asked)
    if answer.status_code != 200:
        return tally.note("whole", answer.headers["x-request-id"], None, answer.text)
    body = answer.json()
    return checked("whole", answer, i, body["choices"][0]["message"]["content"], body, texts, tally)


def streamed(client: httpx.Client, chance: random.Random, texts: Any, points: Any, tally: Tally) -> None:
    i, asked = body_of(chance, "a@champion", stream=True)
    answer = client.post("/chat/completions", json=asked)
    if answer.status_code != 200:
        return tally.note("streamed", answer.headers["x-request-id"], None, answer.text)
    *chunks, done = events_of(answer.text)
    if done != "[DONE]" or len({one["system_fingerprint"] for one in chunks}) != 1:
        return tally.note("streamed", answer.headers["x-request-id"], None, f"no whole stream of one version: {done}")
    text = "".join(one["choices"][0]["delta"].get("content", "") for one in chunks)
    return checked("streamed", answer, i, text, chunks[0], texts, tally)


def by_number(client: httpx.Client, chance: random.Random, texts: Any, points: Any, tally: Tally) -> None:
    n = chance.randint(1, N_VERSIONS)
    i, asked = body_of(chance, f"a@{n}")
    answer = client.post("/chat/completions", json=asked)
    if answer.status_code == 410 and n == 1 and answer.json()["error"]["code"] == "retired":
        return tally.note("retired", answer.headers["x-request-id"], None, None)
    if answer.status_code != 200:
        return tally.note("by number", answer.headers["x-request-id"], None, answer.text)
    body = answer.json()
    problem = None if body["model"] == f"a@{n}" else f"asked for a@{n}, got {body['model']}"
    if problem:
        return tally.note("by number", body["id"], None, problem)
    return checked("by number", answer, i, body["choices"][0]["message"]["content"], body, texts, tally)


def scored(client: httpx.Client, chance: random.Random, texts: Any, points: Any, tally: Tally) -> None:
    i = chance.randrange(len(SCORED))
    answer = client.post("/score", json={"model": "judge", **SCORED[i]})
    said = answer.json().get("reward")
    problem = None if said is not None and abs(said - points[i]) < 1e-4 else f"{answer.text} instead of {points[i]}"
    tally.note("scored", answer.headers["x-request-id"], None, problem)


def unknown(client: httpx.Client, chance: random.Random, texts: Any, points: Any, tally: Tally) -> None:
    answer = client.post("/chat/completions", json=body_of(chance, f"a@{N_VERSIONS + 5}")[1])
    tally.note("unknown", answer.headers["x-request-id"], None, None if answer.status_code == 404 else answer.text)
