"""Sessions: what a browser's cookie names after a log-in. A new one at each log-in, and ended on the server at log-out.

A session that began with a token may what the token may and ends with it; one that began with an invitation may what its
account's roles may at that moment.
"""

from __future__ import annotations

import re
from datetime import timedelta

from sqlalchemy import select

from rlhf.errors import Forbidden
from rlhf.ids import digest_text, now, now_text, secret
from rlhf.people import accounts, tokens
from rlhf.people.tokens import Actor
from rlhf.store import Workspace, Write
from rlhf.store.tables import sessions

KEEP_DAYS = 30
SESSION = re.compile(r"rlhfs_[A-Za-z0-9_-]{32}")


def begin(workspace: Workspace, token: str) -> str:
    """A session of the token's person: the word for the cookie. Raises Forbidden where the token opens nothing."""
    actor = tokens.actor_of(workspace, token)
    with workspace.write() as write:
        return begin_in(write, actor.name, digest_text(token))


def begin_in(write: Write, name: str, token_digest: str | None = None) -> str:
    """A session inside the caller's transaction. token_digest: of the token that it ends with; None = none."""
    word = "rlhfs_" + secret()
    row = {
        "digest": digest_text(word),
        "account": name,
        "token_digest": token_digest,
        "created_at": now_text(),
        "expires_at": (now() + timedelta(days=KEEP_DAYS)).isoformat(timespec="microseconds"),
    }
    write.connection.execute(sessions.insert().values(**row))
    write.audit("people.session", name, {"by": "token" if token_digest else "invitation"})
    return word


def actor_of(workspace: Workspace, word: str) -> Actor:
    """The person behind a session's word or a token. Raises Forbidden where it opens nothing (any more)."""
    if not SESSION.fullmatch(word):
        return tokens.actor_of(workspace, word)
    with workspace.read() as connection:
        row = connection.execute(select(sessions).where(sessions.c.digest == digest_text(word))).first()
        if row is None or row.ended_at is not None or row.expires_at <= now_text():
            raise Forbidden("this log-in has ended", fix="log in again")
        if row.token_digest is not None:
            return tokens.actor_in(connection, row.token_digest)
        account = accounts.of(connection, row.account)
    accounts.require_open(account)
    return Actor(row.account, account.permissions if account else ())


def end(workspace: Workspace, word: str) -> None:
    """End a session; one that isn't there or has ended stays so."""
    if SESSION.fullmatch(word):
        with workspace.write() as write:
            write.connection.execute(
                sessions.update()
                .values(ended_at=now_text())
                .where(sessions.c.digest == digest_text(word), sessions.c.ended_at.is_(None))
            )


def end_all_in(write: Write, name: str) -> int:
    """End every session of a person; how many ended."""
    live = (sessions.c.account == name, sessions.c.ended_at.is_(None), sessions.c.expires_at > now_text())
    return write.connection.execute(sessions.update().values(ended_at=now_text()).where(*live)).rowcount
