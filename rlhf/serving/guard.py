"""The API's guard: before every route host, size, origin, credentials, scope, pace; behind it a request id and OpenAI's errors.

It denies by default, by path: what it doesn't know wants a token, too. On loopback no token is wanted until one was made for
serving (a revoked one counts: taking a key away must not open the door). A foreign page in a browser on this machine reaches
nothing: it would have to say its origin, or to send JSON without asking, which browsers don't do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from rlhf import people
from rlhf.errors import Forbidden
from rlhf.ids import new_id
from rlhf.people import Actor
from rlhf.serving import doorway
from rlhf.serving.doorway import Receive, Refused, Scope, Send, TooOften, Unauthenticated, peer
from rlhf.serving.limits import Failures, Pace
from rlhf.serving.refusals import Draining, response_to
from rlhf.serving.service import Service
from rlhf.store import Workspace

OPEN = ("/health", "/ready")
# Who may what, by the path's beginning; the first that fits.
SCOPES = (
    ("/metrics", "evaluate"),
    ("/v1/feedback", "feedback"),
    ("/v1/aliases/", "roll_back"),
    ("/v1/", "serve"),
)
SERVING_SCOPES = ("serve", "feedback")
LOCAL = Actor("local", ("evaluate", "feedback", "roll_back", "serve"))
BODY_S = 20.0
_log_in = "send the header `Authorization: Bearer TOKEN`; a token is made by: rlhf people token NAME --scope "


class InvalidKey(Unauthenticated):
    """No token, or one that opens nothing."""

    code = "invalid_api_key"


class Guard:
    """ASGI middleware around the whole application. is_local: only this machine reaches it."""

    def __init__(self, app: Any, *, service: Service, hosts: Iterable[str], is_local: bool) -> None:
        self.app, self.service, self.is_local = app, service, is_local
        self.failures = Failures()
        self.pace = Pace(service.bounds.per_s, service.bounds.burst)
        self.hosts = doorway.names_of(hosts)
        self._shorter = f"send at most {service.bounds.body_bytes} bytes"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        request, started, request_id = Request(scope, receive), False, new_id()
        request.state.request_id = request_id

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", []), *_HEADERS, (b"x-request-id", request_id.encode())]
                route = getattr(scope.get("route"), "path", "none")
                self.service.metrics.requests.add(route=route, status=str(message["status"]))
            await send(message)

        try:
            await self._check(request)
            within = doorway.limited(receive, self.service.bounds.body_bytes, BODY_S, self._shorter)
            await self.app(scope, within, send_guarded)
        except Exception as error:
            if started:
                raise
            await response_to(error)(scope, receive, send_guarded)
        except asyncio.CancelledError:  # a server that ends cuts off what is still under way
            if started or not self.service.overload.is_draining:
                raise
            await response_to(Draining.cut_off())(scope, receive, send_guarded)

    async def _check(self, request: Request) -> None:
        doorway.check_single(request)
        doorway.check_host(request, self.hosts, "rlhf serve")
        doorway.check_length(request, self.service.bounds.body_bytes, self._shorter)
        path = request.scope["path"]
        if path in OPEN:
            return
        if request.method not in ("GET", "HEAD"):
            _check_origin(request)
        actor = request.state.actor = await self._who(request)
        if (scope := scope_of(path)) is not None:
            actor.require(scope)
        if actor is not LOCAL and (wait_s := self.pace.take(actor.name)) > 0:
            raise TooOften("this token asks more often than this server answers", wait_s)
        if path.startswith("/v1/") and self.service.overload.is_draining:
            raise Draining("this server is being stopped", 5.0)

    async def _who(self, request: Request) -> Actor:
        """The actor. An address that was wrong too often waits; who has a right token isn't asked, for many share addresses."""
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        token = bearer.strip() if scheme.lower() == "bearer" else ""
        try:
            wanted = scope_of(request.scope["path"]) or "serve"
            return await run_in_threadpool(who, self.service.workspace, token, self.is_local, wanted)
        except InvalidKey:
            if token:
                if (wait_s := self.failures.wait_s(peer(request.scope))) > 0:
                    raise TooOften("too many wrong tokens came from your address", wait_s) from None
                self.failures.note(peer(request.scope))
            raise


def scope_of(path: str) -> str | None:
    """What a path wants of a token beyond being one; None = nothing is known there."""
    return next((scope for start, scope in SCOPES if path.startswith(start)), None)


def who(workspace: Workspace, token: str, is_local: bool, scope: str = "serve") -> Actor:
    """The token's actor; on loopback, while no token was ever made for serving, whoever asks. scope: what a token would need.
    Raises InvalidKey."""
    try:
        return people.actor_of(workspace, token)
    except Forbidden as error:
        if is_local and not has_serving_token(workspace):
            return LOCAL
        if not token:
            raise InvalidKey("no token came with the request", fix=_log_in + scope) from None
        raise InvalidKey(error.message, fix=error.fix) from None


def has_serving_token(workspace: Workspace, *, live: bool = False) -> bool:
    """A token for serving was made here once. live: and it still opens something."""
    made = [token for token in people.list_tokens(workspace) if set(token.scopes) & set(SERVING_SCOPES)]
    return any(token.state == "live" for token in made) if live else bool(made)


_HEADERS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


def _check_origin(request: Request) -> None:
    origin, own = request.headers.get("origin"), request.headers.get("host", "").lower()
    if origin is not None and urlsplit(origin).netloc.lower() != own:
        raise Refused(
            "the request comes from a page of another site", fix="ask from a server, or put both behind one proxy"
        )
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise Refused("the request comes from another site", fix="ask from a server, or put both behind one proxy")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method != "POST":  # browsers ask before they send any other
        return
    if kind != "application/json":
        raise Refused("the API takes JSON alone", fix="send the header `Content-Type: application/json`")
