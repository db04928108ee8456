"""One vLLM process over HTTP: what it serves, adapters in and out, states of last tokens, log-probabilities.

Only routes under /v1 are asked: vLLM's --api-key guards those, and not /pooling. What a reply isn't from is told by its name in the
answer: another model's answer is never taken for the adapter's.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from torch import Tensor

from rlhf.engine.vllm.addresses import KEY
from rlhf.engine.wanted import EngineFailed
from rlhf.errors import BadInput, BadUsage

_CONNECT_S, _ANSWER_S = 5.0, 300.0  # an answer may wait for others' in vLLM's own queue
_KEPT_S = 2.0  # an idle connection; vLLM closes its end after 5 s, and who asks at that moment gets an error
_AT_ONCE = 64  # texts in one request for states


class Lost(EngineFailed):
    """vLLM has nothing of that name (any more): it was started anew, or somebody unloaded it."""


def client_settings(key: str | None) -> dict[str, Any]:
    """Of httpx's clients: no proxy stands between us and a process of our own."""
    return {
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "timeout": httpx.Timeout(_ANSWER_S, connect=_CONNECT_S),
        "limits": httpx.Limits(max_connections=None, keepalive_expiry=_KEPT_S),
        "trust_env": False,
    }


class Server:
    """One process. Any thread may ask. url: without a path; base_name: of the model that it serves, see `addresses.served_name`."""

    def __init__(self, url: str, key: str | None, base_name: str) -> None:
        self.url, self.base_name = url.rstrip("/"), base_name
        self._client = httpx.Client(base_url=self.url, **client_settings(key))

    def close(self) -> None:
        self._client.close()

    def greet(self) -> int:
        """Make sure that it serves this base and takes adapters; gives the tokens that prompt and reply may have together. Raises
        EngineFailed, BadUsage."""
        cards = self._answer("GET", "/v1/models")["data"]
        found = {card["id"]: card for card in cards}
        if self.base_name not in found:
            raise BadUsage(
                f"vLLM at {self.url} serves {', '.join(found) or 'nothing'}, wanted {self.base_name}",
                fix=f"start it on this base with --served-model-name {self.base_name}",
            )
        try:
            self.unload("none-of-ours")
        except Lost as error:
            if "none-of-ours" not in error.message:  # not the route's own answer: there is no such route
                raise BadUsage(
                    f"vLLM at {self.url} takes no adapters while it runs",
                    fix="start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment, and --enable-lora",
                ) from None
        return int(found[self.base_name]["max_model_len"])

    def version(self) -> str:
        """Which vLLM it is."""
        return str(self._answer("GET", "/version").get("version", "of an unknown version"))

    def load(self, name: str, folder: Path) -> None:
        """Have an adapter there under a name that nothing else was ever called. Raises BadInput where vLLM refuses it.

        A process that we were connected to before may have it from a folder that is gone: then it is loaded afresh, never in
        place, for that would mix two sets of weights in a reply under way.
        """
        body = {"lora_name": name, "lora_path": str(folder.resolve())}
        response = self._send("POST", "/v1/load_lora_adapter", body)
        if response.status_code == 400 and "already been loaded" in _said(response):
            self.unload(name)
            response = self._send("POST", "/v1/load_lora_adapter", body)
        if response.is_success:
            return
        if response.status_code in (400, 404, 500) and self._send("GET", "/health").is_success:
            raise BadInput(
                f"vLLM at {self.url} refuses the adapter {name}: {_said(response)}",
                fix="start vLLM so that it fits (--max-lora-rank, the workspace under the same path), or look at its log",
            )
        raise self._refusal(response)

    def unload(self, name: str) -> None:
        """Take an adapter's name away. Raises Lost where it has none."""
        response = self._send("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        if not response.is_success:
            raise self._refusal(response)

    def states(self, model: str, rows: Sequence[Sequence[int]], salt: str) -> Tensor:
        """(R, hidden), float32: the state of each row's last token after the final norm, as it is, not normalised. Raises
        EngineFailed, Lost."""
        found = []
        for start in range(0, len(rows), _AT_ONCE):
            part = [list(row) for row in rows[start : start + _AT_ONCE]]
            wanted = {"encoding_format": "base64", "embed_dtype": "float32", "endianness": "little"}
            body = {"model": model, "input": part, "use_activation": False, "cache_salt": salt, **wanted}
            answer = self.of(model, self._answer("POST", "/v1/embeddings", body))
            data = sorted(answer["data"], key=lambda one: one["index"])
            found += [np.frombuffer(base64.b64decode(one["embedding"]), dtype="<f4") for one in data]
        states = torch.from_numpy(np.stack(found).astype(np.float32))
        if len(states) != len(rows) or not torch.isfinite(states).all():
            raise EngineFailed(f"vLLM at {self.url} gave states that are no numbers", fix="look at its log")
        return states

    def logprobs(self, model: str, row: Sequence[int], salt: str) -> list[float]:
        """The log-probability (nats, temperature 1) of each token of the row but the first. Raises EngineFailed, Lost."""
        body = {"model": model, "prompt": list(row), "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        answer = self.of(model, self._answer("POST", "/v1/completions", {**body, "cache_salt": salt}))
        found = answer["choices"][0]["prompt_logprobs"]
        return [float(told[str(token)]["logprob"]) for token, told in zip(row[1:], found[1:], strict=True)]

    def of(self, model: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer, which must be this model's. Raises EngineFailed."""
        if answer.get("model") != model:
            raise EngineFailed(
                f"vLLM at {self.url} answered as {answer.get('model')}, wanted {model}",
                fix="let nothing stand between the two that changes names",
            )
        return answer

    def _answer(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        response = self._send(method, path, body)
        if not response.is_success:
            raise self._refusal(response)
        try:
            found: dict[str, Any] = response.json()
        except ValueError:
            raise EngineFailed(f"what answers at {self.url} isn't vLLM", fix="give vLLM's address") from None
        return found

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        try:
            return self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise unreachable(self.url, error) from None

    def _refusal(self, response: httpx.Response) -> EngineFailed | BadInput:
        return refusal(self.url, response.status_code, _said(response))


def refusal(url: str, status: int, what: str) -> EngineFailed | BadInput:
    """What an answer with this status and these words means."""
    if status == 404:
        return Lost(f"vLLM at {url}: {what}", fix="ask again: the version is loaded anew")
    if status in (401, 403):
        return EngineFailed(f"vLLM at {url} doesn't take our key", fix=f"set {KEY} to what its --api-key says")
    if status in (400, 422):
        return BadInput(f"vLLM at {url} can't take this: {what}", fix="ask within what it was started for")
    return EngineFailed(f"vLLM at {url} failed ({status}): {what}", fix="look at its log, and ask again")


def unreachable(url: str, error: Exception) -> EngineFailed:
    """What a connection that failed means."""
    what = str(error) or type(error).__name__
    return EngineFailed(f"vLLM at {url} doesn't answer: {what}", fix="start it, or look at its log")


def words_of(body: Any, text: str) -> str:
    """What an error's body says, in vLLM's shape or another."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict) and error.get("message"):
        return " ".join(str(error["message"]).split())[:300]
    return " ".join(text.split())[:300]


def _said(response: httpx.Response) -> str:
    try:
        return words_of(response.json(), response.text)
    except ValueError:
        return words_of(None, response.text)
