"""People: a token opens what it says until it expires or is revoked, and is kept nowhere."""

from __future__ import annotations

import pytest

from rlhf import ids
from rlhf.errors import BadInput, BadUsage, Conflict, Forbidden, NotFound
from rlhf.people import Actor, actor_of, add, disable, issue_token, list_accounts, list_tokens, revoke
from rlhf.store import Workspace, audit


def test_token_names_its_actor_and_scopes(workspace: Workspace) -> None:
    token = issue_token(workspace, "ada", ["label", "evaluate", "label"])
    assert actor_of(workspace, token) == Actor("ada", ("evaluate", "label"))


def test_two_tokens_of_one_person_differ_and_both_open(workspace: Workspace) -> None:
    one, other = issue_token(workspace, "ada"), issue_token(workspace, "ada")
    assert one != other
    assert actor_of(workspace, one) == actor_of(workspace, other)


@pytest.mark.parametrize(
    "word", ["", "rlhf_", "rlhf_" + "a" * 32, "x" * 10_000, "rlhf_\ud800" + "a" * 31, "' OR 1=1 --"]
)
def test_unknown_token_is_refused(workspace: Workspace, word: str) -> None:
    issue_token(workspace, "ada")
    with pytest.raises(Forbidden, match="isn't known"):
        actor_of(workspace, word)


def test_digest_of_a_token_does_not_open(workspace: Workspace) -> None:
    token = issue_token(workspace, "ada")
    with pytest.raises(Forbidden):
        actor_of(workspace, ids.digest_text(token))


def test_token_expires(workspace: Workspace) -> None:
    start = 1_800_000_000.0
    with ids.clock_at(start):
        token = issue_token(workspace, "ada", days=2)
    with ids.clock_at(start + 2 * 86_400 - 1):
        assert actor_of(workspace, token).name == "ada"
    with ids.clock_at(start + 2 * 86_400), pytest.raises(Forbidden, match="expired"):
        actor_of(workspace, token)


def test_revoked_token_opens_nothing_and_others_stay(workspace: Workspace) -> None:
    ada, bob = issue_token(workspace, "ada"), issue_token(workspace, "bob")
    assert [t.actor for t in revoke(workspace, "ada").tokens] == ["ada"]
    with pytest.raises(Forbidden, match="revoked"):
        actor_of(workspace, ada)
    assert actor_of(workspace, bob).name == "bob"


def test_one_token_is_revoked_by_its_id(workspace: Workspace) -> None:
    issue_token(workspace, "ada")
    kept = issue_token(workspace, "ada")
    revoke(workspace, next(t.id for t in list_tokens(workspace) if t.id != ids.digest_text(kept)[:12]))
    assert actor_of(workspace, kept).name == "ada"
    assert sorted(t.state for t in list_tokens(workspace)) == ["live", "revoked"]


def test_revoking_nobody_or_twice_is_told(workspace: Workspace) -> None:
    issue_token(workspace, "ada")
    with pytest.raises(NotFound):
        revoke(workspace, "eve")
    revoke(workspace, "ada")
    with pytest.raises(Conflict):
        revoke(workspace, "ada")


@pytest.mark.parametrize("name", ["", "a b", "ada@example.org", "<script>", "a/b", "x" * 101, "a\n", "-ada"])
def test_odd_name_is_refused(workspace: Workspace, name: str) -> None:
    with pytest.raises(BadInput):
        issue_token(workspace, name)


def test_unknown_scope_and_odd_days_are_refused(workspace: Workspace) -> None:
    with pytest.raises(BadUsage, match="labell"):
        issue_token(workspace, "ada", ["labell"])
    for days in (0, -1, 3651):
        with pytest.raises(BadUsage):
            issue_token(workspace, "ada", days=days)
    assert list_tokens(workspace) == []


def test_missing_scope_names_the_way_out() -> None:
    with pytest.raises(Forbidden, match="not label") as refusal:
        Actor("ada", ("evaluate",)).require("label")
    assert "--scope label" in refusal.value.fix


def test_token_is_kept_nowhere(workspace: Workspace) -> None:
    token = issue_token(workspace, "ada")
    revoke(workspace, "ada")
    with workspace.read() as connection:
        told = audit.entries(connection)
    assert [e["action"] for e in told[-2:]] == ["people.token", "people.revoke"]
    assert all(token not in str(entry) for entry in told)
    workspace.close()
    for file in workspace.root.rglob("*"):
        assert not file.is_file() or token.encode() not in file.read_bytes(), file


def test_a_first_token_makes_an_account_with_the_least_roles_and_a_later_one_keeps_to_them(
    workspace: Workspace,
) -> None:
    issue_token(workspace, "ada", ["label", "sign"])
    assert [(a.name, a.roles) for a in list_accounts(workspace)] == [("ada", ("evaluator", "labeler"))]
    with pytest.raises(Forbidden, match="is evaluator and labeler here, and may not promote"):
        issue_token(workspace, "ada", ["label", "promote"])


def test_a_role_that_is_taken_away_takes_its_scopes_with_it(workspace: Workspace) -> None:
    token = issue_token(workspace, "ada", ["label", "sign"])
    add(workspace, "ada", ["labeler"])
    assert actor_of(workspace, token).scopes == ("label",)
    disable(workspace, "ada")
    with pytest.raises(Forbidden, match="shut out"):
        actor_of(workspace, token)
    with pytest.raises(Forbidden, match="shut out"):
        issue_token(workspace, "ada")
