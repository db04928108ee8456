"""Whether a server takes requests, and why not: it warms, it drains, or its engine can't compute.

An engine's failure may have been one request's. So after one it is asked for a token, and only where that fails too is the server
called unready; it is asked again and again, and what works is ready. A thread that has ended doesn't come back.
"""

from __future__ import annotations

import time

from rlhf.engine.wanted import Wanted
from rlhf.errors import RlhfError
from rlhf.records import Message
from rlhf.serving.service import Service

_KNOCK_S = 10.0  # that the engine has for a token


def status(service: Service) -> dict[str, str]:
    """What `/ready` answers: status (ready, warming, draining, failed), and why it failed."""
    if service.overload.is_draining:
        return {"status": "draining"}
    if not service.engine.is_alive:
        why = service.engine.trouble or "it was closed"
        return {"status": "failed", "why": f"the engine has ended: {why}; start the server again"}
    if service.trouble is not None:
        return {"status": "failed", "why": service.trouble}
    return {"status": "ready" if service.is_warm else "warming"}


def knock(service: Service) -> None:
    """Where the engine's last work failed, find out whether it can work. What it says to this is shown to nobody."""
    if service.engine.trouble is None:
        service.trouble = None
        return
    try:
        _one_token(service)
        service.trouble = None
    except (RlhfError, TimeoutError) as error:
        # Where others' work was done meanwhile, it was busy and not broken.
        service.trouble = None if service.engine.trouble is None else str(error)


def _one_token(service: Service) -> None:
    prompt = tuple(service.engine.renderer.opening((Message("user", "?"),)))
    (stream,) = service.engine.reply([Wanted(prompt, None, 1, temperature=0.0)])
    ends = time.monotonic() + _KNOCK_S
    try:
        while stream.next_piece(max(0.0, ends - time.monotonic())).finish is None:
            pass
    except TimeoutError:
        stream.cancel()
        raise TimeoutError(f"the engine gave no token within {_KNOCK_S:g} s") from None
