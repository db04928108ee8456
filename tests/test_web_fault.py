"""The server is killed again and again under fifty labelers: what it acknowledged is there once, no pair is over its overlap."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections import Counter
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from test_labeling_queue import add_pairs
from test_web_labeler import agreed
from test_web_serving import served

from rlhf import ids, people
from rlhf.store import Workspace
from rlhf.store.tables import judgements

KILLS, LABELERS, OVERLAP = 20, 50, 2


@pytest.mark.slow
def test_twenty_kills_under_fifty_labelers_lose_and_double_nothing(workspace: Workspace) -> None:
    add_pairs(workspace, 1200)
    tokens = []
    for i in range(LABELERS):
        tokens.append(people.issue_token(workspace, f"labeler-{i}"))
        agreed(workspace, f"labeler-{i}")
    port, acknowledged = free_port(), {}
    for number in range(KILLS):
        with served(workspace, "--port", str(port), "--overlap", str(OVERLAP)) as (process, told):
            asyncio.run(until_killed(told["address"], tokens, acknowledged, process, after=15 + 7 * (number % 5)))
    assert len(acknowledged) > KILLS * 10
    with workspace.read() as connection:
        rows = connection.execute(select(judgements.c.id, judgements.c.pair_id, judgements.c.labeler)).all()
    assert set(acknowledged.values()) <= {row.id for row in rows}, "every acknowledged vote is there"
    assert len(set(acknowledged.values())) == len(acknowledged)
    assert max(Counter((row.pair_id, row.labeler) for row in rows).values()) == 1, "none is doubled"
    assert max(Counter(row.pair_id for row in rows).values()) <= OVERLAP


async def until_killed(address: str, tokens: list[str], acknowledged: dict[str, str], process: Any, after: int) -> None:
    """Everybody labels until `after` votes were acknowledged; then the server is killed in the middle of what it does."""
    target, dice = len(acknowledged) + after, ids.chance(after, "kills")

    ready = asyncio.Barrier(len(tokens))

    async def labeler(client: httpx.AsyncClient, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        try:
            await client.get("/health")
            await ready.wait()  # all are connected before the first one votes
            while (task := (await client.get("/api/tasks/next", headers=headers)).json()["task"]) is not None:
                body = {"lease": task["lease"], "answer": dice.choice(["left", "right", "tie"])}
                for _ in range(2):  # as a page does that didn't hear the first acknowledgement
                    answer = await client.post("/api/judgements", json=body, headers=headers)
                assert answer.status_code == 200, answer.text
                acknowledged[task["lease"]] = answer.json()["judgement"]
                if len(acknowledged) >= target:
                    process.send_signal(signal.SIGKILL)
        except httpx.TransportError:
            return  # killed, or not up yet

    limits = httpx.Limits(max_connections=LABELERS)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=10) as client:
        await asyncio.gather(*(labeler(client, token) for token in tokens))
    assert process.poll() is not None or len(acknowledged) >= target, "nobody could go on"
    process.kill()
    process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
