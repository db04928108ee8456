"""vLLM's routes over a real model with PEFT's adapters, in this process: what the engine asks of vLLM, answered as vLLM 0.32 does.

The model is the tiny base and computes every answer; words, statuses and shapes of refusals are those that vLLM gave when it was
asked. As in vLLM, matrices that fit no layer are passed over in silence, and `--api-key` guards only what is under /v1.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import uvicorn
from live_versions import CPU
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rlhf.engine import policies
from rlhf.engine.bases import Base
from rlhf.engine.spelling import Speller
from rlhf.engine.vllm.addresses import served_name
from rlhf.serving.listening import bind


@dataclass
class TinyVllm:
    """One process. pools: it gives states, and doesn't write. misses: a layer's matrices whose key holds this find no place."""

    base: Base
    pools: bool = False
    max_length: int = 512
    max_rank: int = 16
    api_key: str | None = None
    name: str | None = None
    takes_adapters: bool = True
    misses: str | None = None
    token_s: float = 0.0
    breaks_after: int | None = None  # tokens after which a stream breaks off
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    adapters: dict[str, str] = field(default_factory=dict)
    own_names: dict[str, str] = field(default_factory=dict)  # PEFT's, one a load
    n_streams: int = 0  # under way
    most_streams: int = 0

    def __post_init__(self) -> None:
        self.name = self.name or served_name(self.base)
        self.tokenizer = self.base.tokenizer()
        bare = policies.bare(self.base, CPU)
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        self.model = get_peft_model(bare, LoraConfig(r=1, target_modules=targets), adapter_name="unused")
        self.model.eval()
        self.lock = threading.Lock()

    def restart(self) -> None:
        """As after a crash: no adapter is there."""
        self.adapters.clear()

    def load(self, body: Mapping[str, Any]) -> Response:
        name, path = body["lora_name"], Path(body["lora_path"])
        if name in self.adapters and not body.get("load_inplace"):
            text = f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set "
            return error(400, text + "'load_inplace' to True.", "InvalidUserInput")
        if not (path / "adapter_config.json").is_file():
            return error(404, f"Loading lora {name} failed: No adapter found for {path}", "NotFoundError")
        config = json.loads((path / "adapter_config.json").read_text())
        tensors = load_file(path / "adapter_model.safetensors")
        what = ""
        if config["r"] > self.max_rank:
            what = f"LoRA rank {config['r']} is greater than max_lora_rank {self.max_rank}."
        elif any("score" in key for key in tensors):
            what = "Cannot load full module 'score': the model does not expose a unique ClassificationHeadWithLoRA."
        if what:
            return error(
                500, f"Call to add_lora method failed: Worker failed with error '{what}'", "InternalServerError"
            )
        with self.lock, torch.no_grad():
            own = self.own_names[name] = f"a{len(self.model.peft_config)}"
            one = LoraConfig(r=config["r"], lora_alpha=config["lora_alpha"], target_modules=config["target_modules"])
            self.model.add_adapter(own, one)
            there = dict(self.model.named_parameters())
            for key, tensor in tensors.items():
                place = key.replace(".weight", f".{own}.weight")
                if place in there and not (self.misses and self.misses in key):
                    there[place].copy_(tensor)
        self.adapters[name] = str(path)
        return Response(f"Success: LoRA adapter '{name}' added successfully.")

    def unload(self, body: Mapping[str, Any]) -> Response:
        if self.adapters.pop(body["lora_name"], None) is None:
            return error(404, f"The lora adapter '{body['lora_name']}' cannot be found.", "NotFoundError")
        return Response("Success")

    def states(self, name: str, ids: Sequence[int]) -> torch.Tensor:
        """(T, hidden): after the final norm."""
        return self._forward(name, ids, output_hidden_states=True).hidden_states[-1][0]

    def logp(self, name: str, ids: Sequence[int]) -> torch.Tensor:
        """(T, vocabulary)."""
        return self._forward(name, ids).logits[0].log_softmax(-1)

    def _forward(self, name: str, ids: Sequence[int], **how: Any) -> Any:
        with self.lock, torch.inference_mode():
            if name == self.name:
                with self.model.disable_adapter():
                    return self.model(input_ids=torch.tensor([list(ids)]), **how)
            self.model.base_model.set_adapter(self.own_names[name], inference_mode=True)
            return self.model(input_ids=torch.tensor([list(ids)]), **how)

    def app(self) -> Starlette:
        posts = {"/v1/completions": self._complete} if not self.pools else {"/v1/embeddings": self._embed}
        if self.takes_adapters:
            posts |= {"/v1/load_lora_adapter": self._in_thread(self.load)}
            posts |= {"/v1/unload_lora_adapter": self._in_thread(self.unload)}
        routes = [Route(path, self._guarded(answer), methods=["POST"]) for path, answer in posts.items()]
        routes += [Route("/v1/models", self._guarded(self._models)), Route("/health", lambda _request: Response())]
        routes += [Route("/version", lambda _request: JSONResponse({"version": "0.32.0"}))]
        return Starlette(routes=routes, exception_handlers={404: lambda *_: JSONResponse({"detail": "Not Found"}, 404)})

    def _guarded(self, answer: Any) -> Any:
        async def guarded(request: Request) -> Response:
            if self.api_key and request.headers.get("authorization") != f"Bearer {self.api_key}":
                return JSONResponse({"error": "Unauthorized"}, 401)
            body = json.loads(await request.body() or b"{}")
            self.asked.append((request.url.path, body))
            if body.get("model") not in (None, self.name, *self.adapters):
                return error(404, f"The model `{body['model']}` does not exist.", "NotFoundError")
            answered: Response = await answer(request, body)
            return answered

        return guarded

    def _in_thread(self, call: Any) -> Any:
        async def answer(_request: Request, body: Mapping[str, Any]) -> Response:
            return await asyncio.to_thread(call, body)

        return answer

    async def _models(self, _request: Request, _body: Any) -> Response:
        cards = [{"id": self.name, "root": "base", "parent": None, "max_model_len": self.max_length}]
        cards += [{"id": name, "root": path, "parent": self.name} for name, path in self.adapters.items()]
        return JSONResponse({"object": "list", "data": cards})

    async def _embed(self, _request: Request, body: Mapping[str, Any]) -> Response:
        rows = body["input"]
        if any(len(row) > self.max_length for row in rows):
            return error(400, "This model's maximum context length is exceeded", "BadRequestError")
        data = []
        for index, row in reversed([*enumerate(rows)]):  # the order of the answer isn't promised
            state = (await asyncio.to_thread(self.states, body["model"], row))[-1].float()
            if body.get("use_activation", True):
                state = torch.nn.functional.normalize(state, dim=0)
            raw = base64.b64encode(state.numpy().astype("<f4").tobytes()).decode()
            data.append({"index": index, "object": "embedding", "embedding": raw})
        return JSONResponse({"object": "list", "model": body["model"], "data": data})

    async def _complete(self, request: Request, body: Mapping[str, Any]) -> Response:
        if len(body["prompt"]) + body["max_tokens"] > self.max_length:
            return error(
                400, f"max_tokens={body['max_tokens']} cannot be greater than max_model_len", "BadRequestError"
            )
        if body.get("stream"):
            return StreamingResponse(self._events(body), media_type="text/event-stream")
        logp = await asyncio.to_thread(self.logp, body["model"], body["prompt"])
        told: list[Any] = [None]
        for i, token in enumerate(body["prompt"][1:]):
            told.append({str(token): {"logprob": float(logp[i, token]), "rank": 1, "decoded_token": ""}})
        choice = {"index": 0, "text": "", "finish_reason": "length", "prompt_logprobs": told}
        return JSONResponse({"model": body["model"], "choices": [choice]})

    async def _events(self, body: Mapping[str, Any]) -> AsyncIterator[str]:
        self.n_streams += 1
        self.most_streams = max(self.most_streams, self.n_streams)
        try:
            n = 0
            async for choice in self._written(body):
                if self.breaks_after is not None and n >= self.breaks_after:
                    return
                n += 1
                yield f"data: {json.dumps({'model': body['model'], 'choices': [choice]})}\n\n"
            usage = {"prompt_tokens": len(body["prompt"]), "prompt_tokens_details": {"cached_tokens": 1}}
            yield f"data: {json.dumps({'model': body['model'], 'choices': [], 'usage': usage})}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            self.n_streams -= 1

    async def _written(self, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        ids, chance = list(body["prompt"]), torch.Generator().manual_seed(body["seed"])
        speller = Speller(lambda ids: self.tokenizer.decode(ids, skip_special_tokens=True), body["stop"])
        finish = None
        for n in range(body["max_tokens"]):
            logp = (await asyncio.to_thread(self.logp, body["model"], ids))[-1]
            await asyncio.sleep(self.token_s)
            token = _picked(logp, body, chance)
            ids.append(token)
            if token in body["stop_token_ids"]:
                finish = "stop"
            else:
                speller.add(token)
                finish = "stop" if speller.is_stopped else "length" if n + 1 == body["max_tokens"] else None
            choice = {"index": 0, "text": "", "finish_reason": finish, "token_ids": [token]}
            if body.get("logprobs") is not None:
                choice["logprobs"] = _logprobs(logp, token, body["logprobs"])
            yield choice
            if finish:
                return


def _picked(logp: torch.Tensor, body: Mapping[str, Any], chance: torch.Generator) -> int:
    if body["temperature"] == 0:
        return int(logp.argmax())
    share, order = (logp / body["temperature"]).softmax(-1).sort(descending=True)
    share[share.cumsum(-1) - share >= body["top_p"]] = 0.0
    return int(order[torch.multinomial(share, 1, generator=chance)])


def _logprobs(logp: torch.Tensor, token: int, n: int) -> dict[str, Any]:
    """The chosen token among the likeliest, where it isn't one of them behind them."""
    ids = list(dict.fromkeys([*logp.topk(n).indices.tolist(), token])) if n else [token]
    top = {f"token_id:{i}": float(logp[i]) for i in ids}
    return {"tokens": [f"token_id:{token}"], "token_logprobs": [float(logp[token])], "top_logprobs": [top]}


def error(status: int, message: str, kind: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": status}}, status)


@contextmanager
def listening(vllm: TinyVllm, port: int = 0) -> Iterator[str]:
    """The process under a real server in a thread: its address."""
    with bind("127.0.0.1", port) as bound:
        config = uvicorn.Config(vllm.app(), log_level="critical", access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def wait_until(what: Any, within_s: float = 10.0) -> None:
    """Until it is true; fails where it never is."""
    ends = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.01)
