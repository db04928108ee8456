"""Shutting out: everything a person could come in with, at once."""

from __future__ import annotations

import pytest

from rlhf import people
from rlhf.errors import Conflict, Forbidden
from rlhf.store import Workspace


def test_tokens_sessions_and_invitations_of_a_name_all_end(workspace: Workspace) -> None:
    code = people.invite(workspace, name="ada")
    token = people.issue_token(workspace, "ada")
    word, other = people.begin(workspace, token), people.issue_token(workspace, "bob")
    gone = people.revoke(workspace, "ada")
    assert (len(gone.tokens), len(gone.invitations), gone.n_sessions) == (1, 1, 1)
    for secret in (token, word):
        with pytest.raises(Forbidden):
            people.actor_of(workspace, secret)
    with pytest.raises(Forbidden, match="revoked"):
        people.look(workspace, code)
    assert people.actor_of(workspace, other).name == "bob"
    with pytest.raises(Conflict, match="nothing of 'ada' is live"):
        people.revoke(workspace, "ada")
