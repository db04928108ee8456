"""Files become suites: every row accounted for, masked as feedback is, named by content alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from suite_files import bench_row, style_row, write

from rlhf import feedback, suites
from rlhf.errors import BadInput, BadUsage, Damaged, NotFound
from rlhf.feedback import list_pairs
from rlhf.ids import merkle_root
from rlhf.store import Workspace, audit


def test_every_row_is_accepted_a_duplicate_or_rejected_with_its_reason(workspace: Workspace, tmp_path: Path) -> None:
    rows = [bench_row(i) for i in range(5)] + [bench_row(0), bench_row(9, chosen="same", rejected="same"), {"id": 3}]
    file = write(tmp_path / "bench.jsonl", rows)
    file.write_text(file.read_text("utf-8") + "{not json\n", "utf-8")
    found = suites.import_files(workspace, "bench", [file])
    assert (found.rows, found.accepted, found.duplicates, found.rejected) == (
        9,
        5,
        1,
        3,
    ) and found.format == "rewardbench"
    assert [error.line for error in found.errors] == [7, 8, 9] and "identical" in found.errors[0].reason
    assert found.suite.manifest["left_out"] == {"duplicate_rows": 1, "rejected_rows": 3}
    assert found.suite.entry.held_out and found.suite.entry.n_pairs == 5


def test_the_chosen_reply_carries_the_verdict_whichever_side_it_is(workspace: Workspace, tmp_path: Path) -> None:
    found = suites.import_files(workspace, "bench", [write(tmp_path / "b.jsonl", [bench_row(i) for i in range(20)])])
    rows = found.suite.pairs()
    sides = {row.judgements[0].choice for row in rows}
    assert sides == {"a", "b"}  # the smaller digest is a, not what stood first
    for row in rows:
        (judgement,) = row.judgements
        chosen = row.pair.reply_a if judgement.choice == "a" else row.pair.reply_b
        assert chosen.startswith("Begin") and row.strata == ("chat",)


def test_a_style_matrix_is_nine_pairs_hard_where_the_rejected_reply_is_the_fancier(
    workspace: Workspace, tmp_path: Path
) -> None:
    found = suites.import_files(workspace, "styles", [write(tmp_path / "s.jsonl", [style_row(1, "math")])])
    assert found.format == "rmbench" and found.suite.entry.n_pairs == 9
    by_cell = {row.styles[0]: row for row in found.suite.rows()}
    levels = {cell: next(s for s in row.strata if s != "math") for cell, row in by_cell.items()}
    assert levels["0>2"] == levels["0>1"] == levels["1>2"] == "hard"
    assert levels["0>0"] == levels["1>1"] == levels["2>2"] == "normal"
    assert levels["2>0"] == levels["1>0"] == levels["2>1"] == "easy"
    hard = by_cell["0>2"]
    assert {hard.pair.reply_a, hard.pair.reply_b} == {"right 1", "**wrong 1**, and here is why"}
    with pytest.raises(BadInput, match="'chosen' is 2 texts; wanted 3"):
        bad = {**style_row(2), "chosen": ["x", "y"]}
        suites.import_files(workspace, "bad", [write(tmp_path / "bad.jsonl", [bad])])


def test_prompts_alone_and_pairs_stand_in_one_suite(workspace: Workspace, tmp_path: Path) -> None:
    rows = [
        {"prompt": "Tell me a story", "stratum": "tales"},
        bench_row(1),
        {"prompt": [{"role": "user", "content": "Hi"}]},
    ]
    file = write(tmp_path / "mixed.jsonl", rows)
    found = suites.import_files(workspace, "mixed", [file], format="jsonl")
    assert (found.suite.entry.n_pairs, found.suite.entry.n_prompts) == (1, 2)
    assert len(found.suite.prompts()) == 3 and found.suite.strata == {"chat": 1, "tales": 1}


def test_a_pair_that_several_labelers_judged_is_one_row_with_their_votes(workspace: Workspace, tmp_path: Path) -> None:
    said = [bench_row(1, labeler=name, cohort=cohort) for name, cohort in (("ann", "same"), ("bob", "opposite"))]
    turned = {**bench_row(1, labeler="cid"), "chosen": bench_row(1)["rejected"], "rejected": bench_row(1)["chosen"]}
    found = suites.import_files(workspace, "votes", [write(tmp_path / "v.jsonl", [*said, turned, said[0]])])
    (row,) = found.suite.rows()
    assert len(row.judgements) == 3 and len({j.choice for j in row.judgements}) == 2
    assert found.accepted == 3 and found.duplicates == 1
    assert found.suite.manifest["cohorts"] == {"opposite": 1, "same": 1}


def test_a_name_given_again_is_the_next_number_and_the_digest_is_the_contents(
    workspace: Workspace, tmp_path: Path
) -> None:
    rows = [bench_row(i) for i in range(4)]
    one = suites.import_files(workspace, "b", [write(tmp_path / "one.jsonl", rows)]).suite
    two = suites.import_files(workspace, "b", [write(tmp_path / "two.jsonl", rows[::-1])]).suite
    other = suites.import_files(workspace, "c", [write(tmp_path / "three.jsonl", rows[:3])]).suite
    assert (one.ref, two.ref) == ("b@1", "b@2") and one.digest == two.digest != other.digest
    assert one.digest == merkle_root(row.digest for row in one.rows())
    assert (
        suites.open_suite(workspace, "b").ref == "b@2"
        and suites.open_suite(workspace, f"sha256:{other.digest[:12]}").ref == "c@1"
    )
    assert [entry.ref for entry in suites.list_suites(workspace)] == ["b@1", "b@2", "c@1"]
    with workspace.read() as connection:
        assert audit.entries(connection, action="suite.freeze")[0]["details"]["digest"]


def test_a_suites_pairs_have_the_ids_that_they_have_at_the_feedback_door(workspace: Workspace, tmp_path: Path) -> None:
    rows = [bench_row(i, chosen=f"Write to ann{i}@example.org about it") for i in range(3)]
    file = write(tmp_path / "b.jsonl", rows)
    suite = suites.import_files(workspace, "b", [file]).suite
    assert all("example.org" not in row.pair.reply_a + row.pair.reply_b for row in suite.rows())
    assert not list_pairs(workspace), "a suite's pairs are not the store's"
    feedback.import_files(workspace, [file])
    assert {line.id for line in list_pairs(workspace)} == {row.pair.id for row in suite.rows()}


def test_what_is_changed_in_a_suite_is_seen_when_it_is_opened(workspace: Workspace, tmp_path: Path) -> None:
    suite = suites.import_files(workspace, "b", [write(tmp_path / "b.jsonl", [bench_row(1)])]).suite
    (shard,) = suite.shards
    shard.write_bytes(shard.read_bytes() + b"x")
    with pytest.raises(Damaged, match="rows-00000"):
        suites.open_suite(workspace, "b")


def test_what_cannot_be_a_suite_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    file = write(tmp_path / "b.jsonl", [bench_row(1)])
    with pytest.raises(BadUsage, match="is no suite name"):
        suites.import_files(workspace, "7", [file])
    with pytest.raises(BadUsage, match="no format 'xml'"):
        suites.import_files(workspace, "b", [file], format="xml")
    votes = write(tmp_path / "votes.jsonl", [{"prompt": "p", "reply": "r"}])
    with pytest.raises(BadInput, match=r"no row of .* was accepted as jsonl"):
        suites.import_files(workspace, "b", [votes])
    with pytest.raises(NotFound, match="no suite b"):
        suites.open_suite(workspace, "b")
