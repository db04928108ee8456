"""Accounts: a pseudonym, its roles, and whether it may still come in. Nothing else is known of a person here.

No e-mail, no name, no address is asked for or kept, so that none can leave with an export, a log or a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from rlhf.errors import BadInput, Conflict, Forbidden, NotFound
from rlhf.ids import now_text
from rlhf.people import roles as known_roles
from rlhf.people.roles import permissions_of
from rlhf.store import Workspace, Write
from rlhf.store.tables import accounts

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}")


@dataclass(frozen=True, slots=True)
class Account:
    """A person as the workspace knows them. name: a pseudonym; it stands in judgements and in the audit log."""

    name: str
    roles: tuple[str, ...]
    created_at: str
    disabled_at: str | None

    @property
    def permissions(self) -> tuple[str, ...]:
        return permissions_of(self.roles)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "roles": list(self.roles),
            "permissions": list(self.permissions),
            "created_at": self.created_at,
            "disabled_at": self.disabled_at,
        }


def add(workspace: Workspace, name: str, roles: Iterable[str]) -> Account:
    """An account with these roles; one that is there gets them in place of its own, and may come in again if it was shut out.

    Raises BadInput for a name that can't be one, BadUsage for a role that isn't known.
    """
    with workspace.write() as write:
        return add_in(write, name, roles)


def add_in(write: Write, name: str, roles: Iterable[str]) -> Account:
    """`add` inside the caller's transaction."""
    check_name(name)
    asked = known_roles.check(roles)
    there = of(write.connection, name)
    if there is None:
        row = {"name": name, "roles": ",".join(asked), "created_at": now_text(), "disabled_at": None}
        write.connection.execute(accounts.insert().values(**row))
    else:
        write.connection.execute(
            accounts.update().values(roles=",".join(asked), disabled_at=None).where(accounts.c.name == name)
        )
    write.audit("people.add", name, {"roles": list(asked), "before": list(there.roles) if there else None})
    made = of(write.connection, name)
    assert made is not None
    return made


def disable(workspace: Workspace, name: str) -> Account:
    """Shut a person out: every token, session and invitation of theirs opens nothing from now on. What they did stays.

    Raises NotFound, Conflict where they are shut out already.
    """
    with workspace.write() as write:
        account = of(write.connection, name)
        if account is None:
            raise NotFound(f"nobody here is called '{name}'", fix="see: rlhf people list")
        if account.disabled_at:
            raise Conflict(f"'{name}' is shut out since {account.disabled_at[:19]}", fix="nothing is left to do")
        write.connection.execute(accounts.update().values(disabled_at=now_text()).where(accounts.c.name == name))
        write.audit("people.disable", name, {"roles": list(account.roles)})
        shut = of(write.connection, name)
        assert shut is not None
        return shut


def list_accounts(workspace: Workspace) -> list[Account]:
    """Everybody, oldest first, those who are shut out too."""
    with workspace.read() as connection:
        rows = connection.execute(select(accounts).order_by(accounts.c.created_at, accounts.c.name)).all()
    return [_account(row) for row in rows]


def of(connection: Connection, name: str) -> Account | None:
    """The account of this name, or None."""
    row = connection.execute(select(accounts).where(accounts.c.name == name)).first()
    return None if row is None else _account(row)


def require_open(account: Account | None) -> None:
    """Raises Forbidden where the person was shut out; a token that the command line made may have no account."""
    if account is not None and account.disabled_at is not None:
        raise Forbidden(f"'{account.name}' is shut out of this workspace", fix="ask whoever runs it")


def check_name(name: str) -> None:
    """Raises BadInput for what can't be a pseudonym."""
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"{name!r:.120} is no name for a person here",
            fix="use up to 100 letters, digits and . _ @ - (a pseudonym is best: it stands in the data)",
        )
    if _ADDRESS.fullmatch(name):
        raise BadInput(
            "an e-mail address is no name for a person here: names stand in exports and in the audit log, for good",
            fix="use a pseudonym, such as labeler-1",
        )


def _account(row: Any) -> Account:
    return Account(row.name, tuple(row.roles.split(",")), row.created_at, row.disabled_at)
