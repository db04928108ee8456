"""/v1/chat/completions and /v1/completions: the main road from a request to its answer, whole or streamed.

Before anything is sent the model is resolved, its version held and the prompt rendered, so that what can't be answered gets a
status of its own. A stream that fails later ends in an error event and without `[DONE]`. Either way the rows of what was served are
on the disk before the answer's last byte.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from itertools import chain
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rlhf.serving import judging, shadows
from rlhf.serving import openai_shapes as shapes
from rlhf.serving.answering import Answering, Left
from rlhf.serving.asked import ChatAsked, TextAsked
from rlhf.serving.doorway import Receive, Scope, Send
from rlhf.serving.refusals import Draining, body_of
from rlhf.serving.scores import scored
from rlhf.serving.service import Service

_GONE = 499  # nginx's number for a client that left; nobody reads it


async def answer(service: Service, request: Request, asked: ChatAsked | TextAsked) -> Response:
    """The response to one request for replies. Raises refusals; what was begun is given back by then."""
    asked.check()
    answering = Answering(service, asked, request.state.request_id)
    try:
        async with asyncio.timeout_at(answering.deadline):
            await answering.begin()
        if asked.stream:
            return EventStream(answering)
        return await _whole(answering, request)
    except TimeoutError:
        answering.close()
        raise answering.too_late() from None
    except Left:
        answering.close("cancelled")
        return Response(status_code=_GONE)
    except asyncio.CancelledError:
        answering.close("cancelled")
        raise
    except BaseException:
        answering.close()
        raise


async def _whole(answering: Answering, request: Request) -> Response:
    with _watched(answering, request.receive):
        async for _ in answering.pieces():
            pass
        await _choose(answering)
    await answering.record()
    answering.close("ok")
    shadows.cast(answering)
    judging.cast(answering)
    body = shapes.whole(
        answering.head,
        answering.replies[: answering.asked.n_choices],
        answering.tokens_in,
        answering.tokens_out,
        with_logprobs=answering.asked.wanted_logprobs is not None,
    )
    return JSONResponse(body, headers=shapes.version_headers(answering.route.digest))


async def _choose(answering: Answering) -> None:
    """Put the replies that are answered first: all, or to each prompt the `n` that the reward gives most points. Those it can't
    score come last."""
    asked, service, replies = answering.asked, answering.service, answering.replies
    if (route := answering.choosing) is None:
        return
    of_prompt = [[k for k, reply in enumerate(replies) if reply.prompt == i] for i in range(asked.n_prompts)]
    answering.chooser = route.digest
    with await service.lease(str(route.digest)):
        for i, own in enumerate(of_prompt):
            found = await scored(service, str(route.digest), asked.messages_of(i), [replies[k].text for k in own])
            for k, score in zip(own, found, strict=True):
                replies[k].points = score.score
            own.sort(key=lambda k: (replies[k].points is None, -(replies[k].points or 0.0), k))
    best, others = [own[: asked.n] for own in of_prompt], [own[asked.n :] for own in of_prompt]
    answering.choose([*chain.from_iterable(best), *chain.from_iterable(others)])


class EventStream(Response):
    """A reply as server-sent events. Whatever ends it, the answering is closed."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.background = None
        self.status_code = 200
        headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store"}
        self.init_headers({**headers, **shapes.version_headers(answering.route.digest)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering = self.answering
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            with _watched(answering, receive):
                async with asyncio.timeout_at(answering.deadline):  # a client that reads too slowly is late, too
                    async for event in _events(answering):
                        await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except Left:
            answering.close("cancelled")
        except asyncio.CancelledError:
            answering.close("cancelled")
            if not answering.service.overload.is_draining:
                raise
            await self._fail(send, Draining.cut_off())
        except TimeoutError:
            await self._fail(send, answering.too_late())
        except Exception as error:
            await self._fail(send, error)
        finally:
            answering.close()

    async def _fail(self, send: Send, error: Exception) -> None:
        self.answering.close()
        with contextlib.suppress(TimeoutError):  # of a client that reads nothing
            async with asyncio.timeout(1.0):
                await send({"type": "http.response.body", "body": shapes.event(body_of(error)), "more_body": False})


async def _events(answering: Answering) -> AsyncIterator[bytes]:
    head, with_logprobs = answering.head, answering.asked.wanted_logprobs is not None
    for index in range(answering.asked.n_choices):
        if (first := shapes.opening(head, index)) is not None:
            yield first
    async for index, piece, at_char in answering.pieces():
        yield shapes.part(head, index, piece, at_char, with_logprobs=with_logprobs)
    await answering.record()
    answering.close("ok")
    shadows.cast(answering)
    judging.cast(answering)
    if answering.asked.include_usage:
        yield shapes.closing(head, answering.tokens_in, answering.tokens_out)
    yield shapes.DONE


@contextlib.contextmanager
def _watched(answering: Answering, receive: Callable[[], Awaitable[MutableMapping[str, Any]]]) -> Any:
    """While the block runs, the answering is told where the client goes."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        answering.left()

    watcher = asyncio.get_running_loop().create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
