"""Accounts: a pseudonym and its roles, and nothing else about anybody."""

from __future__ import annotations

import pytest

from rlhf.errors import BadInput, Conflict, NotFound
from rlhf.people import add, disable, list_accounts
from rlhf.store import Workspace
from rlhf.store.tables import accounts


def test_roles_are_set_in_place_of_those_before_and_reopen_who_was_shut_out(workspace: Workspace) -> None:
    assert add(workspace, "ada", ["labeler"]).permissions == ("label",)
    assert add(workspace, "ada", ["operator"]).permissions == ("evaluate", "promote", "roll_back")
    assert disable(workspace, "ada").disabled_at is not None
    assert add(workspace, "ada", ["labeler"]).disabled_at is None
    assert len(list_accounts(workspace)) == 1


def test_shutting_out_nobody_or_twice_is_told(workspace: Workspace) -> None:
    with pytest.raises(NotFound):
        disable(workspace, "eve")
    add(workspace, "ada", ["labeler"])
    disable(workspace, "ada")
    with pytest.raises(Conflict, match="shut out since"):
        disable(workspace, "ada")


@pytest.mark.parametrize("name", ["ada@example.org", "a b", "", "x" * 101, "a/../b", "=cmd()"])
def test_a_name_is_a_pseudonym(workspace: Workspace, name: str) -> None:
    with pytest.raises(BadInput):
        add(workspace, name, ["labeler"])


def test_no_column_could_hold_who_somebody_is() -> None:
    assert {column.name for column in accounts.columns} == {"name", "roles", "created_at", "disabled_at"}
