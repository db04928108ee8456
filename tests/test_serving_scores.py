"""Scores over the API: rewards of every kind score as `reward score` does, and an ensemble holds all of its members or none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from serving_made import (
    client_of,
    digest_named,
    error_of,
    publish_ensemble,
    publish_head,
    publish_reward,
    service_of,
)

from rlhf import engine, registry, reward
from rlhf.engine.bases import Base
from rlhf.errors import RlhfError
from rlhf.records import Message
from rlhf.reward.score import Item
from rlhf.serving.refusals import NotServable
from rlhf.store import Workspace

REPLIES = ("Boil it for seven minutes.", "No.")


@pytest.fixture
def base(to_serve: Workspace) -> Base:
    return engine.get(to_serve, "tiny")


@pytest.fixture
def members(to_serve: Workspace, base: Base, tmp_path: Path) -> list[str]:
    return [publish_reward(to_serve, base, tmp_path / f"m{seed}", seed, f"m{seed}") for seed in (31, 32, 33)]


@pytest.fixture
def client(to_serve: Workspace) -> Iterator[TestClient]:
    with service_of(to_serve) as service, client_of(service) as made:
        yield made


def asked(client: TestClient, model: str) -> Any:
    body = {"model": model, "prompt": "How?", "reply_a": REPLIES[0], "reply_b": REPLIES[1]}
    return client.post("/v1/score", json=body)


def require_as_the_command_says(client: TestClient, workspace: Workspace, model: str) -> None:
    items = [Item(i, (Message("user", "How?"),), text) for i, text in enumerate(REPLIES)]
    rows = list(reward.score_items(workspace, model, items))
    answer = asked(client, model)
    body = answer.json()
    assert answer.headers["x-adapter-digest"] == digest_named(workspace, model)
    assert [body["reward_a"], body["reward_b"]] == pytest.approx([row["score"] for row in rows], abs=1e-4)
    assert [body["doubt_a"], body["doubt_b"]] == pytest.approx([row["doubt"] for row in rows], abs=1e-4)
    assert min(body["doubt_a"], body["doubt_b"]) > 0
    assert body["p_a"] == pytest.approx(1 / (1 + 2.718281828459045 ** (rows[1]["score"] - rows[0]["score"])), abs=1e-4)


def test_an_instant_reward_scores_as_the_command_does(
    client: TestClient, to_serve: Workspace, base: Base, tmp_path: Path
) -> None:
    publish_head(to_serve, base, tmp_path / "head", 5, "instant")
    require_as_the_command_says(client, to_serve, "instant@1")


@pytest.mark.parametrize("rule", [{}, {"combine": "min", "scale": 0.7}, {"combine": "mean_minus_sd", "k": 2.0}])
def test_an_ensemble_scores_as_the_command_does(
    client: TestClient, to_serve: Workspace, base: Base, members: list[str], tmp_path: Path, rule: dict[str, Any]
) -> None:
    publish_ensemble(to_serve, base, tmp_path / "all", members, "all", **rule)
    require_as_the_command_says(client, to_serve, "all@1")


def test_an_ensemble_that_scores_otherwise_than_when_published_takes_no_traffic(
    client: TestClient, to_serve: Workspace, base: Base, members: list[str], tmp_path: Path
) -> None:
    honest = tmp_path / "all"
    digest = publish_ensemble(to_serve, base, honest, members, "all")
    probe = registry.open_version(to_serve, f"sha256:{digest}").manifest["probe"]
    evidence = registry.Evidence(probe["texts_digest"], *2 * (tuple(score + 0.01 for score in probe["scores"]),))
    (honest / "ensemble.json").write_text((honest / "ensemble.json").read_text().replace('"k": 1.0', '"k": 2.0'))
    parents = tuple(("member", member) for member in members)
    draft = registry.VersionDraft(
        "reward",
        "ensemble",
        "off",
        base.name,
        base.digest,
        base.tokenizer_digest,
        base.template_digest,
        parents=parents,
    )
    registry.publish(to_serve, honest, draft, evidence)
    assert "probes" in error_of(asked(client, "off@1"), 500, "damaged")["message"]
    assert asked(client, "all@1").status_code == 200


def test_a_damaged_member_is_the_ensembles_error_and_the_others_are_given_back(
    to_serve: Workspace, base: Base, members: list[str], tmp_path: Path
) -> None:
    digest = publish_ensemble(to_serve, base, tmp_path / "all", members, "all")
    last = max(members)
    (registry.open_version(to_serve, f"sha256:{last}").folder / "adapter_model.safetensors").unlink()
    with service_of(to_serve) as service, client_of(service) as client:
        error_of(asked(client, "all@1"), 500, "damaged")
        assert service.holding.lease_now(digest) is None
        assert all(one.held == 0 for one in service.engine.resident().values())


def test_an_ensembles_members_are_held_together_and_given_back_together(
    to_serve: Workspace, base: Base, members: list[str], tmp_path: Path
) -> None:
    digest = publish_ensemble(to_serve, base, tmp_path / "all", members, "all")
    policy = digest_named(to_serve, "a@1")
    with service_of(to_serve, slots=3) as service:
        service.holding.room_s = 0.02
        with service.holding.lease(digest):
            assert {one: resident.held for one, resident in service.engine.resident().items()} == dict.fromkeys(
                members, 1
            )
            with pytest.raises(NotServable):
                service.holding.lease(policy)
        with service.holding.lease(policy):
            assert service.holding.lease_now(digest) is None, "a member made room"
            with pytest.raises(NotServable):
                service.holding.lease(digest)
            held = {one: resident.held for one, resident in service.engine.resident().items()}
            assert sum(held.values()) == held[policy] == 1, "what could be had was given back"
        service.holding.lease(digest).close()


def test_two_ensembles_that_want_the_same_slots_take_turns(
    to_serve: Workspace, base: Base, members: list[str], tmp_path: Path
) -> None:
    """Four members, three slots: whoever gathers first is served, then the other; nobody waits for ever."""
    more = publish_reward(to_serve, base, tmp_path / "m34", 34, "m34")
    both = [
        publish_ensemble(to_serve, base, tmp_path / "x", members[:2], "x"),
        publish_ensemble(to_serve, base, tmp_path / "y", [members[2], more], "y"),
    ]
    wrong: list[BaseException] = []
    with service_of(to_serve, slots=3) as service:

        def ask(digest: str) -> None:
            for _ in range(5):
                try:
                    with service.holding.lease(digest):
                        service.holding.score(digest, [[[1, 5, 9]]])
                except RlhfError as error:
                    wrong.append(error)

        threads = [threading.Thread(target=ask, args=(digest,)) for digest in both * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not wrong and not any(thread.is_alive() for thread in threads)
        assert all(one.held == 0 for one in service.engine.resident().values())


def test_best_of_may_be_chosen_by_an_ensemble(
    client: TestClient, to_serve: Workspace, base: Base, members: list[str], tmp_path: Path
) -> None:
    publish_ensemble(to_serve, base, tmp_path / "all", members, "all")
    asked = {"model": "a", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 6, "n": 2}
    body = client.post("/v1/chat/completions", json={**asked, "best_of": 4, "reward": "all@1", "seed": 2}).json()
    points = [choice["rlhf"]["points"] for choice in body["choices"]]
    items = [
        Item(i, (Message("user", "Hello"),), choice["message"]["content"]) for i, choice in enumerate(body["choices"])
    ]
    assert points == pytest.approx([row["score"] for row in reward.score_items(to_serve, "all@1", items)], abs=1e-4)
    assert points == sorted(points, reverse=True)
