"""Shadows: what other versions would have said to the same request. Computed when nothing else waits, recorded, shown to nobody.

A shadow that fails is recorded as failed and hurts no request; at the server's end those under way are dropped.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from rlhf.engine.wanted import Piece, Stream, Wanted
from rlhf.errors import RlhfError
from rlhf.measures.declining import declines
from rlhf.serving import judging
from rlhf.serving.answering import Answering, tell
from rlhf.serving.exposures import Status
from rlhf.serving.openai_shapes import Written
from rlhf.serving.routes import Route, Shadow
from rlhf.serving.service import Service

_MOST = 64  # at a time: beyond them shadows are left out, and counted


def cast(answering: Answering) -> None:
    """Begin the shadows of a request that was answered: each writes one reply, to its first prompt."""
    service, route, request_id = answering.service, answering.route, answering.request_id
    for number, shadow in enumerate(route.shadows):
        if len(service.shadows) >= _MOST:
            service.metrics.replies.add(status="shed", digest=shadow.digest[:12], arm=f"shadow:{shadow.arm}")
            continue
        asked = replace(answering.wanted[0], adapter=shadow.digest, logprobs=None, low=True)
        work = _shadowed(service, route, shadow, f"{request_id}.s{number}", answering, asked)
        service.in_background(work, service.shadows)


async def _shadowed(
    service: Service, route: Route, shadow: Shadow, row_id: str, shown: Answering, wanted: Wanted
) -> None:
    began, written = time.monotonic(), Written()
    status: Status = "error"
    try:
        lease = await service.lease(shadow.digest)
        with lease:
            await _written(service.engine.reply([wanted])[0], written)
        status = "ok"
    except RlhfError:
        pass  # its row says so
    except asyncio.CancelledError:
        status = "cancelled"
        raise
    finally:
        row = route.shadow_exposure(
            shadow,
            row_id,
            shown.request_id,
            status=status,
            latency_s=time.monotonic() - began,
            tokens_in=len(wanted.prompt),
            tokens_out=written.n_tokens,
            finish=written.finish,
            refusal=declines(written.text) if status == "ok" else None,
            length_chars=len(written.text),
            seed=wanted.seed,
            **(shown.kept(written.text, 0) if status == "ok" else {}),
        )
        service.recorder.record(row)
        if status == "ok":
            judging.begin(service, route, row_id, shown.request_id, shown.asked.messages_of(0), written.text)
        service.metrics.replies.add(status=status, digest=shadow.digest[:12], arm=f"shadow:{shadow.arm}")


async def _written(stream: Stream, written: Written) -> None:
    """Read a stream to its end; taken back where nobody waits for it any more."""
    news: asyncio.Queue[Piece | BaseException] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    stream.on_piece(lambda piece: tell(loop, news, piece))
    try:
        while written.finish is None:
            piece = await news.get()
            if isinstance(piece, BaseException):
                raise piece
            written.add(piece)
    finally:
        if written.finish is None:
            stream.cancel()
