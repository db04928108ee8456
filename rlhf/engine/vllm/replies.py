"""Replies that vLLM computes, as streams: a thread with a loop of its own reads what comes for all of them.

At most `rows` are asked for at a time; others wait here, shadow work behind everybody else. Token ids come back, not text: the text
is spelled as the embedded engine spells it, and a stop string ends the reply here, too. Who cancels has the connection closed,
upon which vLLM frees the row.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from threading import Lock, Thread
from typing import Any

import httpx

from rlhf.engine.streams import ReplyStream
from rlhf.engine.uttering import Utterance
from rlhf.engine.vllm.residents import Version
from rlhf.engine.vllm.server import Lost, Server, client_settings, refusal, unreachable, words_of
from rlhf.engine.wanted import EngineFailed, Load, Piece, TokenLogprob, Wanted
from rlhf.errors import RlhfError

_RATE_OVER_S = 5.0
_ID = "token_id:"  # before the number, where vLLM is told to name tokens by their ids


class Reply:
    """One reply. version: None = the bare base."""

    def __init__(
        self, wanted: Wanted, version: Version | None, tokenizer: Any, cancel: Callable[[Reply], None]
    ) -> None:
        self.wanted, self.version = wanted, version
        self.stream = ReplyStream(lambda: cancel(self))
        self.utterance = Utterance(wanted, tokenizer)
        self.task: asyncio.Task[None] | None = None

    def body(self, model: str, ends: Iterable[int]) -> dict[str, Any]:
        """What vLLM is asked. Everything that a base's generation_config may ask for is said, so that it asks for nothing."""
        wanted = self.wanted
        body: dict[str, Any] = {
            "model": model,
            "prompt": list(wanted.prompt),
            "max_tokens": wanted.max_tokens,
            "temperature": wanted.temperature,
            "top_p": wanted.top_p,
            "seed": wanted.seed,
            "stop": list(wanted.stop),
            "stop_token_ids": sorted(ends),
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "cache_salt": wanted.adapter or model,
        }
        if wanted.logprobs is not None:
            body |= {"logprobs": wanted.logprobs, "return_tokens_as_token_ids": True}
        return body

    def take(self, choice: dict[str, Any], ends: frozenset[int]) -> list[Piece]:
        """What the choice of one event says. Raises EngineFailed where vLLM gave up."""
        ids, told = choice.get("token_ids") or [], choice.get("logprobs")
        pieces = []
        for i, token in enumerate(ids):
            logprob = self._logprob(token, told, i) if self.wanted.logprobs is not None else None
            piece = self.utterance.take(token, is_end=token in ends, logprob=logprob)
            if piece is not None:
                pieces.append(piece)
                if piece.finish is not None:
                    return pieces
        if (finish := choice.get("finish_reason")) is not None:
            if finish not in ("stop", "length"):
                raise EngineFailed(f"vLLM ended a reply: {finish}", fix="ask again, or look at its log")
            pieces.append(self.utterance.end(finish))
        return pieces

    def _logprob(self, token: int, told: Any, i: int) -> TokenLogprob:
        top = ((int(name.removeprefix(_ID)), value) for name, value in ((told["top_logprobs"] or [])[i] or {}).items())
        likeliest = sorted(top, key=lambda one: -one[1])[
            : self.wanted.logprobs
        ]  # with the chosen one there may be one more
        return self.utterance.logprob(token, float(told["token_logprobs"][i]), likeliest)


