"""The demo's own preferences: marked as simulated, the same bytes each time, and through the same door as everything
else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.demo import demo_pairs, known_pair, prompts, true_preference, truth_figures, write_preferences
from rlhf.store import Workspace

PROJECT = Path(__file__).parent.parent


def _rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_prompts_have_distinct_openings_and_end_with_the_user() -> None:
    every = prompts()
    assert len(every) >= 500
    assert len({" ".join(prompt[0].content.casefold().split()) for prompt in every}) == len(every)
    assert all(prompt[0].role == prompt[-1].role == "user" for prompt in every)
    assert all(turn.content == turn.content.strip() and "{" not in turn.content for prompt in every for turn in prompt)


def test_shipped_pairs_are_enough_distinct_and_far_apart() -> None:
    pairs = demo_pairs()
    assert len(pairs) > 950
    assert len({pair.id for pair in pairs}) == len(pairs)
    gaps = sorted(abs(true_preference(pair.prompt, pair.reply_a, pair.reply_b)) for pair in pairs)
    assert gaps[len(gaps) // 20] > 0.1  # nineteen of twenty are no near-ties
    assert gaps[len(gaps) // 2] > 1.0


def test_shipped_replies_stay_small() -> None:
    assert (PROJECT / "rlhf" / "demo" / "replies.jsonl.gz").stat().st_size < 400_000


def test_same_seed_writes_the_same_bytes_and_another_other_votes(tmp_path: Path) -> None:
    one, two, other = tmp_path / "1.jsonl", tmp_path / "2.jsonl", tmp_path / "3.jsonl"
    assert write_preferences(one, n_pairs=80) == write_preferences(two, n_pairs=80)
    write_preferences(other, n_pairs=80, seed=1)
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes() != other.read_bytes()
    assert {row["pair_id"] for row in _rows(one)} == {row["pair_id"] for row in _rows(other)}


def test_every_row_says_simulated_and_the_facts_count_the_rows(tmp_path: Path) -> None:
    facts = write_preferences(tmp_path / "votes.jsonl")
    rows = _rows(tmp_path / "votes.jsonl")
    assert {row["kind"] for row in rows} == {"simulated"}
    assert {str(row["labeler"])[:4] for row in rows} == {"sim-"}
    assert facts.judgements == len(rows) == 3 * facts.n_pairs
    assert facts.n_pairs == len({row["pair_id"] for row in rows}) == len(demo_pairs())
    assert facts.n_prompts == len({json.dumps(row["prompt"]) for row in rows})
    assert facts.n_labelers == len({row["labeler"] for row in rows}) == 8
    assert abs(facts.corr_length) < 0.3
    assert 0.4 < facts.longer_wins < 0.6
    assert 0.8 < facts.noise_ceiling < 0.97


def test_fewer_pairs_are_a_part_of_all_with_the_same_votes(tmp_path: Path) -> None:
    write_preferences(tmp_path / "few.jsonl", n_pairs=30)
    write_preferences(tmp_path / "all.jsonl")
    few = (tmp_path / "few.jsonl").read_text("utf-8")
    assert (tmp_path / "all.jsonl").read_text("utf-8").startswith(few)
    assert few.count("\n") == 90


def test_no_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wanted at least 1"):
        write_preferences(tmp_path / "none.jsonl", n_pairs=0)


def test_demo_goes_through_the_feedback_door_as_simulated(workspace: Workspace, tmp_path: Path) -> None:
    from rlhf import feedback

    facts = write_preferences(tmp_path / "votes.jsonl")
    receipt = feedback.import_files(workspace, [tmp_path / "votes.jsonl"], source="demo", kind="simulated")
    assert (receipt.rows, receipt.accepted, receipt.rejected) == (facts.judgements, facts.judgements, 0)
    assert receipt.pairs == facts.n_pairs
    assert not receipt.masked  # the rule reads the text as it ships


def test_a_snapshot_of_the_demo_keeps_what_the_truth_needs(workspace: Workspace, tmp_path: Path) -> None:
    from rlhf import feedback, snapshots

    facts = write_preferences(tmp_path / "votes.jsonl", n_pairs=200)
    feedback.import_files(workspace, [tmp_path / "votes.jsonl"], source="demo", kind="simulated")
    snapshot = snapshots.cut(workspace, "demo", holdout=0.3)
    rows = list(snapshot.rows())
    held_out = [row for row in rows if row.split == "test"]
    figures = truth_figures([known_pair(row, true_preference(row.pair.prompt, row.pair.reply_a, row.pair.reply_b))
                             for row in held_out])  # fmt: skip
    assert len(rows) == facts.n_pairs
    assert figures["truth_accuracy"] == 1.0
    assert figures["n_pairs"] == len(held_out) > 30
    assert figures["rule_accuracy"] == figures["label_accuracy"] > 0.75
    assert {judgement.kind for row in rows for judgement in row.judgements} == {"simulated"}
    assert {judgement.cohort for row in rows for judgement in row.judgements} == {"steady", "hurried"}
