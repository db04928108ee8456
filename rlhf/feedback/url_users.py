"""User names in addresses of the web: `github.com/name`, `host/@name`, `/users/name`, `name:password@host`.

Pages that no person is behind stay as they are: `github.com/features`, `/users/login`, npm's `/package/@scope/name`,
a map's `/@48.8,2.3`, and what stands in braces or angle brackets as an example.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int, str]

_URL = re.compile(
    r"(?i)(?<![\w@.-])(?:(?:https?|ftp|ssh|git|wss?|postgres(?:ql)?|mysql|mongodb|redis|amqp)://|www\.)"
    r"[^\s<>\"'`|\\^{}]{3,2048}"
    r"|(?<![\w@./-])(?:(?:github|gitlab|twitter|instagram|facebook|linkedin|tiktok|youtube|medium|reddit|x|bitbucket)\.(?:com|org)|t\.me)"
    r"/[^\s<>\"'`|\\^{}]{2,500}"
)
_PARTS = re.compile(
    r"(?:[a-zA-Z]+://)?(?:(?P<userinfo>[^/?#@]{1,256})@)?(?P<host>[\w.-]{1,253})(?::\d{1,5})?(?P<path>/[^?#]*)?"
)
_NAME = r"[A-Za-z\d][\w.-]{0,63}"
_AT = re.compile(r"/@(?P<name>[^\W\d][\w.-]{0,63})")
_UNDER = re.compile(
    r"(?i)/(?:users?|u|profiles?|members?|people|in|author|~)(?:/\d{1,12})?/(?P<name>[a-z][\w.-]{0,63})(?=[/.?#]|\Z)"
    r"|/~(?P<tilde>[a-z][\w.-]{0,63})"
)
_FIRST = re.compile(rf"/(?P<name>{_NAME})")
_PERSONAL_HOSTS = re.compile(
    r"github\.com|gitlab\.com|bitbucket\.org|twitter\.com|x\.com|instagram\.com|facebook\.com|t\.me|twitch\.tv|pinterest\.com"
    r"|soundcloud\.com|vimeo\.com|keybase\.io|gist\.github\.com|threads\.net"
)
_PACKAGE_HOSTS = ("npmjs.com", "unpkg.com", "jsdelivr.net", "esm.sh", "skypack.dev", "yarnpkg.com")
_NOBODY = re.compile(
    r"about|account|accounts|admin|all|api|apps|assets|auth|blog|business|careers|collections|contact|create|customer"
    r"|customers|dashboard|developer|developers|discover|docs|download|downloads|edit|enterprise|events|explore|faq"
    r"|features|groups|hashtag|help|home|i|images|index|index\.html|intent|issues|jobs|join|legal|list|login|logout"
    r"|marketplace|me|media|messages|new|news|notifications|orgs|organizations|p|pages|password|plans|policies|premium"
    r"|pricing|privacy|products|pulls|reel|register|reset|robots\.txt|search|security|session|sessions|settings|share"
    r"|sharer|shop|sign_in|sign_up|signin|signup|site|sitemap|solutions|sponsors|static|status|stories|support|team"
    r"|teams|terms|tos|topics|tour|trending|user|username|users|watch|web|wiki|your-name|yourname|your_name"
)


def url_users(text: str) -> Iterator[Span]:
    """Where a user's name (and password) stands in a URL."""
    if "/" not in text:
        return
    for url in _URL.finditer(text):
        parts = _PARTS.match(url.group())
        if parts is None:
            continue
        for begin, end in _names(parts):
            yield url.start() + begin, url.start() + end, "user"


def _names(parts: re.Match[str]) -> Iterator[tuple[int, int]]:
    if parts["userinfo"] and parts["userinfo"] != "git":
        yield parts.span("userinfo")
    path, offset = parts["path"], parts.start("path")
    if not path:
        return
    host = parts["host"].lower().removeprefix("www.")
    if _PERSONAL_HOSTS.fullmatch(host):
        first = _FIRST.match(path)
        if first and (span := _person(first, "name")):
            yield offset + span[0], offset + span[1]
    packaged = host.endswith(_PACKAGE_HOSTS)
    for pattern in (_UNDER,) if packaged else (_AT, _UNDER):
        for found in pattern.finditer(path):
            if span := _person(found, "name" if found["name"] else "tilde"):
                yield offset + span[0], offset + span[1]


def _person(found: re.Match[str], group: str) -> tuple[int, int] | None:
    """The name without the full stop that ends a sentence; None where it is no person's."""
    name = found[group].rstrip(".-")
    if len(name) < 2 or _NOBODY.fullmatch(name.lower()):
        return None
    return found.start(group), found.start(group) + len(name)
