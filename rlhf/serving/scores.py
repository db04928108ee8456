"""/v1/score: what a reward version says of one reply, or of two: score, doubt, P(a beats b).

Rendered and scored as `reward score` does it: the chat template of prompt + reply, the score at its last token, oldest turns left
out where it is too long; the engine's scores are the one scorer's. P(a beats b) = sigmoid(score a - score b), for every kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rlhf.engine.rendering import Renderer
from rlhf.records import Message
from rlhf.serving.asked import ScoreAsked
from rlhf.serving.exposures import Closing, Status
from rlhf.serving.openai_shapes import version_headers
from rlhf.serving.refusals import BadField, TooLate
from rlhf.serving.routes import Route
from rlhf.serving.service import Service

_MAX_LENGTH = 1024  # where a manifest says none, as in `reward.score`


@dataclass(frozen=True, slots=True)
class Scored:
    """score None: the reply can't be scored, and unscored says why. doubt: the score's sd, where the version gives one."""

    score: float | None
    doubt: float | None = None
    unscored: str | None = None
    n_tokens: int = 0
    n_dropped_turns: int = 0


async def answer(service: Service, request: Request, asked: ScoreAsked) -> Response:
    """The response to one request for scores. Raises refusals, BadField where a reply can't be scored."""
    asked.check()
    began = time.monotonic()
    with service.counting_shed(asked, "reward"), service.overload.admitted(len(asked.replies)):
        route = service.route(asked.model, asked.unit, asked.metadata, "reward")
        try:
            async with asyncio.timeout(service.bounds.deadline_s):
                with await service.lease(str(route.digest)):
                    found = await scored(service, str(route.digest), asked.prompt_messages, asked.replies)
        except BaseException as error:
            _record_failure(service, route, request.state.request_id, time.monotonic() - began, error)
            if isinstance(error, TimeoutError):
                service.lost("deadline", route)
                after = f"{service.bounds.deadline_s:g} s"
                raise TooLate(f"the scores weren't there after {after}", fix="ask when there is less to do") from None
            raise
    for one in found:
        if one.unscored is not None:
            why = {"too_long": "it is too long for this version", "refused": "the chat template refuses these turns"}
            raise BadField(
                f"the reply can't be scored: {why.get(one.unscored, one.unscored)}",
                param="prompt",
                fix="shorten the prompt or the reply",
                code="unscored",
            )
    await _record(service, route, request.state.request_id, found, time.monotonic() - began)
    return JSONResponse(_body(route, request.state.request_id, found), headers=version_headers(route.digest))


async def scored(
    service: Service, digest: str, prompt: Sequence[Message], replies: Sequence[str], *, low: bool = False
) -> list[Scored]:
    """A held reward's scores of replies to one prompt, in their order. low: when there is nothing else to do, in a thread of its
    own kind."""
    max_length = int(service.holding.settings(digest).get("max_length", _MAX_LENGTH))

    def rendered(renderer: Renderer) -> list[Any]:
        own = Renderer(renderer.tokenizer, min(max_length, renderer.max_length))
        return [own.reply(prompt, reply) if reply.strip() else "empty" for reply in replies]

    found = await service.rendered(rendered)
    fits = [one[0] for one in found if not isinstance(one, str)]
    rows = iter(await service.score(digest, [[ids] for ids in fits], low=low) if fits else [])
    told = []
    for one in found:
        if isinstance(one, str):
            told.append(Scored(None, unscored=one))
        else:
            ((score, doubt),) = next(rows)
            told.append(Scored(score, doubt, n_tokens=len(one[0]), n_dropped_turns=one[1]))
    return told


def p_beats(score_a: float, score_b: float) -> float:
    """P(a beats b), computed so that no margin overflows."""
    margin = score_a - score_b
    odds = math.exp(-abs(margin))
    return (1.0 if margin >= 0 else odds) / (1.0 + odds)


async def _record(service: Service, route: Route, request_id: str, found: Sequence[Scored], seconds: float) -> None:
    row = route.exposure(
        request_id, latency_s=seconds, tokens_in=sum(one.n_tokens for one in found), tokens_out=0, finish="score"
    )
    await service.recorded([row])
    digest, arm = str(route.digest)[:12], route.arm or ""
    service.metrics.replies.add(status="ok", digest=digest, arm=arm)
    service.metrics.latency.observe(seconds, digest=digest, arm=arm)


def _record_failure(service: Service, route: Route, request_id: str, seconds: float, error: BaseException) -> None:
    """The row of a request that got no scores; nobody waits for it."""
    status: Status = "cancelled" if isinstance(error, asyncio.CancelledError) else "error"
    with contextlib.suppress(Closing):
        service.recorder.record(route.exposure(request_id, status=status, latency_s=seconds))
    service.metrics.replies.add(status=status, digest=str(route.digest)[:12], arm=route.arm or "")


def _body(route: Route, request_id: str, found: Sequence[Scored]) -> dict[str, Any]:
    head = {
        "id": request_id,
        "object": "score",
        "model": route.version,
        "system_fingerprint": route.digest,
        "rlhf": {
            "version": route.version,
            "digest": route.digest,
            "alias": route.alias,
            "arm": route.arm,
            "rollout": route.rollout_id,
        },
    }
    n_tokens = sum(one.n_tokens for one in found)
    usage = {"prompt_tokens": n_tokens, "completion_tokens": 0, "total_tokens": n_tokens}
    if len(found) == 1:
        (one,) = found
        return {**head, "reward": one.score, "doubt": one.doubt, "usage": usage}
    a, b = found
    assert a.score is not None and b.score is not None
    return {
        **head,
        "reward_a": a.score,
        "reward_b": b.score,
        "doubt_a": a.doubt,
        "doubt_b": b.doubt,
        "p_a": p_beats(a.score, b.score),
        "usage": usage,
    }
