"""Shutting out: what a person could come in with opens nothing from now on; what they did stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlhf.errors import Conflict, NotFound
from rlhf.people import accounts, invitations, sessions, tokens
from rlhf.people.invitations import Invitation
from rlhf.people.tokens import Token
from rlhf.store import Workspace


@dataclass(frozen=True, slots=True)
class Revoked:
    """What opens nothing any more: tokens, invitations, and how many log-ins."""

    tokens: tuple[Token, ...]
    invitations: tuple[Invitation, ...]
    n_sessions: int

    def as_json(self) -> dict[str, Any]:
        return {
            "revoked": [token.id for token in self.tokens],
            "invitations": [invitation.id for invitation in self.invitations],
            "sessions": self.n_sessions,
        }


def revoke(workspace: Workspace, which: str) -> Revoked:
    """Revoke a person's every live token, log-in and open invitation (`which` is a name), or one token or invitation by its id.

    Raises NotFound where nothing is called so, Conflict where all of it was dead already.
    """
    with workspace.write() as write:
        gone, was_token = tokens.revoke_in(write, which)
        shut = invitations.revoke_in(write, which)
        account = accounts.of(write.connection, which)
        n_sessions = sessions.end_all_in(write, which)
        if gone or shut or n_sessions:
            return Revoked(tuple(gone), tuple(shut), n_sessions)
        if not was_token and account is None:
            raise NotFound(f"nobody and no token here is called '{which}'", fix="see: rlhf people list")
        raise Conflict(f"nothing of '{which}' is live any more", fix="nothing is left to do; see: rlhf people list")
