"""The guard stands before every route: host, size, origin, credentials, pace; and behind every response: headers, error form.

It denies by default. A route that nobody thought of is shut, because the guard looks at the path and not at the route;
the router gets the very path that the guard has read, so no spelling of a path is open to one and shut to the other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from rlhf import people
from rlhf.errors import Forbidden, RlhfError
from rlhf.ids import digest_text
from rlhf.serving import doorway
from rlhf.serving.doorway import Receive, Refused, Scope, Send, TooOften, Unauthenticated, peer
from rlhf.serving.limits import Failures, Pace
from rlhf.store import Workspace

MAX_BODY_BYTES = 64 * 1024
_SHORTER = f"send at most {MAX_BODY_BYTES} bytes; shorten the note"
BODY_S = 20.0  # for a whole body; the largest takes a second where a line carries 64 kB of it
_GUESSED = ("/login", "/invite", "/invite/accept")  # where a secret is posted
_OPEN = (*_GUESSED, "/health")
_STATIC = "/static/"
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
_OWN = {"cache-control": "no-store", "vary": "Cookie, Authorization"}  # one person's answer is shown to nobody else
_log = logging.getLogger("rlhf.web")


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: Any, *, workspace: Workspace, hosts: Iterable[str]) -> None:
        self.app = app
        self.workspace = workspace
        self.failures = Failures()
        self.pace = Pace()
        self.hosts = doorway.names_of(hosts)

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
                    self.failures.note(peer(scope))
                message["headers"] = _with_headers(message.get("headers", []), scope["path"])
            await send(message)

        request = Request(scope, receive)
        try:
            refusal = await self._refusal(request)
            if refusal is not None:
                await refusal(scope, receive, send_guarded)
            else:
                await self.app(scope, doorway.limited(receive, MAX_BODY_BYTES, BODY_S, _SHORTER), send_guarded)
        except Exception as error:
            if started:
                raise
            await error_response(request, error)(scope, receive, send_guarded)

    async def _refusal(self, request: Request) -> Response | None:
        """None where the request may pass; else what it gets."""
        doorway.check_single(request)
        doorway.check_host(request, self.hosts, "rlhf web")
        doorway.check_length(request, MAX_BODY_BYTES, _SHORTER)
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
                self.failures.note(peer(request.scope))
            if request.method == "GET" and wants_page(request):
                return RedirectResponse("/login", status_code=303)
            return error_response(request, error)
        if (wait_s := self.pace.take(request.state.actor.name)) > 0:
            raise TooOften("your account asks more often than this server answers", wait_s)
        return None

    def _slow_down(self, request: Request) -> None:
        """Refuse one more guess from an address that was wrong too often. Who has a right word already isn't asked."""
        if (wait_s := self.failures.wait_s(peer(request.scope))) > 0:
            raise TooOften("too many wrong tokens or invitations came from your address", wait_s)


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
    response: Response
    if wants_page(request):
        from rlhf.web.pages import render

        response = render(request, "error.html", {"error": refusal}, status=refusal.http_status)
    else:
        response = JSONResponse(refusal.as_json(), status_code=refusal.http_status)
    if isinstance(refusal, TooOften):
        response.headers["retry-after"] = refusal.retry_after
    return response


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


def _with_headers(headers: Iterable[tuple[bytes, bytes]], path: str) -> list[tuple[bytes, bytes]]:
    added = _HEADERS | ({"cache-control": "no-cache"} if path.startswith(_STATIC) else _OWN)
    kept = [(name, value) for name, value in headers if name.decode("latin-1").lower() not in added]
    return kept + [(name.encode(), value.encode()) for name, value in added.items()]


def _is_guess(scope: Scope) -> bool:
    return scope["method"] == "POST" and scope["path"] in _GUESSED
