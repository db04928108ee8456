"""Invitations: a link that makes one account, once, before it runs out.

As with tokens only the SHA-256 is kept, and the code travels behind the `#` of the link, which no server, proxy or log sees.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, select

from rlhf.errors import BadUsage, Conflict, Forbidden
from rlhf.ids import digest_text, now, now_text, secret
from rlhf.people import accounts
from rlhf.people import roles as known_roles
from rlhf.people.accounts import Account
from rlhf.store import Workspace, Write
from rlhf.store.tables import invitations

_CODE = re.compile(r"rlhfi_[A-Za-z0-9_-]{32}")
_SHORT = 12
_MAX_DAYS = 90
_ASK = "ask whoever invited you for a new link"


@dataclass(frozen=True, slots=True)
class Invitation:
    """What is known of an invitation. id: the first 12 hex digits of its code's digest. state: open, used, expired or revoked."""

    id: str
    roles: tuple[str, ...]
    name: str | None
    created_at: str
    expires_at: str
    used_by: str | None
    state: str

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "roles": list(self.roles),
            "name": self.name,
            "state": self.state,
            "used_by": self.used_by,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
        }


def invite(
    workspace: Workspace, roles: Iterable[str] = ("labeler",), *, name: str | None = None, days: float = 7
) -> str:
    """The code of a new invitation, returned this once and never again.

    name: the pseudonym of who follows it; None = one is drawn. days: up to 90 until it runs out. Raises BadInput for a name,
    BadUsage for a role or a time that can't be, Conflict where the name has an account or an open invitation already.
    """
    asked = known_roles.check(roles)
    if not 0 < days <= _MAX_DAYS:
        raise BadUsage(f"an invitation can't last {days:g} days", fix=f"give --days above 0 and up to {_MAX_DAYS}")
    code = "rlhfi_" + secret()
    digest = digest_text(code)
    with workspace.write() as write:
        if name is not None:
            accounts.check_name(name)
            if accounts.of(write.connection, name) is not None:
                raise Conflict(
                    f"an account called '{name}' is here already",
                    fix=f"give them a token: rlhf people token {name}, or another name",
                )
            if _is_invited(write.connection, name):
                raise Conflict(
                    f"an invitation for '{name}' is open already",
                    fix=f"send that link, or shut it and invite anew: rlhf people revoke {name}; or take another name",
                )
        row = {
            "digest": digest,
            "roles": ",".join(asked),
            "name": name,
            "actor": write.actor,
            "created_at": now_text(),
            "expires_at": (now() + timedelta(days=days)).isoformat(timespec="microseconds"),
        }
        write.connection.execute(invitations.insert().values(**row))
        write.audit("people.invite", name or digest[:_SHORT], {"invitation": digest[:_SHORT], "roles": list(asked)})
    return code


def first_admin(workspace: Workspace) -> str:
    """The code of an invitation for the workspace's first admin, for a day; earlier ones that nobody followed are shut."""
    with workspace.write() as write:
        revoke_in(write, "admin")
    return invite(workspace, ["admin"], name="admin", days=1)


def look(workspace: Workspace, code: str) -> Invitation:
    """The open invitation behind a code. Raises Forbidden where it is unknown, used, expired or revoked."""
    with workspace.read() as connection:
        return _open(connection, code)


def accept_in(write: Write, code: str) -> Account:
    """Use an invitation up and make its account, inside the caller's transaction: of two who come with one code, one is too late.

    Raises Forbidden as `look`, Conflict where the name was taken meanwhile.
    """
    invitation = _open(write.connection, code)
    name = invitation.name or _drawn(write.connection, invitation.roles[0])
    used = write.connection.execute(
        invitations.update()
        .values(used_at=now_text(), used_by=name)
        .where(invitations.c.digest == digest_text(code), invitations.c.used_at.is_(None))
    )
    if used.rowcount != 1:
        raise Forbidden("this invitation was used already", fix=_ASK)
    if accounts.of(write.connection, name) is not None:
        raise Conflict(f"an account called '{name}' is here already", fix=_ASK)
    return accounts.add_in(write, name, invitation.roles)


def list_invitations(workspace: Workspace) -> list[Invitation]:
    """Every invitation ever made, oldest first."""
    with workspace.read() as connection:
        rows = connection.execute(select(invitations).order_by(invitations.c.created_at, invitations.c.digest)).all()
    return [_invitation(row) for row in rows]


def revoke_in(write: Write, which: str) -> list[Invitation]:
    """Shut the open invitations of this name, or the one with this id."""
    rows = write.connection.execute(select(invitations)).all()
    found = [i for i in map(_invitation, rows) if i.state == "open" and which in (i.name, i.id)]
    for invitation in found:
        write.connection.execute(
            invitations.update().values(revoked_at=now_text()).where(invitations.c.digest.startswith(invitation.id))
        )
        write.audit("people.revoke", invitation.name or invitation.id, {"invitation": invitation.id})
    return found


def _open(connection: Connection, code: str) -> Invitation:
    row = None
    if _CODE.fullmatch(code):
        row = connection.execute(select(invitations).where(invitations.c.digest == digest_text(code))).first()
    if row is None:
        raise Forbidden("this invitation isn't known here", fix=f"check that the link was copied whole, or {_ASK}")
    invitation = _invitation(row)
    if invitation.state != "open":
        raise Forbidden(f"this invitation is {invitation.state}", fix=_ASK)
    return invitation


def _is_invited(connection: Connection, name: str) -> bool:
    rows = connection.execute(select(invitations).where(invitations.c.name == name)).all()
    return any(_invitation(row).state == "open" for row in rows)


def _drawn(connection: Connection, role: str) -> str:
    """A pseudonym that nobody has: a role and six hex digits of chance, which don't tell who came first."""
    while True:
        name = f"{role}-{digest_text(secret())[:6]}"
        if accounts.of(connection, name) is None:
            return name


def _invitation(row: Any) -> Invitation:
    state = (
        "used"
        if row.used_at is not None
        else "revoked"
        if row.revoked_at is not None
        else "open"
        if row.expires_at > now_text()
        else "expired"
    )
    return Invitation(
        row.digest[:_SHORT], tuple(row.roles.split(",")), row.name, row.created_at, row.expires_at, row.used_by, state
    )
