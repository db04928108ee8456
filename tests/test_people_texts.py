"""Guidelines and consent: versions, agreement, and taking it back."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_labeling_queue import add_pairs

from rlhf import feedback, labeling, people, snapshots
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


def test_what_was_judged_under_a_consent_taken_back_is_in_no_new_snapshot_and_read_from_no_old_one(
    workspace: Workspace, tmp_path: Path
) -> None:
    made = add_pairs(workspace, 6)
    for name in ("ada", "bob"):
        agreed(workspace, name)
        for _ in range(3 if name == "ada" else 4):
            task = labeling.next_task(workspace, name, overlap=2)
            assert task is not None
            labeling.answer(workspace, name, task.lease, "left")
    before = snapshots.cut(workspace, "before", holdout=0.0)
    mine = {row.pair.id for row in before.rows() if {j.labeler for j in row.judgements} == {"ada"}}
    assert len(made) == before.n_pairs == 6 and mine
    withdraw(workspace, "ada")
    again = snapshots.open_snapshot(workspace, "before")
    assert again.digest == before.digest, "what is frozen stays what it is"
    assert {row.pair.id for row in again.rows()} == {row.pair.id for row in before.rows()} - mine
    after = snapshots.cut(workspace, "after", holdout=0.0)
    assert {j.labeler for row in [*again.rows(), *after.rows()] for j in row.judgements} == {"bob"}
    assert after.manifest["left_out"]["judgements_without_consent"] == 3
    mixed = snapshots.mix(workspace, "mixed", of="before", seen=["after"], replay=1.0)
    assert {j.labeler for row in mixed.rows() for j in row.judgements} == {"bob"}, (
        "a mix of a frozen one is new, and whole"
    )
    written = feedback.export(workspace, tmp_path / "out.jsonl")
    assert written["withdrawn"] == 3 and '"ada"' not in (tmp_path / "out.jsonl").read_text("utf-8")
    assert [one.labeler for one in labeling.quality(workspace).labelers] == ["bob"]
    agreed(workspace, "ada")
    assert snapshots.cut(workspace, "given", holdout=0.0).digest == before.digest
