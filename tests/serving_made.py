"""A workspace to serve from on the tiny base, and servers over it: policies whose replies differ, a reward, aliases."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import live_versions
import torch
import uvicorn
from fastapi.testclient import TestClient

from rlhf import engine, registry
from rlhf.engine import generation, heads, policies
from rlhf.engine.bases import Base
from rlhf.engine.rendering import Renderer
from rlhf.engine.rewards import LoraShape
from rlhf.engine.vllm.addresses import Addresses
from rlhf.registry import aliases
from rlhf.reward.probes import continuations, probe_digest, scores_from_disk
from rlhf.serving.api import create_app
from rlhf.serving.bounds import ServeSettings
from rlhf.serving.listening import bind
from rlhf.serving.serve import opened
from rlhf.serving.service import Service
from rlhf.store import Workspace

URL = "http://127.0.0.1"
BOUNDS = ServeSettings(rows=8, slots=8, max_rank=8, queue=64, deadline_s=60.0)
HELLO = [{"role": "user", "content": "Hello there"}]


def write_serving_workspace(root: Path, base_folder: Path, n: int = 3) -> Path:
    """The tiny base; policies a@1 to a@n, a@champion moved over all of them; a reward judge@1 behind judge@champion."""
    workspace = Workspace.create(root, actor="tester")
    base = engine.add_from_dir(workspace, "tiny", base_folder)
    for seed in range(n):
        publish_policy(workspace, base, root.parent / f"a{seed}", seed)
        aliases.move(workspace, "a@champion", f"a@{seed + 1}", why="next")
    publish_reward(workspace, base, root.parent / "judge", 7, "judge")
    aliases.move(workspace, "judge@champion", "judge@1", why="first")
    workspace.close()
    return root


def publish_policy(
    workspace: Workspace, base: Base, folder: Path, seed: int, name: str = "a", *, says: Path | None = None
) -> str:
    """A policy that was drawn with this seed; its digest. says: the folder whose log-probabilities it is published with (None =
    its own)."""
    fresh = policies.fresh(base, live_versions.CPU, LoraShape(4, 8, 0.0, 0), seed=seed)
    live_versions.drawn(fresh, seed, 1.5).save_pretrained(folder)  # strong, so that versions' replies differ
    scores = log_probabilities_of(base, says or folder)
    evidence = registry.Evidence(probe_digest(), scores, scores)
    return registry.publish(workspace, folder, draft_of(base, name, "policy", seed), evidence).digest


def publish_reward(workspace: Workspace, base: Base, folder: Path, seed: int, name: str) -> str:
    """A reward of kind lora that was drawn with this seed; its digest."""
    live_versions.reward_folder(base, folder, seed)
    return _with_probes(workspace, base, folder, draft_of(base, name, "reward", seed))


def publish_head(workspace: Workspace, base: Base, folder: Path, seed: int, name: str) -> str:
    """A reward of kind head on the bare base; its digest."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    spread = torch.randn(48), torch.randn(48), torch.ones(48), torch.ones(1), torch.rand(48, 3) * 0.1
    heads.Head(heads.Reading((2,), ("last",), ()), 48, *spread).save(folder)
    return _with_probes(workspace, base, folder, replace(draft_of(base, name, "reward", seed), kind="head"))


def publish_ensemble(workspace: Workspace, base: Base, folder: Path, members: list[str], name: str, **rule: Any) -> str:
    """A reward that combines these members, by digest; its digest."""
    folder.mkdir(parents=True)
    config = {"members": members, "combine": "mean", "k": 1.0, "scale": 1.0, **rule}
    (folder / "ensemble.json").write_text(json.dumps(config), "utf-8")
    parents = tuple(("member", digest) for digest in members)
    draft = replace(draft_of(base, name, "reward", 0), kind="ensemble", parents=parents)
    return _with_probes(workspace, base, folder, draft)


def _with_probes(workspace: Workspace, base: Base, folder: Path, draft: registry.VersionDraft) -> str:
    scores = scores_from_disk(workspace, folder, draft.kind, base)
    return registry.publish(workspace, folder, draft, registry.Evidence(probe_digest(), scores, scores)).digest


def log_probabilities_of(base: Base, folder: Path) -> tuple[float, ...]:
    """PEFT's mean log-probability a token of each probe's reply: what a policy's manifest holds."""
    prompts, replies = continuations(Renderer(base.tokenizer(), max_length=2**31))
    sums = generation.log_probabilities(policies.load(folder, base, live_versions.CPU), prompts, replies)
    return tuple(total / len(reply) for total, reply in zip(sums, replies, strict=True))


def draft_of(base: Base, name: str, role: Any, seed: int) -> registry.VersionDraft:
    return registry.VersionDraft(
        role=role,
        kind="lora",
        name=name,
        base_name=base.name,
        base_digest=base.digest,
        tokenizer_digest=base.tokenizer_digest,
        template_digest=base.template_digest,
        seeds={"seed": seed},
    )


@contextmanager
def service_of(workspace: Workspace, *, vllm: Addresses | None = None, **changed: Any) -> Iterator[Service]:
    """Everything a server works with, without the server."""
    bounds = ServeSettings(**{**BOUNDS.model_dump(), **changed})
    with opened(workspace, engine.get(workspace, "tiny"), live_versions.CPU, bounds, vllm) as service:
        yield service


@contextmanager
def client_of(service: Service, *, token: str | None = None, is_local: bool = True) -> Iterator[TestClient]:
    """A client of the application, in this process."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with TestClient(create_app(service, is_local=is_local), base_url=URL, headers=headers) as client:
        yield client


@contextmanager
def running(service: Service) -> Iterator[str]:
    """The application under a real server in a thread of its own: its address."""
    with bind("127.0.0.1", 0) as bound:
        server = uvicorn.Server(uvicorn.Config(create_app(service), log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def chat(client: Any, model: str = "a", *, messages: Any = HELLO, **more: Any) -> Any:
    """A chat's response: greedy and short unless it is asked otherwise."""
    body = {"model": model, "messages": messages, "max_tokens": 8, "temperature": 0, **more}
    return client.post("/v1/chat/completions", json=body)


def text_of(response: Any) -> str:
    """The first reply's text."""
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def events_of(text: str) -> list[Any]:
    """A stream's events: JSON values, and the word [DONE] where it stands."""
    parts = [part for part in text.split("\n\n") if part]
    assert all(part.startswith("data: ") for part in parts)
    words = [part.removeprefix("data: ") for part in parts]
    return [word if word == "[DONE]" else json.loads(word) for word in words]


def error_of(response: Any, status: int, code: str) -> dict[str, Any]:
    """The refusal, in OpenAI's shape, with this status and code."""
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"] and error["type"]
    assert error["code"] == code, error
    assert response.headers["x-request-id"]
    return error


def digest_named(workspace: Workspace, name: str) -> str:
    return registry.resolve(workspace, name).digest
