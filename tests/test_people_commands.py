"""`rlhf people`: a token is shown once, listed without itself, and revoked by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from rlhf import people
from rlhf.cli.people import app
from rlhf.errors import BadUsage
from rlhf.store import Workspace


def call(workspace: Workspace, *words: str) -> Any:
    done = CliRunner().invoke(app, [*words, "--json", "--workspace", str(workspace.root)])
    if done.exception:
        raise done.exception
    return json.loads(done.stdout)


def test_token_is_shown_once_and_listed_without_itself(workspace: Workspace) -> None:
    made = call(workspace, "token", "ada", "--scope", "label", "--scope", "evaluate", "--days", "7")
    assert people.actor_of(workspace, made["token"]) == people.Actor("ada", ("evaluate", "label"))
    listed = call(workspace, "list")
    assert [(t["actor"], t["state"]) for t in listed["tokens"]] == [("ada", "live")]
    assert made["token"] not in json.dumps(listed)


def test_a_token_says_whether_its_person_is_new(workspace: Workspace) -> None:
    words = ["token", "ada", "--workspace", str(workspace.root)]
    assert "ada, a new person, logs in" in CliRunner().invoke(app, words).stderr
    assert "new person" not in CliRunner().invoke(app, words).stderr
    assert [call(workspace, "token", name)["made"] for name in ("ada", "bob")] == [False, True]


@pytest.mark.parametrize(
    "address", ["foo", "javascript:alert(1)", "https://", "ftp://a.b", "http://a b", "http://[", "http://a/#x"]
)
def test_an_invitation_leads_to_a_web_server_or_is_not_made(workspace: Workspace, address: str) -> None:
    with pytest.raises(BadUsage, match="no address of a web server") as refused:
        call(workspace, "invite", "--address", address)
    assert refused.value.exit_status == 2 and people.list_invitations(workspace) == []


def test_revoke_by_name_shows_in_the_list(workspace: Workspace) -> None:
    call(workspace, "token", "ada")
    assert len(call(workspace, "revoke", "ada")["revoked"]) == 1
    assert call(workspace, "list")["tokens"][0]["state"] == "revoked"


def test_invitations_are_links_that_are_listed_without_their_codes(workspace: Workspace) -> None:
    made = call(workspace, "invite", "--role", "reviewer", "--count", "3", "--address", "https://label.example/")
    assert len(set(made["links"])) == 3 and all(
        link.startswith("https://label.example/invite#code=") for link in made["links"]
    )
    listed = call(workspace, "list")
    assert [(i["state"], i["roles"]) for i in listed["invitations"]] == [("open", ["reviewer"])] * 3
    assert not any(link.partition("=")[2] in json.dumps(listed) for link in made["links"])
    assert call(workspace, "revoke", listed["invitations"][0]["id"])["invitations"] == [listed["invitations"][0]["id"]]


def test_roles_are_given_and_a_person_is_shut_out_for_good(workspace: Workspace) -> None:
    assert call(workspace, "add", "ada", "--role", "operator")["permissions"] == ["evaluate", "promote", "roll_back"]
    call(workspace, "revoke", "ada", "--for-good")
    assert call(workspace, "list")["accounts"][0]["disabled_at"] is not None
