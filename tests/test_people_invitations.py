"""Invitations: one link, one person, once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from rlhf import ids, people
from rlhf.errors import BadUsage, Conflict, Forbidden
from rlhf.people import accept_in, first_admin, invite, list_invitations, look
from rlhf.store import Workspace


def accept(workspace: Workspace, code: str) -> people.Account:
    with workspace.write() as write:
        return accept_in(write, code)


def test_a_link_makes_one_account_with_its_roles_under_a_drawn_pseudonym(workspace: Workspace) -> None:
    code = invite(workspace, ["labeler", "reviewer"])
    assert look(workspace, code).roles == ("labeler", "reviewer")
    account = accept(workspace, code)
    assert account.roles == ("labeler", "reviewer") and account.name.startswith("labeler-") and len(account.name) == 14
    with pytest.raises(Forbidden, match="used"):
        accept(workspace, code)
    assert [(i.state, i.used_by) for i in list_invitations(workspace)] == [("used", account.name)]


def test_of_two_who_follow_one_link_at_once_one_comes_in(workspace: Workspace) -> None:
    code, gate = invite(workspace), threading.Barrier(6)

    def follow(_: int) -> bool:
        gate.wait()
        try:
            accept(workspace, code)
        except Forbidden:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(follow, range(6))) == 1
    assert len(people.list_accounts(workspace)) == 1


def test_an_invitation_runs_out(workspace: Workspace) -> None:
    with ids.clock_at(1.8e9):
        code = invite(workspace, days=1)
    with ids.clock_at(1.8e9 + 86_399):
        assert look(workspace, code).state == "open"
    with ids.clock_at(1.8e9 + 86_400), pytest.raises(Forbidden, match="expired"):
        accept(workspace, code)


@pytest.mark.parametrize("word", ["", "rlhfi_", "rlhfi_" + "a" * 32, "x" * 10_000, "' OR 1=1 --"])
def test_an_unknown_code_opens_nothing(workspace: Workspace, word: str) -> None:
    invite(workspace)
    with pytest.raises(Forbidden, match="isn't known"):
        look(workspace, word)


def test_a_name_that_is_taken_is_refused_when_made_and_when_followed(workspace: Workspace) -> None:
    code = invite(workspace, name="ada")
    people.add(workspace, "ada", ["labeler"])
    with pytest.raises(Conflict, match="called 'ada' is here already"):
        accept(workspace, code)
    assert look(workspace, code).state == "open", "nothing was used up"
    with pytest.raises(Conflict, match="called 'ada' is here already"):
        invite(workspace, name="ada")


def test_a_name_is_invited_once_until_its_link_is_shut(workspace: Workspace) -> None:
    invite(workspace, name="lena")
    with pytest.raises(Conflict, match="open already") as refused:
        invite(workspace, name="lena")
    assert "rlhf people revoke lena" in refused.value.fix
    people.revoke(workspace, "lena")
    assert accept(workspace, invite(workspace, name="lena")).name == "lena"


def test_what_can_not_be_is_refused(workspace: Workspace) -> None:
    with pytest.raises(BadUsage, match="boss"):
        invite(workspace, ["boss"])
    for days in (0, -1, 91):
        with pytest.raises(BadUsage, match="can't last"):
            invite(workspace, days=days)
    assert list_invitations(workspace) == []


def test_the_first_admins_link_is_the_last_one_printed(workspace: Workspace) -> None:
    earlier, later = first_admin(workspace), first_admin(workspace)
    with pytest.raises(Forbidden, match="revoked"):
        look(workspace, earlier)
    assert accept(workspace, later).permissions == tuple(sorted(people.PERMISSIONS))


def test_a_code_is_kept_nowhere(workspace: Workspace) -> None:
    code = invite(workspace)
    accept(workspace, code)
    workspace.close()
    for file in workspace.root.rglob("*"):
        assert not file.is_file() or code.encode() not in file.read_bytes(), file