class Replies:
    """tokenizer: for the thread alone. ends: token ids that end a reply. release: called once for every version that a reply held;
    lost: for one that the server says it hasn't."""

    def __init__(
        self,
        server: Server,
        key: str | None,
        *,
        tokenizer: Any,
        ends: frozenset[int],
        rows: int,
        max_length: int,
        release: Callable[[Version], None],
        lost: Callable[[Version], None],
    ) -> None:
        self.server, self.ends, self.rows, self.max_length = server, ends, rows, max_length
        self._tokenizer, self._release, self._lost = tokenizer, release, lost
        self._waiting: deque[Reply] = deque()
        self._low: deque[Reply] = deque()
        self._speaking: list[Reply] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._rates: deque[tuple[float, int]] = deque()
        self._n_tokens = self._n_prefix = 0
        self._lock = Lock()
        self._is_closing = False
        self.trouble: str | None = None  # what the last reply failed with; None where it was written
        self._client = httpx.AsyncClient(base_url=server.url, **client_settings(key))
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, name="vllm-replies", daemon=True)
        self._thread.start()

    def begin(self, wanted: Sequence[tuple[Wanted, Version | None]]) -> list[ReplyStream]:
        """Ask for these. Doesn't wait. Raises EngineFailed where it is closed."""
        replies = [Reply(one, version, self._tokenizer, self._cancelled) for one, version in wanted]
        with self._lock:
            if self._is_closing:
                raise EngineFailed("the engine is closed", fix="start it again")
            for reply in replies:
                (self._low if reply.wanted.low else self._waiting).append(reply)
        self._call(self._take_in)
        return [reply.stream for reply in replies]

    def load(self) -> Load:
        """How busy it is now. kv_tokens: what the rows under way may come to; what vLLM keeps beside them its own /metrics tell."""
        with self._lock:
            cut = time.monotonic() - _RATE_OVER_S
            reserved = sum(len(one.wanted.prompt) + one.wanted.max_tokens for one in self._speaking)
            return Load(
                rows=len(self._speaking),
                max_rows=self.rows,
                waiting=len(self._waiting) + len(self._low),
                tokens_per_s=sum(n for at, n in self._rates if at >= cut) / _RATE_OVER_S,
                kv_tokens=reserved,
                max_kv_tokens=self.rows * self.max_length,
                tokens=self._n_tokens,
                prefix_hits=self._n_prefix,
            )

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self._is_closing

    def close(self) -> bool:
        """End the thread; replies under way get EngineFailed. False where it has ended before."""
        with self._lock:
            was_open, self._is_closing = not self._is_closing, True
        self._call(self._loop.stop)
        self._thread.join()
        return was_open

    def _cancelled(self, reply: Reply) -> None:
        self._call(lambda: self._drop(reply))

    def _call(self, what: Callable[[], None]) -> None:
        """On the loop; one that is closed has nothing left to do."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what)

    # What follows runs in the loop's thread.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        for reply in [*self._speaking, *self._waiting, *self._low]:
            self._end(reply, EngineFailed("the engine was closed", fix="ask again"))
        self._loop.run_until_complete(self._leave())
        self._loop.close()

    async def _leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    def _take_in(self) -> None:
        """Ask vLLM for those who wait, in their order; shadow work only while nobody else waits."""
        while len(self._speaking) < self.rows:
            with self._lock:
                queue = self._waiting or self._low
                if not queue:
                    return
                reply = queue.popleft()
                self._speaking.append(reply)
            reply.task = self._loop.create_task(self._speak(reply))
            self._tasks.add(reply.task)
            reply.task.add_done_callback(self._tasks.discard)

    def _drop(self, reply: Reply) -> None:
        with self._lock:
            for queue in (self._waiting, self._low):
                if reply in queue:
                    queue.remove(reply)
        if reply.task is not None:
            reply.task.cancel()  # which closes the connection
        self._end(reply, reply.utterance.end("cancelled"))

    async def _speak(self, reply: Reply) -> None:
        try:
            async with contextlib.aclosing(self._pieces(reply)) as pieces:
                async for piece in pieces:
                    if (
                        piece.finish is not None
                    ):  # what vLLM says after it is read, too: the connection can be used again
                        self._end(reply, piece)
                        continue
                    reply.stream.put(piece)
                    if reply.stream.is_cancelled:  # its reader failed
                        self._end(reply, reply.utterance.end("cancelled"))
                        return
            self._end(reply, EngineFailed("vLLM's reply broke off", fix="ask again, or look at its log"))
        except asyncio.CancelledError:
            self._end(reply, reply.utterance.end("cancelled"))
        except Lost as error:
            if reply.version is not None:
                self._lost(reply.version)
            self._end(reply, error)
        except httpx.HTTPError as error:
            self._end(reply, unreachable(self.server.url, error))
        except RlhfError as error:
            self._end(reply, error)
        except Exception as error:  # an answer of another shape: nobody shall wait for ever on its account
            what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            self._end(reply, EngineFailed(f"vLLM's answer can't be read: {what}", fix="look at its log"))

    async def _pieces(self, reply: Reply) -> AsyncGenerator[Piece]:
        model = reply.version.name if reply.version else self.server.base_name
        async with self._client.stream("POST", "/v1/completions", json=reply.body(model, self.ends)) as response:
            if not response.is_success:
                raise await _refused(self.server.url, response)
            async for event in _events(response):
                if (error := event.get("error")) is not None:
                    raise refusal(self.server.url, 500, words_of(event, str(error)))
                self.server.of(model, event)
                for choice in event["choices"]:
                    pieces = reply.take(choice, self.ends)
                    self._count(len(choice.get("token_ids") or ()))
                    for piece in pieces:
                        yield piece
                    if reply.stream.is_ended and choice.get("finish_reason") is None:
                        return  # ended here: vLLM shall write no more
                details = (event.get("usage") or {}).get("prompt_tokens_details") or {}
                self._n_prefix += details.get("cached_tokens") or 0

    def _count(self, n_tokens: int) -> None:
        now = time.monotonic()
        with self._lock:
            self._n_tokens += n_tokens
            self._rates.append((now, n_tokens))
            while self._rates[0][0] < now - _RATE_OVER_S:
                self._rates.popleft()

    def _end(self, reply: Reply, last: Piece | BaseException) -> None:
        """Its row and its version are free, before it is said: whoever reads the end finds them so."""
        if reply.stream.is_ended:
            return
        with self._lock:
            if reply in self._speaking:
                self._speaking.remove(reply)
        if isinstance(last, BaseException):
            if not isinstance(last, Lost):
                self.trouble = str(last)
        elif last.finish != "cancelled":
            self.trouble = None
        if reply.version is not None:
            self._release(reply.version)
            reply.version = None
        reply.stream.put(last)
        if not self._is_closing:
            self._take_in()


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a stream of events."""
    async for line in response.aiter_lines():
        word = line.removeprefix("data: ")
        if word != line and word != "[DONE]":
            yield json.loads(word)


async def _refused(url: str, response: httpx.Response) -> RlhfError:
    text = (await response.aread()).decode("utf-8", "replace")
    with contextlib.suppress(ValueError):
        return refusal(url, response.status_code, words_of(json.loads(text), text))
    return refusal(url, response.status_code, words_of(None, text))
