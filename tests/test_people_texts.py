"""Guidelines and consent: versions, agreement, and taking it back."""

from __future__ import annotations

import pytest

from rlhf import people
from rlhf.errors import BadInput, BadUsage, Conflict
from rlhf.people import agree, agreement_of, current_texts, publish_text, withdraw, withdrawn
from rlhf.store import Workspace, audit


def agreed(workspace: Workspace, name: str) -> people.Agreement:
    guideline, consent = current_texts(workspace)
    return agree(workspace, name, guideline.digest, consent.digest)


def test_a_text_has_versions_and_the_same_again_is_none(workspace: Workspace) -> None:
    before = current_texts(workspace)[0]
    assert before.number == 0 and "tie" in before.body
    first = publish_text(workspace, "guideline", "Be kind.")
    assert publish_text(workspace, "guideline", " Be kind. ") == first == current_texts(workspace)[0]
    assert publish_text(workspace, "guideline", "Be kind and brief.").number == 2
    assert current_texts(workspace)[1].number == 0, "the consent text is another text"


def test_a_consent_says_what_for_and_on_what_basis(workspace: Workspace) -> None:
    made = publish_text(workspace, "consent", "For all.", scopes=["train", "publish", "train"], basis="contract")
    assert (made.scopes, made.basis) == (("publish", "train"), "contract")
    assert publish_text(workspace, "consent", "For all.", scopes=["train"], basis="contract").digest != made.digest
    with pytest.raises(BadUsage, match="sell"):
        publish_text(workspace, "consent", "x", scopes=["sell"])
    with pytest.raises(BadUsage, match="nothing is no use"):
        publish_text(workspace, "consent", "x", scopes=[])
    with pytest.raises(BadUsage, match="because"):
        publish_text(workspace, "consent", "x", basis="because")
    for body in (" ", "x" * 20_001, "a\x00b"):
        with pytest.raises(BadInput, match="characters"):
            publish_text(workspace, "guideline", body)


def test_agreement_is_to_the_latest_texts_alone(workspace: Workspace) -> None:
    old = current_texts(workspace)
    assert agreed(workspace, "ada").is_in_force
    publish_text(workspace, "consent", "Another.", scopes=["evaluate"])
    with workspace.read() as connection:
        found = agreement_of(connection, "ada")
    assert found is not None and not found.is_in_force and found.scopes == ("evaluate", "train")
    with pytest.raises(Conflict, match="the consent has changed"):
        agree(workspace, "ada", old[0].digest, old[1].digest)
    assert agreed(workspace, "ada").scopes == ("evaluate",)


def test_consent_is_taken_back_and_given_again_and_the_log_says_so(workspace: Workspace) -> None:
    with pytest.raises(Conflict, match="no consent to take back"):
        withdraw(workspace, "ada")
    agreed(workspace, "ada")
    agreed(workspace, "bob")
    assert withdraw(workspace, "ada").is_withdrawn
    with workspace.read() as connection:
        assert withdrawn(connection) == {"ada"}
    with pytest.raises(Conflict):
        withdraw(workspace, "ada")
    assert agreed(workspace, "ada").is_in_force
    with workspace.read() as connection:
        assert withdrawn(connection) == set()
        told = [(e["action"], e["actor"]) for e in audit.entries(connection) if e["subject"] == "ada"]
    assert told == [("people.agree", "ada"), ("people.withdraw", "tester"), ("people.agree", "ada")]
