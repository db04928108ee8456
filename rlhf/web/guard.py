"""The guard stands before every route: host, size, origin, credentials; and behind every response: headers, error form.

It denies by default. A route that nobody thought of is shut, because the guard looks at the path and not at the route;
the router gets the very path that the guard has read, so no spelling of a path is open to one and shut to the other.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from rlhf import people
from rlhf.errors import Forbidden, RlhfError
from rlhf.ids import digest_text
from rlhf.store import Workspace
from rlhf.web.limits import Failures

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 64 * 1024
_GUESSED = ("/login", "/invite", "/invite/accept")  # where a secret is posted
_OPEN = (*_GUESSED, "/health")
_STATIC = "/static/"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _CSP,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_log = logging.getLogger("rlhf.web")


class Refused(RlhfError):
    """A request that is turned away at the door."""

    code = "request_refused"


class Unauthenticated(RlhfError):
    """Nobody knows who is asking."""

    code = "unauthenticated"
    http_status = 401


class TooLarge(RlhfError):
    code = "too_large"
    http_status = 413


class TooOften(RlhfError):
    """Too many wrong tokens or codes from one address."""

    code = "too_often"
    http_status = 429


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: Any, *, workspace: Workspace, hosts: Iterable[str]) -> None:
        self.app = app
        self.workspace = workspace
        self.failures = Failures()
        self.hosts = {host.lower() for host in (*_LOOPBACK, *_own_names(), *hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        started = False

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if message["status"] == Forbidden.http_status and _is_guess(scope):
                    self.failures.note(_peer(scope))
                message["headers"] = _with_headers(message.get("headers", []), scope["path"])
            await send(message)

        request = Request(scope, receive)
        try:
            refusal = await self._refusal(request)
            if refusal is not None:
                await refusal(scope, receive, send_guarded)
            else:
                await self.app(scope, _limited(receive), send_guarded)
        except Exception as error:
            if started:
                raise
            await error_response(request, error)(scope, receive, send_guarded)

    async def _refusal(self, request: Request) -> Response | None:
        """None where the request may pass; else what it gets."""
        self._check_host(request)
        _check_length(request)
        if request.method not in ("GET", "HEAD"):
            _check_origin(request)
        path = request.scope["path"]
        if _is_guess(request.scope):
            self._slow_down(request)
        if path in _OPEN or path.startswith(_STATIC):
            return None
        try:
            request.state.actor = await run_in_threadpool(who, self.workspace, request)
        except Unauthenticated as error:
            if isinstance(error.__cause__, Forbidden):  # a wrong token, not none, and no log-in that has ended
                self._slow_down(request)
                self.failures.note(_peer(request.scope))
            if request.method == "GET" and wants_page(request):
                return RedirectResponse("/login", status_code=303)
            return error_response(request, error)
        return None

    def _slow_down(self, request: Request) -> None:
        """Refuse one more guess from an address that was wrong too often. Who has a right word already isn't asked."""
        if (wait_s := self.failures.wait_s(_peer(request.scope))) > 0:
            raise TooOften(
                "too many wrong tokens or invitations came from your address", fix=f"try again in {math.ceil(wait_s)} s"
            )

    def _check_host(self, request: Request) -> None:
        """A foreign name that was made to resolve to this machine (DNS rebinding) must not reach the pages."""
        host = (urlsplit("//" + request.headers.get("host", "")).hostname or "").lower()
        if host not in self.hosts and not _is_address(host):
            raise Refused(
                f"this server isn't called {host[:100]!r}",
                fix="use the address that `rlhf web` printed, or start it with --allow-host NAME",
            )


def who(workspace: Workspace, request: Request) -> people.Actor:
    """The actor behind a bearer token or, without one, behind the log-in cookie. Raises Unauthenticated."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    token = bearer.strip() if scheme.lower() == "bearer" else request.cookies.get(cookie_name(workspace))
    if not token:
        raise Unauthenticated("log in first", fix="open /login, or send the header `Authorization: Bearer TOKEN`")
    try:
        return people.actor_of(workspace, token)
    except Forbidden as error:
        raise Unauthenticated(error.message, fix=error.fix) from (error if bearer else None)


def cookie_name(workspace: Workspace) -> str:
    """One a workspace: cookies don't tell ports apart, and two workspaces may be served on one machine."""
    return "rlhf_" + digest_text(f"cookie {workspace.key}")[:8]


def wants_page(request: Request) -> bool:
    return not request.scope["path"].startswith("/api/") and "text/html" in request.headers.get("accept", "")


def error_response(request: Request, error: Exception) -> Response:
    """Any error in the one shape: JSON for programs, a page with the same words for people."""
    if isinstance(error, RlhfError):
        refusal = error
    else:
        _log.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
        refusal = RlhfError(
            "something went wrong on the server",
            fix="try again; if it stays, whoever runs it finds the cause in its log",
        )
        refusal.http_status = 500
    if wants_page(request):
        from rlhf.web.pages import render

        return render(request, "error.html", {"error": refusal}, status=refusal.http_status)
    return JSONResponse(refusal.as_json(), status_code=refusal.http_status)


def _check_length(request: Request) -> None:
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        raise _too_large()


def _too_large() -> TooLarge:
    return TooLarge("the request is too large", fix=f"send at most {MAX_BODY_BYTES} bytes; shorten the note")


def _check_origin(request: Request) -> None:
    """A foreign page must not act in a labeler's name, on top of the cookie being SameSite=Strict.

    Browsers name the page's origin in every such request ('null' from our own forms, as we send no referrer; then
    Sec-Fetch-Site tells). Programs name none. The API also wants JSON, which a foreign page can't send unasked.
    """
    origin = request.headers.get("origin")
    own = request.headers.get("host", "").lower()
    if origin is not None and urlsplit(origin).netloc.lower() != own:
        if not (origin == "null" and request.headers.get("sec-fetch-site") == "same-origin"):
            raise Refused("the request comes from another site", fix="use the page of this server itself")
    elif origin is None and request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refused("the request comes from another site", fix="use the page of this server itself")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.scope["path"].startswith("/api/") and kind != "application/json":
        raise Refused("the API takes JSON alone", fix="send the header `Content-Type: application/json`")


def _limited(receive: Receive) -> Receive:
    """The body, up to the limit, also where no length was announced."""
    n_bytes = 0

    async def receive_limited() -> MutableMapping[str, Any]:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > MAX_BODY_BYTES:
            raise _too_large()
        return message

    return receive_limited


def _with_headers(headers: Iterable[tuple[bytes, bytes]], path: str) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in headers if name.decode("latin-1").lower() not in _HEADERS]
    caching = "no-cache" if path.startswith(_STATIC) else "no-store"
    added = {**_HEADERS, "cache-control": caching}
    return kept + [(name.encode(), value.encode()) for name, value in added.items()]


def _is_guess(scope: Scope) -> bool:
    return scope["method"] == "POST" and scope["path"] in _GUESSED


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _own_names() -> set[str]:
    name = socket.gethostname()
    return {name, name.partition(".")[0], socket.getfqdn()}


def _is_address(host: str) -> bool:
    """A numeric address can't be rebound: there is no name to lie about."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
