"""What every server of ours looks at before a request: its headers, its length, the name by which it was called, its body's time.

The guards of the API and of the pages stand on it; what they ask beyond it (cookies, scopes, OpenAI's errors) is theirs.
"""

from __future__ import annotations

import ipaddress
import math
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import anyio
from starlette.requests import Request

from rlhf.errors import RlhfError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Two of one of these are two readings of one request: a proxy's and ours.
_ONCE = ("host", "content-length", "content-type", "authorization", "origin", "sec-fetch-site", "transfer-encoding")


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


class TooSlow(RlhfError):
    code = "too_slow"
    http_status = 408


class TooOften(RlhfError):
    """Too many wrong tokens or codes from one address, or requests of one account."""

    code = "too_often"
    http_status = 429

    def __init__(self, message: str, wait_s: float) -> None:
        self.retry_after = str(math.ceil(wait_s))
        super().__init__(message, fix=f"try again in {self.retry_after} s")


def names_of(hosts: Iterable[str]) -> frozenset[str]:
    """Every name by which a server may be called: loopback, the machine's own, and these."""
    name = socket.gethostname()
    own = (name, name.partition(".")[0], socket.getfqdn())
    return frozenset(host.lower() for host in (*_LOOPBACK, *own, *hosts))


def check_host(request: Request, names: frozenset[str], command: str) -> None:
    """A foreign name that was made to resolve to this machine (DNS rebinding) must reach nothing. A numeric address can't be
    rebound: there is no name to lie about. command: what starts this server."""
    host = (urlsplit("//" + request.headers.get("host", "")).hostname or "").lower()
    if host not in names and not _is_address(host):
        raise Refused(
            f"this server isn't called {host[:100]!r}",
            fix=f"use the address that `{command}` printed, or start it with --allow-host NAME",
        )


def check_single(request: Request) -> None:
    """No header that decides something may stand there twice."""
    for name in _ONCE:
        if len(request.headers.getlist(name)) > 1:
            raise Refused(f"the header {name} stands there twice", fix="send each header once")


def check_length(request: Request, most_bytes: int, fix: str) -> None:
    """The announced length is a number, and not above the limit."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 20 or int(length) > most_bytes:
        raise TooLarge("the request is too large", fix=fix)


def limited(receive: Receive, most_bytes: int, most_s: float, fix: str) -> Receive:
    """The body, up to the limits of size and time, also where no length was announced."""
    n_bytes, is_whole, ends_at = 0, False, anyio.current_time() + most_s

    async def receive_limited() -> MutableMapping[str, Any]:
        nonlocal n_bytes, is_whole
        if is_whole:  # what comes now is the word that the client has gone
            return await receive()
        try:
            with anyio.fail_after(ends_at - anyio.current_time()):
                message = await receive()
        except TimeoutError:
            raise TooSlow(f"the request took longer than {most_s:g} s to arrive", fix="send it in one go") from None
        n_bytes += len(message.get("body", b""))
        if n_bytes > most_bytes:
            raise TooLarge("the request is too large", fix=fix)
        is_whole = not message.get("more_body", False)
        return message

    return receive_limited


def peer(scope: Scope) -> str:
    """The address that asks."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
