"""The `openai` package, unchanged, against a real server on a real port."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_made import HELLO, digest_named, publish_policy, running, service_of

from rlhf import engine, registry
from rlhf.store import Workspace

openai = pytest.importorskip("openai", reason="the package openai is not installed")


@pytest.fixture(scope="module")
def address(serving_root: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from command_line import copy_of

    workspace = Workspace.open(copy_of(serving_root, tmp_path_factory.mktemp("openai") / "ws"), actor="tester")
    with service_of(workspace) as service, running(service) as url:
        yield url
    workspace.close()


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="unused", max_retries=0) as made:
        yield made


def test_a_chat_is_answered_whole_and_streamed(client: Any, to_serve: Workspace) -> None:
    asked = {"model": "a", "messages": HELLO, "temperature": 0.7, "seed": 3, "max_tokens": 12}
    whole = client.chat.completions.create(**asked)
    assert whole.system_fingerprint == digest_named(to_serve, "a@3") and whole.model == "a@3"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert {chunk.system_fingerprint for chunk in chunks} == {whole.system_fingerprint}


def test_headers_say_the_version(client: Any, to_serve: Workspace) -> None:
    raw = client.chat.completions.with_raw_response.create(model="a@1", messages=HELLO, max_tokens=3)
    assert raw.headers["x-adapter-digest"] == digest_named(to_serve, "a@1")
    assert raw.headers["x-request-id"] == raw.parse().id


def test_the_streaming_helper_reads_it_to_the_end(client: Any) -> None:
    asked: Any = {"model": "a", "messages": HELLO, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    with client.chat.completions.stream(**asked, stop=whole[6:8]) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == whole[: whole.index(whole[6:8])]
    assert final.choices[0].finish_reason == "stop"


def test_completions_logprobs_and_models(client: Any) -> None:
    done = client.completions.create(model="a@2", prompt="Once", max_tokens=4, logprobs=2, temperature=0)
    assert len(done.choices[0].logprobs.tokens) == len(done.choices[0].logprobs.top_logprobs) > 0
    chat = client.chat.completions.create(
        model="a@2", messages=HELLO, max_tokens=4, logprobs=True, top_logprobs=2, temperature=0
    )
    assert all(len(token.top_logprobs) == 2 for token in chat.choices[0].logprobs.content)
    assert [model.id for model in client.models.list()][:3] == ["a@1", "a@2", "a@3"]
    assert client.models.retrieve("a@champion").id == "a@champion"


def test_several_prompts_come_back_in_order(client: Any) -> None:
    asked: Any = {"model": "a@2", "prompt": ["Once", "Twice", "Thrice"], "max_tokens": 4, "n": 2, "seed": 1}
    done = client.completions.create(**asked)
    assert [one.index for one in done.choices] == [0, 1, 2, 3, 4, 5]
    texts = [""] * 6
    for chunk in client.completions.create(**asked, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [one.text for one in done.choices]


def test_our_own_fields_go_in_the_extra_body(client: Any) -> None:
    done = client.chat.completions.create(
        model="a", messages=HELLO, max_tokens=4, user="ann", metadata={"plan": "paid"},
        extra_body={"best_of": 3, "reward": "judge", "consent": "train,evaluate", "session": "s1"},
    )  # fmt: skip
    assert done.choices[0].rlhf["points"] is not None


def test_errors_are_the_packages_own(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-4", messages=HELLO)
    assert unknown.value.code == "model_not_found" and unknown.value.param == "model"
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="a", messages=HELLO, tools=[{"type": "function", "function": {"name": "f"}}]
        )
    assert refused.value.param == "tools"


def test_what_stays_refused_is_asked_for_once(to_serve: Workspace, tmp_path: Path) -> None:
    """The package tries again by itself where that may help, and nowhere else."""
    registry.retire(to_serve, "a@2")
    weights = registry.open_version(to_serve, "a@1").folder / "adapter_model.safetensors"
    weights.unlink()
    publish_policy(to_serve, engine.get(to_serve, "tiny"), tmp_path / "b", 11, name="b")
    with service_of(to_serve, slots=1) as service, running(service) as url:
        service.holding.room_s = 0.01
        with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=2) as client:

            def requests() -> float:
                lines = httpx.get(f"{url}/metrics").text.splitlines()
                named = [line for line in lines if line.startswith("rlhf_requests_total{") and "/chat/" in line]
                return sum(float(line.rsplit(" ", 1)[1]) for line in named)

            def refused(model: str, status: int, code: str) -> float:
                before = requests()
                with pytest.raises(openai.APIStatusError) as error:
                    client.chat.completions.create(model=model, messages=HELLO, max_tokens=2)
                assert (error.value.status_code, error.value.code) == (status, code)
                return requests() - before

            assert refused("a@2", 410, "retired") == 1
            assert refused("a@1", 500, "damaged") == 1
            with service.holding.lease(digest_named(to_serve, "a@3")):
                assert refused("b@1", 503, "version_unavailable") == 3, "there may be room soon"
            assert client.chat.completions.create(model="b@1", messages=HELLO, max_tokens=2).model == "b@1"


def test_many_at_once_each_get_their_own_reply(address: str) -> None:
    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="unused", max_retries=0) as client:

            def one(i: int) -> Any:
                said = [{"role": "user", "content": f"Say {i}"}]
                return client.chat.completions.create(model=f"a@{1 + i % 3}", messages=said, seed=i, max_tokens=6)

            return [reply for _ in range(2) for reply in await asyncio.gather(*(one(i) for i in range(24)))]

    both = asyncio.run(ask())
    first, second = both[:24], both[24:]
    assert [one.model for one in first] == [f"a@{1 + i % 3}" for i in range(24)]
    assert [one.choices[0].message.content for one in first] == [one.choices[0].message.content for one in second]
    assert len({one.id for one in both}) == 48
