"""vLLM behind the same router: the same replies and scores, the same rollbacks, and never the base where an adapter got lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from serving_made import chat, client_of, digest_named, error_of, service_of, text_of
from test_cli_serve import body, served
from vllm_server import TinyVllm, listening

from rlhf import engine
from rlhf.engine.vllm.addresses import Addresses
from rlhf.errors import Damaged
from rlhf.registry import aliases
from rlhf.store import Workspace

SCORED = {"model": "judge", "prompt": "Hello there", "reply_a": "Good day to you.", "reply_b": "No."}


@dataclass
class Processes:
    writes: TinyVllm
    pools: TinyVllm
    addresses: Addresses


@contextmanager
def processes(workspace: Workspace, *, writes: Any = (), pools: Any = ()) -> Iterator[Processes]:
    base = engine.get(workspace, "tiny")
    one, other = TinyVllm(base, **dict(writes)), TinyVllm(base, pools=True, **dict(pools))
    with listening(one) as url, listening(other) as second:
        yield Processes(one, other, Addresses(url, second))


def test_replies_and_scores_are_the_embedded_engines(to_serve: Workspace) -> None:
    answers = []
    with processes(to_serve) as made:
        for vllm in (None, made.addresses):
            with service_of(to_serve, vllm=vllm) as service, client_of(service) as client:
                chats = [chat(client, f"a@{n}") for n in (1, 2, 3)]
                assert chats[0].headers["x-adapter-digest"] == digest_named(to_serve, "a@1")
                answers.append(([text_of(one) for one in chats], client.post("/v1/score", json=SCORED).json()))
    (texts, scores), (theirs, their_scores) = answers
    assert theirs == texts and len(set(texts)) == 3
    assert their_scores["p_a"] == pytest.approx(scores["p_a"], abs=1e-4)


def test_the_best_of_some_replies_is_chosen_by_a_reward_of_the_other_process(to_serve: Workspace) -> None:
    with (
        processes(to_serve) as made,
        service_of(to_serve, vllm=made.addresses) as service,
        client_of(service) as client,
    ):
        assert text_of(chat(client, temperature=1, seed=3, best_of=3, reward="judge"))
        rows = [len(body["input"]) for path, body in made.pools.asked if path == "/v1/embeddings"]
        assert rows[-1] <= 3 and sum(body.get("stream", False) for _, body in made.writes.asked) >= 3


def test_a_rollback_is_in_force_for_the_next_request_and_a_stream_stays_what_it_was(to_serve: Workspace) -> None:
    with (
        processes(to_serve) as made,
        service_of(to_serve, vllm=made.addresses) as service,
        client_of(service) as client,
    ):
        assert chat(client).json()["model"] == "a@3"
        aliases.roll_back(to_serve, "a@champion", why="worse")
        answer = chat(client)
        assert answer.json()["model"] == "a@2"
        streamed = chat(client, stream=True)
        assert "[DONE]" in streamed.text and '"a@2"' in streamed.text
        assert {f"a-{digest_named(to_serve, name)[:12]}" for name in ("a@2", "a@3")} <= set(made.writes.adapters)


def test_a_policy_that_vllm_has_no_place_for_takes_no_traffic(to_serve: Workspace) -> None:
    with (
        processes(to_serve, writes={"misses": "layers"}) as made,
        service_of(to_serve, vllm=made.addresses) as service,
        client_of(service) as client,
    ):
        answer = chat(client)
        assert answer.status_code >= 400 and "computes as without it" in answer.text
        assert made.writes.adapters == {}


def test_a_reward_that_lost_some_layers_is_found_by_its_probes(to_serve: Workspace) -> None:
    """Half of a LoRA changes something, so that only what it scores can tell."""
    with (
        processes(to_serve, pools={"misses": "layers.1."}) as made,
        service_of(to_serve, vllm=made.addresses) as service,
        client_of(service) as client,
    ):
        with pytest.raises(Damaged, match="says of its probes otherwise"):
            service.holding.lease(digest_named(to_serve, "judge@1"))
        answer = client.post("/v1/score", json=SCORED)
        assert answer.status_code == 500 and "probes" in answer.text


def test_a_vllm_started_anew_fails_one_request_and_no_more(to_serve: Workspace) -> None:
    with (
        processes(to_serve) as made,
        service_of(to_serve, vllm=made.addresses) as service,
        client_of(service) as client,
    ):
        before = text_of(chat(client))
        made.writes.restart()
        error_of(chat(client), 500, "engine_failed")
        assert text_of(chat(client)) == before


def test_a_vllm_that_is_gone_is_an_error_and_the_server_stays(to_serve: Workspace) -> None:
    with ExitStack() as process:
        url = process.enter_context(listening(TinyVllm(engine.get(to_serve, "tiny"))))
        with service_of(to_serve, vllm=Addresses(url)) as service, client_of(service) as client:
            assert text_of(chat(client))
            answer = client.post("/v1/score", json=SCORED)
            assert answer.status_code == 503 and "needs a vLLM that pools" in answer.text
            process.close()
            error_of(chat(client), 500, "engine_failed")
            assert service.engine.busy().rows == 0
    assert not list((to_serve.root / "cache").glob("tmp*"))


def test_rlhf_serve_answers_by_vllm_and_leaves_nothing_behind(to_serve: Workspace) -> None:
    with processes(to_serve) as made:
        words = ["--engine", "vllm", "--vllm-generate", made.addresses.generate]
        words += ["--vllm-score", str(made.addresses.score)]
        with served(to_serve, *words) as (process, told):
            with httpx.Client(base_url=told["url"], timeout=60) as client:
                assert client.post("/chat/completions", json=body()).json()["model"] == "a@3"
                assert 0 < client.post("/score", json=SCORED).json()["p_a"] < 1
                assert len(made.writes.adapters) == len(made.pools.adapters) == 1
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
            assert process.stderr is not None and "writes" in process.stderr.read()
        assert made.writes.adapters == made.pools.adapters == {}
        assert not list((to_serve.root / "cache").glob("tmp*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "turbine"], "unknown"),
        (["--engine", "vllm"], "address is missing"),
        (["--vllm-score", "http://127.0.0.1:1"], "are for --engine vllm"),
        (["--engine", "vllm", "--vllm-generate", "127.0.0.1:1"], "no address"),
        (["--engine", "vllm", "--vllm-generate", "http://192.0.2.1:1"], "no key for it"),
        (["--engine", "vllm", "--vllm-generate", "http://127.0.0.1:1"], "doesn't answer"),
        (["--engine", "vllm", "--vllm-generate", "http://127.0.0.1:1", "--device", "cpu"], "--device"),
        (["--engine", "vllm", "--vllm-generate", "http://127.0.0.1:1", "--dtype", "auto"], "dtype 'auto'"),
    ],
)
def test_a_server_over_vllm_that_cannot_start_says_why(
    to_serve: Workspace, words: list[str], said: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from command_line import CommandLine

    answer = CommandLine(to_serve.root, capsys, monkeypatch)("serve", *words, "--port", "0", "--json")
    assert answer.status in (1, 2)
    assert said in answer.error["message"]
