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

from sqlalchemy import Connection, select

from rlhf.errors import BadUsage, Forbidden
from rlhf.ids import digest_text, now, now_text, secret
from rlhf.people import accounts
from rlhf.people.roles import PERMISSIONS, roles_for
from rlhf.store import Workspace, Write
from rlhf.store.tables import tokens

_TOKEN = re.compile(r"rlhf_[A-Za-z0-9_-]{32}")
_SHORT = 12  # hex digits by which a token is listed and revoked
_MAX_DAYS = 3650
_ASK = "ask whoever runs this workspace for a new one: rlhf people token NAME"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who is asking. name: a pseudonym; it stands in judgements and in the audit log. scopes: permissions."""

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
    scopes: permissions, of those that the person's roles give; who has no account yet gets one, with the least roles for them.
    Raises BadInput for a name, BadUsage for a scope or a number of days that can't be, Forbidden for a scope that isn't theirs.
    """
    accounts.check_name(actor)
    unknown = [scope for scope in scopes if scope not in PERMISSIONS]
    if unknown or not scopes:
        seen = f"no scope is called {', '.join(map(repr, unknown))}" if unknown else "a token without a scope is no use"
        raise BadUsage(seen, fix=f"the scopes are {', '.join(PERMISSIONS)}")
    if not 1 <= days <= _MAX_DAYS:
        raise BadUsage(f"a token can't last {days} days", fix=f"give --days between 1 and {_MAX_DAYS}")
    token = "rlhf_" + secret()
    digest = digest_text(token)
    expires_at = (now() + timedelta(days=days)).isoformat(timespec="microseconds")
    held = tuple(sorted(set(scopes)))
    with workspace.write() as write:
        _require_may(write, actor, held)
        write.connection.execute(
            tokens.insert().values(
                digest=digest, actor=actor, scopes=",".join(held), created_at=now_text(), expires_at=expires_at
            )
        )
        write.audit("people.token", actor, {"token": digest[:_SHORT], "scopes": list(held), "days": days})
    return token


def is_token(text: str) -> bool:
    """Whether a text has a token's shape: then it isn't repeated where it stands by mistake."""
    return _TOKEN.fullmatch(text) is not None


def actor_of(workspace: Workspace, token: str) -> Actor:
    """The person whom a token stands for. Raises Forbidden where it is unknown, expired or revoked.

    The look-up is by digest: how long it takes depends on the digest of what was sent, which tells nothing of a token.
    """
    if not _TOKEN.fullmatch(token):
        raise _unknown()
    with workspace.read() as connection:
        return actor_in(connection, digest_text(token))


def actor_in(connection: Connection, digest: str) -> Actor:
    """`actor_of` by a token's digest, inside the caller's transaction. A role that was taken away takes its scopes with it."""
    row = connection.execute(select(tokens).where(tokens.c.digest == digest)).first()
    if row is None or not hmac.compare_digest(row.digest, digest):
        raise _unknown()
    state = _state(row)
    if state != "live":
        raise Forbidden(f"this token is {state}", fix=_ASK)
    account = accounts.of(connection, row.actor)
    accounts.require_open(account)
    scopes = row.scopes.split(",")
    return Actor(row.actor, tuple(scope for scope in scopes if account is None or scope in account.permissions))


def list_tokens(workspace: Workspace) -> list[Token]:
    """Every token ever issued, oldest first."""
    with workspace.read() as connection:
        rows = connection.execute(select(tokens).order_by(tokens.c.created_at, tokens.c.digest)).all()
    return [_token(row) for row in rows]


def _token(row: Any) -> Token:
    scopes = tuple(row.scopes.split(","))
    return Token(row.digest[:_SHORT], row.actor, scopes, row.created_at, row.expires_at, row.revoked_at, _state(row))


def revoke_in(write: Write, which: str) -> tuple[list[Token], bool]:
    """Revoke a person's every live token (`which` is a name) or one token (`which` is its id); and whether any was found."""
    found = [
        token
        for token in map(_token, write.connection.execute(select(tokens)).all())
        if which in (token.actor, token.id)
    ]
    live = [token for token in found if token.state == "live"]
    for token in live:
        write.connection.execute(
            tokens.update()
            .values(revoked_at=now_text())
            .where(tokens.c.digest.startswith(token.id), tokens.c.revoked_at.is_(None))
        )
        write.audit("people.revoke", token.actor, {"token": token.id})
    return live, bool(found)


def _require_may(write: Write, actor: str, scopes: Sequence[str]) -> None:
    account = accounts.of(write.connection, actor)
    if account is None:
        accounts.add_in(write, actor, roles_for(scopes))
        return
    accounts.require_open(account)
    if missing := [scope for scope in scopes if scope not in account.permissions]:
        raise Forbidden(
            f"'{actor}' is {' and '.join(account.roles)} here, and may not {', '.join(missing)}",
            fix=f"give them a role that may: rlhf people add {actor} --role ROLE",
        )


def _unknown() -> Forbidden:
    return Forbidden("this token isn't known here", fix=f"check that it was copied whole, or {_ASK}")


def _state(row: Any) -> str:
    if row.revoked_at is not None:
        return "revoked"
    return "live" if row.expires_at is None or row.expires_at > now_text() else "expired"
