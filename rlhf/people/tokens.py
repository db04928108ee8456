"""Tokens: a long random word that stands for a person until it expires or is revoked.

Only the SHA-256 is kept. A token holds 192 bits of chance, so a plain digest is enough: there is nothing to guess, and
no salt or slow hash would make a stolen table worth more or less.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from rlhf.errors import BadInput, BadUsage, Conflict, Forbidden, NotFound
from rlhf.ids import digest_text, now, now_text, secret
from rlhf.store import Workspace
from rlhf.store.tables import tokens

SCOPES = ("label", "evaluate", "operate")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
_TOKEN = re.compile(r"rlhf_[A-Za-z0-9_-]{32}")
_SHORT = 12  # hex digits by which a token is listed and revoked
_MAX_DAYS = 3650
_ASK = "ask whoever runs this workspace for a new one: rlhf people token NAME"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who is asking. name: a pseudonym; it stands in judgements and in the audit log."""

    name: str
    scopes: tuple[str, ...]

    def require(self, scope: str) -> None:
        """Raises Forbidden where the scope is missing."""
        if scope not in self.scopes:
            raise Forbidden(
                f"'{self.name}' may {' and '.join(self.scopes)}, not {scope}",
                fix=f"ask for a token with the scope: rlhf people token {self.name} --scope {scope}",
            )


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of an issued token. id: the first 12 hex digits of its digest. state: live, expired or revoked."""

    id: str
    actor: str
    scopes: tuple[str, ...]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    state: str

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "actor": self.actor,
            "scopes": list(self.scopes),
            "state": self.state,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "revoked_at": self.revoked_at,
        }


def issue_token(workspace: Workspace, actor: str, scopes: Sequence[str] = ("label",), days: int = 30) -> str:
    """A new token for `actor`, returned this once and never again.

    actor: a pseudonym of letters, digits and . _ @ -; days: 1 to 3650 until it expires.
    Raises BadInput for a name, BadUsage for a scope or a number of days that can't be.
    """
    if not _NAME.fullmatch(actor):
        raise BadInput(
            f"{actor!r} is no name for a person here",
            fix="use up to 100 letters, digits and . _ @ - (a pseudonym is best: it stands in the data)",
        )
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        seen = f"no scope is called {', '.join(map(repr, unknown))}" if unknown else "a token without a scope is no use"
        raise BadUsage(seen, fix=f"the scopes are {', '.join(SCOPES)}")
    if not 1 <= days <= _MAX_DAYS:
        raise BadUsage(f"a token can't last {days} days", fix=f"give --days between 1 and {_MAX_DAYS}")
    token = "rlhf_" + secret()
    digest = digest_text(token)
    expires_at = (now() + timedelta(days=days)).isoformat(timespec="microseconds")
    held = tuple(sorted(set(scopes)))
    with workspace.write() as write:
        write.connection.execute(
            tokens.insert().values(
                digest=digest, actor=actor, scopes=",".join(held), created_at=now_text(), expires_at=expires_at
            )
        )
        write.audit("people.token", actor, {"token": digest[:_SHORT], "scopes": list(held), "days": days})
    return token


def actor_of(workspace: Workspace, token: str) -> Actor:
    """The person whom a token stands for. Raises Forbidden where it is unknown, expired or revoked.

    The look-up is by digest: how long it takes depends on the digest of what was sent, which tells nothing of a token.
    """
    row = None
    if _TOKEN.fullmatch(token):
        digest = digest_text(token)
        with workspace.read() as connection:
            row = connection.execute(select(tokens).where(tokens.c.digest == digest)).first()
    if row is None or not hmac.compare_digest(row.digest, digest):
        raise Forbidden("this token isn't known here", fix=f"check that it was copied whole, or {_ASK}")
    state = _state(row)
    if state != "live":
        raise Forbidden(f"this token is {state}", fix=_ASK)
    return Actor(row.actor, tuple(row.scopes.split(",")))


def list_tokens(workspace: Workspace) -> list[Token]:
    """Every token ever issued, oldest first."""
    with workspace.read() as connection:
        rows = connection.execute(select(tokens).order_by(tokens.c.created_at, tokens.c.digest)).all()
    return [
        Token(
            row.digest[:_SHORT],
            row.actor,
            tuple(row.scopes.split(",")),
            row.created_at,
            row.expires_at,
            row.revoked_at,
            _state(row),
        )
        for row in rows
    ]


def revoke(workspace: Workspace, which: str) -> list[Token]:
    """Revoke a person's every live token (`which` is a name) or one token (`which` is its id), from now on.

    Returns what was revoked. Raises NotFound where nothing is called so, Conflict where all of it was dead already.
    """
    found = [token for token in list_tokens(workspace) if which in (token.actor, token.id)]
    if not found:
        raise NotFound(f"no token belongs to or is called '{which}'", fix="see: rlhf people list")
    live = [token for token in found if token.state == "live"]
    if not live:
        raise Conflict(
            f"every token of '{which}' is {found[-1].state} already", fix="nothing is left to do; see: rlhf people list"
        )
    with workspace.write() as write:
        at = now_text()
        for token in live:
            write.connection.execute(
                tokens.update()
                .values(revoked_at=at)
                .where(tokens.c.digest.startswith(token.id), tokens.c.revoked_at.is_(None))
            )
            write.audit("people.revoke", token.actor, {"token": token.id})
    return live


def _state(row: Any) -> str:
    if row.revoked_at is not None:
        return "revoked"
    return "live" if row.expires_at is None or row.expires_at > now_text() else "expired"
