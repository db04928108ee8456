"""Sessions: a new word at each log-in, which ends with its token, its role or the log-out."""

from __future__ import annotations

import pytest

from rlhf import ids, people
from rlhf.errors import Forbidden
from rlhf.people import actor_of, begin, end
from rlhf.people.sessions import KEEP_DAYS
from rlhf.store import Workspace


def test_each_log_in_is_another_word_for_the_same_person(workspace: Workspace) -> None:
    token = people.issue_token(workspace, "ada")
    one, other = begin(workspace, token), begin(workspace, token)
    assert len({one, other, token}) == 3 and actor_of(workspace, one) == actor_of(workspace, other) == actor_of(
        workspace, token
    )
    end(workspace, one)
    with pytest.raises(Forbidden, match="has ended"):
        actor_of(workspace, one)
    assert actor_of(workspace, other).name == "ada"
    for word in (one, "nothing"):
        end(workspace, word)  # ended already, or never there


def test_a_session_ends_with_its_token(workspace: Workspace) -> None:
    word = begin(workspace, people.issue_token(workspace, "ada"))
    assert people.revoke(workspace, "ada").n_sessions == 1
    with pytest.raises(Forbidden):
        actor_of(workspace, word)


def test_a_session_of_an_invitation_may_what_the_roles_may_now(workspace: Workspace) -> None:
    code = people.invite(workspace, ["labeler"], name="ada")
    with workspace.write() as write:
        people.accept_in(write, code)
        word = people.begin_in(write, "ada")
    assert actor_of(workspace, word).scopes == ("label",)
    people.add(workspace, "ada", ["reviewer"])
    assert actor_of(workspace, word).scopes == ("label", "review")
    people.disable(workspace, "ada")
    with pytest.raises(Forbidden, match="shut out"):
        actor_of(workspace, word)


def test_a_session_runs_out(workspace: Workspace) -> None:
    with ids.clock_at(1.8e9):
        word = begin(workspace, people.issue_token(workspace, "ada", days=365))
    with ids.clock_at(1.8e9 + KEEP_DAYS * 86_400 - 1):
        assert actor_of(workspace, word).name == "ada"
    with ids.clock_at(1.8e9 + KEEP_DAYS * 86_400), pytest.raises(Forbidden, match="has ended"):
        actor_of(workspace, word)


def test_a_word_is_kept_nowhere(workspace: Workspace) -> None:
    word = begin(workspace, people.issue_token(workspace, "ada"))
    workspace.close()
    for file in workspace.root.rglob("*"):
        assert not file.is_file() or word.encode() not in file.read_bytes(), file
