"""The API: every reply comes from the version that it names, whole or streamed, and what can't be answered is said so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from serving_made import HELLO, chat, client_of, digest_named, error_of, events_of, publish_policy, service_of, text_of
from sqlalchemy import select

from rlhf import engine, policy, registry, reward
from rlhf.policy.prompts import Prompt
from rlhf.records import Message
from rlhf.registry import aliases
from rlhf.reward.score import Item
from rlhf.serving.service import Service
from rlhf.store import Workspace
from rlhf.store.tables import exposures


@pytest.fixture
def service(to_serve: Workspace) -> Iterator[Service]:
    with service_of(to_serve) as made:
        yield made


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with client_of(service) as made:
        yield made


def rows(workspace: Workspace) -> list[Any]:
    with workspace.read() as connection:
        return list(connection.execute(select(exposures).order_by(exposures.c.request_id)))


@pytest.mark.parametrize("model", ["a", "a@champion", "a@3", "sha256"])
def test_every_way_to_name_a_version_gives_that_version(client: TestClient, to_serve: Workspace, model: str) -> None:
    digest = digest_named(to_serve, "a@3")
    answer = chat(client, f"sha256:{digest[:12]}" if model == "sha256" else model)
    body = answer.json()
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-adapter-digest"] == body["system_fingerprint"] == body["rlhf"]["digest"] == digest
    assert body["model"] == "a@3" and body["id"] == answer.headers["x-request-id"]
    assert body["rlhf"]["alias"] == ("a@champion" if model in ("a", "a@champion") else None)


def test_versions_write_what_their_slow_twins_write(client: TestClient, to_serve: Workspace) -> None:
    messages = (Message("user", "Hello there"),)
    told = set()
    for version in ("a@1", "a@2", "a@3"):
        for temperature in (0.05, 0.0):
            sampling = policy.Sampling(16, temperature, 1.0, 4)
            (twin,) = policy.replies(to_serve, version, [Prompt("0", messages)], sampling)
            assert text_of(chat(client, version, temperature=temperature, seed=4, max_tokens=16)) == twin.text
        told.add(twin.text)
    assert len(told) == 3, "versions that write the same would prove nothing"


def test_a_stream_says_what_the_whole_reply_says(client: TestClient) -> None:
    asked = {"temperature": 0.8, "seed": 5, "n": 2, "logprobs": True, "top_logprobs": 2, "max_tokens": 12}
    whole = chat(client, **asked).json()
    answer = chat(client, **asked, stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-adapter-digest"] == whole["system_fingerprint"]
    *chunks, usage, done = events_of(answer.text)
    assert done == "[DONE]" and usage["usage"] == whole["usage"] and usage["choices"] == []
    for index, choice in enumerate(whole["choices"]):
        own = [one["choices"][0] for one in chunks if one["choices"][0]["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(one["delta"].get("content", "") for one in own) == choice["message"]["content"]
        assert [one["finish_reason"] for one in own if one["finish_reason"]] == [choice["finish_reason"]]
        tokens = [token for one in own if one["logprobs"] for token in one["logprobs"]["content"]]
        assert [t["token"] for t in tokens] == [t["token"] for t in choice["logprobs"]["content"]]
        assert all(len(token["top_logprobs"]) == 2 for token in tokens)
    assert {one["id"] for one in chunks} == {answer.headers["x-request-id"]}
    assert {one["system_fingerprint"] for one in chunks} == {whole["system_fingerprint"]}


def test_the_same_seed_gives_the_same_reply_and_another_one_another(client: TestClient) -> None:
    one, same, other = (text_of(chat(client, temperature=1, seed=seed, max_tokens=16)) for seed in (1, 1, 2))
    assert one == same != other
    assert text_of(chat(client, temperature=1, max_tokens=16)) != text_of(chat(client, temperature=1, max_tokens=16))


def test_a_seeded_reply_is_the_command_lines(client: TestClient, to_serve: Workspace) -> None:
    sampling = policy.Sampling(12, 0.9, 1.0, 4)
    (twin,) = policy.replies(to_serve, "a@2", [Prompt("0", (Message("user", "Hello there"),))], sampling)
    assert text_of(chat(client, "a@2", temperature=0.9, seed=4, max_tokens=12)) == twin.text


def test_a_stop_string_ends_the_reply_before_it(client: TestClient) -> None:
    whole = text_of(chat(client, max_tokens=24))
    stop = whole[len(whole) // 2 :][:3]
    body = chat(client, max_tokens=24, stop=stop).json()
    assert body["choices"][0]["message"]["content"] == whole[: whole.index(stop)]
    assert body["choices"][0]["finish_reason"] == "stop"


def test_raw_completions_take_a_text_or_its_tokens(client: TestClient, service: Service) -> None:
    ids = service.engine.renderer.tokenizer("Once upon")["input_ids"]
    asked = {"model": "a@1", "temperature": 0, "max_tokens": 6, "logprobs": 1}
    texts = [client.post("/v1/completions", json={**asked, "prompt": prompt}).json() for prompt in ("Once upon", ids)]
    assert texts[0]["object"] == "text_completion"
    said, same = (one["choices"][0].pop("logprobs") for one in texts)
    assert texts[0]["choices"] == texts[1]["choices"] and texts[0]["choices"][0]["text"]
    assert said["tokens"] == same["tokens"]
    assert said["token_logprobs"] == pytest.approx(same["token_logprobs"], abs=1e-4)
    assert len(said["tokens"]) == len(said["token_logprobs"]) == len(said["text_offset"]) == len(said["top_logprobs"])
    streamed = client.post("/v1/completions", json={**asked, "prompt": "Once upon", "stream": True})
    *chunks, done = events_of(streamed.text)
    assert done == "[DONE]"
    assert "".join(one["choices"][0]["text"] for one in chunks) == texts[0]["choices"][0]["text"]


TWO = {"model": "a@1", "max_tokens": 6, "prompt": ["Once upon", "There was"]}


def test_several_prompts_are_answered_as_each_would_be_alone(client: TestClient, service: Service) -> None:
    asked = {**TWO, "n": 2, "seed": 5, "temperature": 1.0, "logprobs": 1}
    alone = [client.post("/v1/completions", json={**asked, "prompt": prompt}).json() for prompt in TWO["prompt"]]
    body = client.post("/v1/completions", json=asked).json()
    assert [one["index"] for one in body["choices"]] == [0, 1, 2, 3]
    texts = [choice["text"] for one in alone for choice in one["choices"]]
    assert [one["text"] for one in body["choices"]] == texts and len(set(texts)) == 4
    assert body["usage"] == {key: alone[0]["usage"][key] + alone[1]["usage"][key] for key in body["usage"]}
    ids = [service.engine.renderer.tokenizer(prompt)["input_ids"] for prompt in TWO["prompt"]]
    greedy = {**TWO, "temperature": 0}
    said, same = (
        client.post("/v1/completions", json={**greedy, "prompt": p}).json()["choices"] for p in (TWO["prompt"], ids)
    )
    assert said == same


def test_several_prompts_are_streamed_by_their_index(client: TestClient) -> None:
    asked = {**TWO, "n": 2, "seed": 5, "temperature": 1.0}
    whole = client.post("/v1/completions", json=asked).json()
    more = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, usage, done = events_of(client.post("/v1/completions", json={**asked, **more}).text)
    assert done == "[DONE]" and usage["usage"] == whole["usage"]
    for choice in whole["choices"]:
        own = [one["choices"][0] for one in chunks if one["choices"][0]["index"] == choice["index"]]
        assert "".join(one["text"] for one in own) == choice["text"]
        assert [one["finish_reason"] for one in own if one["finish_reason"]] == [choice["finish_reason"]]


def test_every_prompts_replies_have_rows_of_their_own(client: TestClient, to_serve: Workspace) -> None:
    asked = {**TWO, "n": 2, "temperature": 1.0, "consent": "train"}
    body = client.post("/v1/completions", json=asked).json()
    found = {row.request_id: row for row in rows(to_serve)}
    assert list(found) == body["rlhf"]["replies"] == [body["id"], *(f"{body['id']}.{k}" for k in (1, 2, 3))]
    for k, (one, choice) in enumerate(zip(body["rlhf"]["replies"], body["choices"], strict=True)):
        assert found[one].reply == choice["text"]
        assert TWO["prompt"][k // 2] in found[one].prompt
    assert found[body["id"]].tokens_in + found[f"{body['id']}.2"].tokens_in == body["usage"]["prompt_tokens"]
    assert sum(row.tokens_out for row in found.values()) == body["usage"]["completion_tokens"]


def test_more_replies_than_there_is_ever_room_for_are_refused_for_good(client: TestClient, service: Service) -> None:
    most = service.bounds.rows + service.bounds.queue
    asked = {**TWO, "prompt": ["Hello"] * (most // 2 + 1), "n": 2, "temperature": 1.0}
    error_of(client.post("/v1/completions", json=asked), 400, "unsupported_parameter")
    error_of(client.post("/v1/completions", json={**TWO, "prompt": ["Hello"] * 129}), 400, "invalid_value")
    error_of(client.post("/v1/completions", json={**TWO, "prompt": ["Hello", ""]}), 400, "invalid_value")
    error_of(client.post("/v1/completions", json={**TWO, "prompt": [[5], [100_000]]}), 400, "unsupported_parameter")
    assert service.overload.n_replies == 0


def test_the_best_of_each_prompt_are_answered_under_their_own_ids(client: TestClient, to_serve: Workspace) -> None:
    asked = {**TWO, "best_of": 4, "n": 2, "reward": "judge", "temperature": 1.0, "consent": "train", "seed": 3}
    body = client.post("/v1/completions", json=asked).json()
    found = {row.request_id: row for row in rows(to_serve)}
    assert len(found) == 8
    for k, (one, choice) in enumerate(zip(body["rlhf"]["replies"], body["choices"], strict=True)):
        assert (found[one].reply, found[one].reward) == (choice["text"], choice["rlhf"]["points"])
        drawn = [row.reward for row in found.values() if row.prompt == found[one].prompt and row.reward is not None]
        assert choice["rlhf"]["points"] == sorted(drawn, reverse=True)[k % 2]


def test_best_of_answers_the_replies_that_the_reward_likes_most(client: TestClient, to_serve: Workspace) -> None:
    asked = {"temperature": 1.0, "seed": 3, "max_tokens": 10}
    all_of_them = [one["message"]["content"] for one in chat(client, **asked, n=6).json()["choices"]]
    body = chat(client, **asked, n=2, best_of=6, reward="judge").json()
    items = [Item(i, (Message("user", "Hello there"),), text) for i, text in enumerate(all_of_them) if text.strip()]
    points = {items[i].reply: row["score"] for i, row in enumerate(reward.score_items(to_serve, "judge@1", items))}
    best = sorted(points.values(), reverse=True)[:2]
    assert [one["rlhf"]["points"] for one in body["choices"]] == pytest.approx(best, abs=1e-4)
    assert [points[one["message"]["content"]] for one in body["choices"]] == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize(("reward", "status", "code"), [("nobody", 404, "model_not_found"), ("a", 400, "wrong_role")])
def test_a_reward_that_cannot_choose_is_refused_before_anything_is_written(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch, reward: str, status: int, code: str
) -> None:
    begun: list[Any] = []
    monkeypatch.setattr(service.engine, "reply", begun.append)
    assert error_of(chat(client, best_of=2, temperature=1, reward=reward), status, code)["param"] == "reward"
    assert begun == [] and rows(service.workspace) == [] and service.overload.n_replies == 0


def test_scores_are_those_of_the_one_scorer(client: TestClient, to_serve: Workspace) -> None:
    replies = ("Boil it for seven minutes.", "No.")
    items = [Item(i, (Message("user", "How?"),), reply) for i, reply in enumerate(replies)]
    a, b = (row["score"] for row in reward.score_items(to_serve, "judge@1", items))
    one = client.post("/v1/score", json={"model": "judge", "prompt": "How?", "reply": replies[0]}).json()
    two = client.post(
        "/v1/score",
        json={
            "model": "judge@1",
            "prompt": [{"role": "user", "content": "How?"}],
            "reply_a": replies[0],
            "reply_b": replies[1],
        },
    )
    assert one["reward"] == pytest.approx(a, abs=1e-4) and one["doubt"] is None
    body = two.json()
    assert (body["reward_a"], body["reward_b"]) == pytest.approx((a, b), abs=1e-4)
    assert body["p_a"] == pytest.approx(1 / (1 + 2.718281828459045 ** (b - a)), abs=1e-4)
    assert two.headers["x-adapter-digest"] == digest_named(to_serve, "judge@1")


@pytest.mark.parametrize("model", ["b", "a@9", "a@nobody", "gpt-4", "sha256:0123456789abcdef", "base:tiny", "@", "a@"])
@pytest.mark.parametrize("path", ["chat/completions", "completions", "score"])
def test_an_unknown_name_is_an_error_and_never_the_base(client: TestClient, model: str, path: str) -> None:
    body = {
        "chat/completions": {"messages": HELLO},
        "completions": {"prompt": "Hello"},
        "score": {"prompt": "Hello", "reply": "Hi"},
    }[path]
    error = error_of(client.post(f"/v1/{path}", json={"model": model, **body}), 404, "model_not_found")
    assert error["param"] == "model"


def test_a_version_of_the_other_role_is_refused(client: TestClient) -> None:
    error_of(chat(client, "judge"), 400, "wrong_role")
    error_of(client.post("/v1/score", json={"model": "a", "prompt": "x", "reply": "y"}), 400, "wrong_role")


def test_a_damaged_version_is_an_error_that_stays_one(client: TestClient, to_serve: Workspace) -> None:
    folder = registry.open_version(to_serve, "a@2").folder
    weights = folder / "adapter_model.safetensors"
    weights.chmod(0o644)
    spoilt = bytearray(weights.read_bytes())
    spoilt[-1] ^= 1
    weights.write_bytes(bytes(spoilt))
    for _ in range(2):
        error_of(chat(client, "a@2"), 500, "damaged")
    assert chat(client, "a@1").status_code == 200, "the others are served"


def test_a_call_to_a_retired_version_is_no_error_of_the_versions(
    client: TestClient, service: Service, to_serve: Workspace
) -> None:
    registry.retire(to_serve, "a@1")
    service.router.refresh()
    for _ in range(3):
        error_of(chat(client, "a@1"), 410, "retired")
    assert rows(to_serve) == []
    counted = [line for line in client.get("/metrics").text.splitlines() if line.startswith("rlhf_replies_total{")]
    assert len(counted) == 1 and 'status="refused"' in counted[0] and counted[0].endswith(" 3")


def test_a_reward_that_scores_otherwise_than_when_published_takes_no_traffic(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = service.engine.score

    def off(digest: str, renderings: Any, **how: Any) -> Any:
        return [[(score + 0.01, doubt) for score, doubt in row] for row in honest(digest, renderings, **how)]

    monkeypatch.setattr(service.engine, "score", off)
    said = error_of(client.post("/v1/score", json={"model": "judge", "prompt": "x", "reply": "y"}), 500, "damaged")
    assert "probes" in said["message"]


def test_a_version_for_another_base_is_refused_by_name(client: TestClient, to_serve: Workspace, tmp_path: Any) -> None:
    base = engine.get(to_serve, "tiny")
    publish_policy(to_serve, replace(base, name="other", digest="0" * 64), tmp_path / "other", 9, name="foreign")
    assert "base other" in error_of(chat(client, "foreign@1"), 400, "bad_input")["message"]


def test_models_are_what_may_be_named(client: TestClient, to_serve: Workspace) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    names = [one["id"] for one in listed["data"]]
    assert names == ["a@1", "a@2", "a@3", "a@champion", "judge@1", "judge@champion"]
    for name in names:
        one = client.get(f"/v1/models/{name}").json()
        assert one["object"] == "model" and one["rlhf"]["digest"] == digest_named(to_serve, name)
    digest = digest_named(to_serve, "a@3")
    for name in ("a", f"sha256:{digest}", f"sha256:{digest[:12]}"):  # whatever else a request may name
        one = client.get(f"/v1/models/{name}").json()
        assert (one["id"], one["rlhf"]["version"], one["rlhf"]["digest"]) == (name, "a@3", digest)
    for name in ("b", "b@1", "sha256:0123456789ab", "sha256:0"):
        error_of(client.get(f"/v1/models/{name}"), 404, "model_not_found")
    registry.retire(to_serve, "a@1")
    assert "a@1" not in [one["id"] for one in client.get("/v1/models").json()["data"]]


REFUSED = [
    ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
    ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
    ({"logit_bias": {"1": 5}}, "logit_bias", "unsupported_parameter"),
    ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_parameter"),
    ({"frequency_penalty": -1}, "frequency_penalty", "unsupported_parameter"),
    ({"reasoning_effort": "high"}, "reasoning_effort", "unsupported_parameter"),
    ({"colour": "red"}, "colour", "unknown_parameter"),
    ({"temperature": 3}, "temperature", "invalid_value"),
    ({"top_p": 0}, "top_p", "invalid_value"),
    ({"n": 0}, "n", "invalid_value"),
    ({"n": 2, "temperature": 0}, "n", "unsupported_parameter"),
    ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_value"),
    ({"stop": ""}, "stop", "invalid_value"),
    ({"top_logprobs": 3}, "top_logprobs", "unsupported_parameter"),
    ({"best_of": 3, "temperature": 1}, "reward", "unsupported_parameter"),
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": "hello"}, "messages", "invalid_value"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages", "invalid_value"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "invalid_value"),
    ({"messages": [{"role": "user", "content": "x", "name": "ann"}]}, "messages", "invalid_value"),
    ({"model": ""}, "model", "invalid_value"),
    ({"consent": ["sell"]}, "consent", "invalid_value"),
    ({"max_tokens": 100_000}, "messages", "context_length_exceeded"),
]


@pytest.mark.parametrize(("more", "param", "code"), REFUSED, ids=[f"{i}-{one[1]}" for i, one in enumerate(REFUSED)])
def test_what_would_change_the_answer_is_refused_by_name(
    client: TestClient, more: dict[str, Any], param: str, code: str
) -> None:
    assert error_of(chat(client, **more), 400, code)["param"] == param


def test_what_says_no_more_than_we_do_is_accepted(client: TestClient) -> None:
    harmless = {
        "tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "logit_bias": {}, "presence_penalty": 0,
        "frequency_penalty": 0.0, "store": True, "service_tier": "auto", "parallel_tool_calls": False, "stop": None, "user": "ann",
        "metadata": {"plan": "paid"}, "reasoning_effort": None, "n": 1, "stream_options": None,
    }  # fmt: skip
    assert text_of(chat(client, **harmless)) == text_of(chat(client))
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}]}]
    assert text_of(chat(client, messages=parts)) == text_of(chat(client))


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/v1/embeddings", 404, "not_found"),
        ("POST", "/v1/chat/completions", 400, "invalid_value"),
    ],
)
def test_every_refusal_has_openais_shape(client: TestClient, method: str, path: str, status: int, code: str) -> None:
    error_of(client.request(method, path, headers={"Content-Type": "application/json"}), status, code)


def test_a_fix_fits_what_was_refused(client: TestClient) -> None:
    """Nobody is told to do what they did."""
    error_of(client.delete("/v1/models"), 405, "method_not_allowed")
    nothing = client.post("/v1/embeddings", json={})
    assert "/v1/score" in error_of(nothing, 404, "not_found")["message"]
    empty = client.post("/v1/completions", headers={"Content-Type": "application/json"})
    error = error_of(empty, 400, "invalid_value")
    assert error["param"] is None and "has no body" in error["message"]
    broken = client.post("/v1/completions", content=b"{", headers={"Content-Type": "application/json"})
    assert error_of(broken, 400, "invalid_value")["param"] is None and "no JSON" in broken.text


@pytest.mark.parametrize("raw", [b"{", b"[" * 50_000, b'{"model": NaN}', b"\x00", b"\xed\xa0\x80", b"null", b"[]"])
def test_broken_json_is_refused(client: TestClient, raw: bytes) -> None:
    answer = client.post("/v1/chat/completions", content=raw, headers={"Content-Type": "application/json"})
    error_of(answer, 400, "invalid_value")


def test_a_body_over_the_limit_is_refused(client: TestClient, service: Service) -> None:
    big = [{"role": "user", "content": "x" * service.bounds.body_bytes}]
    error_of(chat(client, messages=big), 413, "too_large")


def test_an_unforeseen_fault_tells_nothing_and_gives_everything_back(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(wanted: Any) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(service.engine, "reply", broken)
    assert "secret" not in error_of(chat(client), 500, "server_error")["message"]
    monkeypatch.undo()
    assert (service.overload.n_requests, service.overload.n_replies) == (0, 0)
    assert all(one.held == 0 for one in service.engine.resident().values())
    assert chat(client).status_code == 200


def test_what_was_served_is_on_the_disk_when_the_reply_ends(client: TestClient, to_serve: Workspace) -> None:
    whole = chat(client, user="ann", n=2, temperature=1)
    streamed = chat(client, "a@1", user="ann", stream=True)
    found = {row.request_id: row for row in rows(to_serve)}
    ids = [*whole.json()["rlhf"]["replies"], streamed.headers["x-request-id"]]
    assert set(found) == set(ids)
    digests = [digest_named(to_serve, name) for name in ("a@3", "a@3", "a@1")]
    assert [found[one].digest for one in ids] == digests
    assert {row.status for row in found.values()} == {"ok"}
    assert len({row.unit for row in found.values()}) == 1 and "ann" not in str(found)
    assert all(row.latency_s >= row.first_token_s > 0 and row.tokens_out > 0 for row in found.values())
    assert all(row.prompt is None and row.reply is None for row in found.values()), "nobody consented"


def test_a_rollback_reaches_the_next_request(client: TestClient, to_serve: Workspace) -> None:
    assert chat(client).json()["model"] == "a@3"
    done = client.post("/v1/aliases/a@champion/actions/rollback", json={"why": "worse"})
    body = done.json()
    assert done.status_code == 200, done.text
    assert (body["alias"], body["from"], body["to"]) == ("a@champion", "a@3", "a@2") and body["seconds"] > 0
    assert chat(client).json()["model"] == "a@2"
    assert aliases.history(to_serve, "a@champion")[-1].who == "local"
    client.post("/v1/aliases/a@champion/actions/rollback", json={"why": "further", "to": "a@1"})
    assert chat(client).json()["model"] == "a@1"
    error_of(client.post("/v1/aliases/a@nobody/actions/rollback", json={"why": "x"}), 404, "not_found")
    error_of(client.post("/v1/aliases/a@champion/actions/rollback", json={"why": " "}), 400, "invalid_value")


def test_health_readiness_and_figures(client: TestClient, service: Service) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").status_code == 503
    service.is_warm = True
    assert client.get("/ready").json() == {"status": "ready"}
    chat(client)
    chat(client, "nobody@1")
    told = client.get("/metrics")
    assert told.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = told.text.splitlines()
    assert 'rlhf_requests_total{route="/v1/chat/completions",status="200"} 1' in lines
    assert 'rlhf_requests_total{route="/v1/chat/completions",status="404"} 1' in lines
    assert any(line.startswith("rlhf_reply_seconds_bucket{") and 'le="+Inf"' in line for line in lines)
    named = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    for line in lines:
        if not line.startswith("#"):
            name = line.partition("{")[0].partition(" ")[0]
            assert {name, name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")} & named, line
            float(line.rsplit(" ", 1)[1])
