"""A rollout's judge: replies get points after they were answered, off everybody's way, and the guards act on them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from serving_made import HELLO, chat, client_of, digest_named, publish_reward, service_of, text_of
from sqlalchemy import select

from rlhf import engine, registry, reward
from rlhf.errors import BadInput, NotFound
from rlhf.records import Message
from rlhf.registry import aliases
from rlhf.reward.score import Item
from rlhf.serving import RolloutSettings, guardrails, judging, log, rollouts, tend
from rlhf.serving.assignment import BUCKETS, bucket_of
from rlhf.serving.log import Rollout
from rlhf.serving.service import Service
from rlhf.store import Workspace
from rlhf.store.tables import exposures

ALIAS = "a@champion"


@pytest.fixture
def service(to_serve: Workspace) -> Iterator[Service]:
    with service_of(to_serve) as made:
        yield made


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with client_of(service) as made:
        yield made


def started(workspace: Workspace, new: str = "a@1", **changed: Any) -> Rollout:
    settings = {"kind": "ab", "arms": {"b": {"version": new}}, "judge": {"version": "judge@champion", "share": 100}}
    return rollouts.start(workspace, ALIAS, RolloutSettings(**{**settings, **changed}), why="try it")


def rows(service: Service) -> dict[str, Any]:
    """By request id, once nothing waits to be judged."""
    ends = time.monotonic() + 30
    while service.judgings or service.shadows:
        assert time.monotonic() < ends, "it is never judged"
        time.sleep(0.01)
    with service.workspace.read() as connection:
        return {row.request_id: row for row in connection.execute(select(exposures))}


def points(workspace: Workspace, replies: list[str], version: str = "judge@1") -> list[float]:
    items = [Item(i, (Message("user", HELLO[0]["content"]),), text) for i, text in enumerate(replies)]
    return [row["score"] for row in reward.score_items(workspace, version, items)]


def counted(client: TestClient, status: str) -> float:
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("rlhf_judged_total{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if f'status="{status}"' in line)


def test_replies_of_a_rollout_get_the_judges_points_in_both_arms(
    client: TestClient, service: Service, to_serve: Workspace
) -> None:
    started(to_serve)
    said = {}
    for i in range(8):
        body = chat(client, user=f"u{i}", temperature=0.9, seed=i, max_tokens=12, stream=False).json()
        said[body["id"]] = (body["rlhf"]["arm"], body["choices"][0]["message"]["content"])
        assert "points" not in str(body), "nobody who asks is told, or waits"
    assert {arm for arm, _ in said.values()} == {"control", "b"}
    found = rows(service)
    judge = digest_named(to_serve, "judge@1")
    for one, wanted in zip(said, points(to_serve, [text for _, text in said.values()]), strict=True):
        assert found[one].reward == pytest.approx(wanted, abs=1e-4)
        reason = json.loads(found[one].reason)
        assert reason["judge"] == judge and reason["because"], "and why it had its arm stays"
    assert counted(client, "ok") == 8
    assert judge in service.router.wanted(), "it is kept warm"


def test_streamed_replies_and_each_of_several_are_judged(
    client: TestClient, service: Service, to_serve: Workspace
) -> None:
    started(to_serve)
    assert "[DONE]" in chat(client, user="u", stream=True).text
    chat(client, user="u", n=3, temperature=1)
    assert [row.reward is not None for row in rows(service).values()] == [True] * 4


def test_the_share_is_drawn_by_a_hash_that_knows_no_arm(
    client: TestClient, service: Service, to_serve: Workspace
) -> None:
    rollout = started(to_serve, judge={"version": "judge@1", "share": 40})
    for i in range(20):
        chat(client, user=f"u{i}", max_tokens=2)
    found = rows(service)
    drawn = {one for one in found if bucket_of(f"judge\x00{rollout.id}", one) < 0.4 * BUCKETS}
    assert {one for one, row in found.items() if row.reward is not None} == drawn
    assert 0 < len(drawn) < 20


def test_outside_the_rollout_nothing_is_judged(client: TestClient, service: Service, to_serve: Workspace) -> None:
    started(to_serve, audience={"field": "plan", "in": ["paid"]})
    chat(client, "a@2", user="u")
    chat(client, user="u", metadata={"plan": "free"})
    assert [row.reward for row in rows(service).values()] == [None, None]


def test_what_comes_while_too_many_wait_is_dropped_and_counted(
    client: TestClient, service: Service, to_serve: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "_MOST", 0)
    started(to_serve)
    assert chat(client, user="u").status_code == 200
    assert [row.reward for row in rows(service).values()] == [None]
    assert counted(client, "dropped") == 1 and counted(client, "ok") == 0


def test_a_judge_that_fails_costs_nobody_their_reply(client: TestClient, service: Service, to_serve: Workspace) -> None:
    started(to_serve)
    (registry.open_version(to_serve, "judge@1").folder / "adapter_model.safetensors").unlink()
    for i in range(3):
        assert chat(client, user=f"u{i}").status_code == 200
    assert {(row.status, row.reward) for row in rows(service).values()} == {("ok", None)}
    assert counted(client, "error") == 3


def test_points_of_another_reward_are_none_of_the_judges(
    client: TestClient, service: Service, to_serve: Workspace, tmp_path: Path
) -> None:
    publish_reward(to_serve, engine.get(to_serve, "tiny"), tmp_path / "other", 77, "other")
    started(to_serve)
    asked = {"user": "u", "n": 2, "best_of": 3, "temperature": 1.0, "seed": 4, "consent": "train"}
    for chooser in ("other@1", "judge@1"):
        body = chat(client, **asked, reward=chooser).json()
        found = rows(service)
        mine = [found[one] for one in (body["id"], f"{body['id']}.1", f"{body['id']}.2")]
        assert [row.reward for row in mine] == pytest.approx(points(to_serve, [row.reply for row in mine]), abs=1e-4)
        assert all(json.loads(row.reason)["judge"] == digest_named(to_serve, "judge@1") for row in mine)
    assert counted(client, "ok") == 3, "what the judge chose has its points already"


def test_a_shadow_is_judged_where_the_shown_reply_is(client: TestClient, service: Service, to_serve: Workspace) -> None:
    rollout = started(to_serve, kind="shadow", judge={"version": "judge@1", "share": 50})
    for i in range(8):
        chat(client, user=f"u{i}", consent="train")
    found = rows(service)
    for row in [row for row in found.values() if row.shadow_of]:
        both = [row.reward is not None, found[row.shadow_of].reward is not None]
        assert both == [bucket_of(f"judge\x00{rollout.id}", row.shadow_of) < 0.5 * BUCKETS] * 2
        if row.reward is not None:
            assert row.reward == pytest.approx(points(to_serve, [row.reply])[0], abs=1e-4)
    assert sum(bool(row.shadow_of) for row in found.values()) == 8


def test_an_arm_whose_replies_the_judge_likes_less_is_rolled_back_by_itself(
    client: TestClient, service: Service, to_serve: Workspace
) -> None:
    said = {name: text_of(chat(client, name, max_tokens=12)) for name in ("a@1", "a@2", "a@3")}
    likes = dict(zip(said, points(to_serve, list(said.values())), strict=True))
    worse, *_, better = sorted(likes, key=likes.__getitem__)
    assert likes[better] - likes[worse] > 1e-2
    if better != "a@3":
        aliases.move(to_serve, ALIAS, better, why="liked more")
    guards = [{"metric": "reward", "role": "guardrail"}]
    rollout = started(to_serve, worse, guards=guards, alpha=0.2)
    n = 0
    while rollouts.status(to_serve, rollout.id).is_live:  # the server tends, too
        assert n < 300, _verdict(to_serve)
        for i in range(n, n + 20):
            chat(client, user=f"u{i}", max_tokens=12)
        rows(service)
        tend(to_serve)
        n += 20
    ended = rollouts.status(to_serve, rollout.id)
    assert (ended.status, ended.who) == ("rolled_back", "guardrails") and "reward lower of b" in ended.why
    assert chat(client, user="u1").json()["model"] == better


def _verdict(workspace: Workspace) -> Any:
    with workspace.read() as connection:
        return guardrails.judge(connection, log.find(connection, ALIAS)).as_json()


def test_points_that_come_late_are_looked_at(client: TestClient, service: Service, to_serve: Workspace) -> None:
    """A tender that saw a reply before its points looks again once they are there."""
    started(to_serve, guards=[{"metric": "reward", "role": "signal"}])
    chat(client, user="u")
    seen: dict[str, tuple[int, ...]] = {}
    rows(service)
    with to_serve.write() as write:
        write.connection.execute(exposures.update().values(reward=None))
    tend(to_serve, seen)
    before = dict(seen)
    with to_serve.write() as write:
        write.connection.execute(exposures.update().values(reward=1.0))
    tend(to_serve, seen)
    assert before and seen != before


def test_a_judge_is_fixed_at_the_start_and_one_that_cannot_judge_is_refused(
    to_serve: Workspace, tmp_path: Path
) -> None:
    for version in ("a@1", "nobody@1"):
        with pytest.raises((BadInput, NotFound)):
            started(to_serve, judge={"version": version})
    publish_reward(to_serve, engine.get(to_serve, "tiny"), tmp_path / "j2", 78, "judge")
    with pytest.raises(BadInput, match="replies of a reward"):
        settings = {"kind": "ab", "arms": {"b": {"version": "judge@2"}}, "judge": {"version": "judge@1"}}
        rollouts.start(to_serve, "judge@champion", RolloutSettings(**settings), why="try")
    digest = digest_named(to_serve, "judge@1")
    rollout = started(to_serve)
    aliases.move(to_serve, "judge@champion", "judge@2", why="next")
    judge = rollouts.status(to_serve, rollout.id).settings.judge
    assert judge is not None and judge.version == f"sha256:{digest}"
