"""Cutting: what goes in, which side, which number, which digest."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snapshot_rows import judged, pair_of, put

from rlhf import ids, snapshots
from rlhf.errors import BadInput, BadUsage, NotFound
from rlhf.records import Pair
from rlhf.snapshots.cutting import Rule
from rlhf.store import Workspace, audit


def test_a_cut_holds_the_judged_pairs_and_both_sides(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(60)])
    made = snapshots.cut(workspace, "hh", holdout=0.3)
    rows = list(made.rows())
    assert [r.pair.id for r in rows] == sorted(pair_of(i).id for i in range(60))
    assert made.n_pairs == 60 and made.splits["train"] + made.splits["test"] == 60
    assert made.splits == {side: len(list(made.rows(side))) for side in ("train", "test")}
    assert made.splits["train"] > made.splits["test"] > 5
    assert made.ref == "hh@1" and len(made.digest) == 64


def test_splits_are_a_hash_of_seed_and_opening_turn(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(40)])
    for row in snapshots.cut(workspace, "hh", holdout=0.4, seed=7).rows():
        assert (row.split == "test") == (ids.unit_interval(7, row.pair.group) < 0.4)


def test_pairs_of_one_opening_turn_are_on_one_side(workspace: Workspace) -> None:
    openings = [f"Opening  {i // 4}" if i % 2 else f"opening {i // 4} " for i in range(80)]
    put(workspace, [judged(pair_of(i, opening=opening), "a") for i, opening in enumerate(openings)])
    sides: dict[str, set[str]] = {}
    for row in snapshots.cut(workspace, "hh", holdout=0.5).rows():
        sides.setdefault(row.pair.group, set()).add(row.split)
    assert len(sides) == 20
    assert all(len(side) == 1 for side in sides.values()) and {"train", "test"} == set.union(*sides.values())


def test_a_later_cut_never_moves_a_row(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(50)])
    before = {row.pair.id: row.split for row in snapshots.cut(workspace, "hh", holdout=0.3, seed=3).rows()}
    put(workspace, [judged(pair_of(i), "b", source="later") for i in range(25, 120)])
    after = {row.pair.id: row.split for row in snapshots.cut(workspace, "hh", holdout=0.3, seed=3).rows()}
    assert len(after) == 120 and after.items() >= before.items()


@settings(max_examples=200)
@given(st.text(max_size=20), st.integers(0, 99), st.floats(0, 0.99), st.floats(0, 0.99))
def test_a_bigger_holdout_only_adds_to_the_test_side(group: str, seed: int, one: float, other: float) -> None:
    less, more = sorted((one, other))
    if Rule((), (), less, seed).side_of(group) == "test":
        assert Rule((), (), more, seed).side_of(group) == "test"


def test_same_rows_same_digest_on_another_machine(tmp_path: Path) -> None:
    """Another workspace, another order of arrival, another actor and clock, another name: the same digest."""
    rows = [judged(pair_of(i), "ab"[i % 2], labeler=f"w{i % 3}") for i in range(30)]
    one = Workspace.create(tmp_path / "one", actor="ann")
    put(one, rows)
    first = snapshots.cut(one, "hh", holdout=0.2, seed=1)
    other = Workspace.create(tmp_path / "other", actor="ben")
    with ids.clock_at(1_000_000_000):
        put(other, rows[::-1])
        second = snapshots.cut(other, "another", holdout=0.2, seed=1)
    assert first.digest == second.digest
    assert [p.read_bytes() for p in first.shards] == [p.read_bytes() for p in second.shards]


@pytest.mark.parametrize("change", ["choice", "labeler", "judgement", "pair", "seed", "source"])
def test_any_change_of_content_changes_the_digest(tmp_path: Path, change: str) -> None:
    rows = [judged(pair_of(i), "a", labeler="w") for i in range(30)]
    changed = {
        "choice": [judged(pair_of(0), "b", labeler="w"), *rows[1:]],
        "labeler": [judged(pair_of(0), "a", labeler="v"), *rows[1:]],
        "judgement": [*rows, judged(pair_of(0), "tie", labeler="v")],
        "pair": rows[1:],
        "seed": rows,
        "source": [judged(pair_of(0), "a", labeler="w", source="else"), *rows[1:]],
    }[change]
    digests = []
    for name, content, seed in (("one", rows, 0), ("other", changed, 5 if change == "seed" else 0)):
        workspace = Workspace.create(tmp_path / name)
        put(workspace, content)
        digests.append(snapshots.cut(workspace, "hh", holdout=0.5, seed=seed).digest)
    assert digests[0] != digests[1]


def test_cutting_a_name_again_makes_the_next_number(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(5)])
    one, two = snapshots.cut(workspace, "hh"), snapshots.cut(workspace, "hh")
    assert (one.ref, two.ref) == ("hh@1", "hh@2") and one.digest == two.digest
    assert [e.ref for e in snapshots.list_snapshots(workspace)] == ["hh@1", "hh@2"]


def test_two_cuts_at_once_get_different_numbers(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(20)])
    made, together = [], threading.Barrier(4)

    def cut() -> None:
        together.wait()
        made.append(snapshots.cut(workspace, "hh").number)

    threads = [threading.Thread(target=cut) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [1, 2, 3, 4]
    assert all(snapshots.open_snapshot(workspace, f"hh@{n}").n_pairs == 20 for n in made)


def test_a_row_needs_consent_for_its_side(workspace: Workspace) -> None:
    scopes = [("evaluate",), ("train",), ("publish",), ("evaluate", "train")]
    put(workspace, [judged(pair_of(i), "a", consent=scopes[i % 4]) for i in range(80)])
    made = snapshots.cut(workspace, "hh", holdout=0.5)
    for row in made.rows():
        needed = "train" if row.split == "train" else "evaluate"
        assert all(needed in j.consent for j in row.judgements)
    assert 0 < made.n_pairs < 60
    assert made.manifest["left_out"]["pairs_without_consent"] == 80 - made.n_pairs
    assert made.manifest["left_out"]["judgements_without_consent"] == 80 - made.n_pairs


def test_a_judgement_without_consent_stays_out_of_a_row_that_others_carry(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(0), "a", labeler="w"), judged(pair_of(0), "b", labeler="v", consent=())])
    made = snapshots.cut(workspace, "hh", holdout=0.0)
    assert [j.labeler for row in made.rows() for j in row.judgements] == ["w"]
    assert made.manifest["left_out"]["judgements_without_consent"] == 1


def test_pairs_that_nobody_decided_stay_out_and_are_counted(workspace: Workspace) -> None:
    rows = [judged(pair_of(0), "skip"), judged(pair_of(1), "tie"), judged(pair_of(2), "both_bad")]
    put(workspace, rows, bare=[pair_of(3)])
    made = snapshots.cut(workspace, "hh")
    assert {r.pair.id for r in made.rows()} == {pair_of(1).id, pair_of(2).id}
    assert made.manifest["left_out"]["pairs_only_skipped"] == 1
    assert made.manifest["left_out"]["pairs_without_judgement"] == 1


def test_what_a_labeler_took_back_is_not_in_the_row(workspace: Workspace) -> None:
    first = judged(pair_of(0), "a", labeler="w")
    put(workspace, [first, judged(pair_of(0), "b", labeler="v"), judged(pair_of(1), "a", labeler="w")])
    put(workspace, [judged(pair_of(0), "skip", labeler="w", reason="undo", supersedes=first)])
    made = snapshots.cut(workspace, "hh")
    row = next(r for r in made.rows() if r.pair.id == pair_of(0).id)
    assert [(j.labeler, j.choice) for j in row.judgements] == [("v", "b")]
    assert made.n_pairs == 2


def test_sources_and_kinds_choose_judgements_as_well_as_pairs(workspace: Workspace) -> None:
    put(
        workspace,
        [
            judged(pair_of(0), "a", source="one"),
            judged(pair_of(0), "b", source="two"),
            judged(pair_of(1), "a", source="one", kind="simulated"),
            judged(pair_of(2), "a", source="two"),
        ],
    )
    made = snapshots.cut(workspace, "hh", sources=["one"])
    assert {r.sources for r in made.rows()} == {("one",)}
    assert {j.source for r in made.rows() for j in r.judgements} == {"one"} and made.n_pairs == 2
    people = snapshots.cut(workspace, "people", kinds=["human"])
    assert people.n_pairs == 2 and people.manifest["kinds"] == {"human": 3}


def test_cutting_no_pairs_is_refused_and_leaves_nothing(workspace: Workspace) -> None:
    with pytest.raises(BadInput, match="no judged pairs"):
        snapshots.cut(workspace, "hh")
    put(workspace, [judged(pair_of(0), "skip")])
    with pytest.raises(BadInput, match="only skipped"):
        snapshots.cut(workspace, "hh")
    assert snapshots.list_snapshots(workspace) == ()
    assert not list(Path(workspace.artifacts.root).rglob("*.parquet"))
    assert not list((workspace.root / "cache").rglob("*.parquet"))


@pytest.mark.parametrize("name", ["", "a@1", "7", "../up", ".hidden", "-x", "a/b", "a b", "x" * 101, "sha256:aa"])
def test_names_that_could_be_taken_for_something_else_are_refused(workspace: Workspace, name: str) -> None:
    with pytest.raises(BadUsage, match="no snapshot name"):
        snapshots.cut(workspace, name)


@pytest.mark.parametrize("holdout", [-0.1, 1.0, float("nan")])
def test_a_holdout_outside_the_unit_interval_is_refused(workspace: Workspace, holdout: float) -> None:
    with pytest.raises(BadUsage, match="holdout"):
        snapshots.cut(workspace, "hh", holdout=holdout)


def test_an_unknown_source_is_refused_with_the_nearest(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(0), "a", source="hh_harmless")])
    with pytest.raises(NotFound, match="nearest: 'hh_harmless'"):
        snapshots.cut(workspace, "hh", sources=["hh_harmles"])
    with pytest.raises(BadUsage, match="unknown kind"):
        snapshots.cut(workspace, "hh", kinds=["robot"])


def test_a_cut_is_in_the_audit_log_with_its_digest(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(0), "a")])
    made = snapshots.cut(workspace, "hh")
    with workspace.read() as connection:
        (entry,) = audit.entries(connection, action="snapshot.cut")
    assert (entry["actor"], entry["subject"], entry["details"]["digest"]) == ("tester", "hh@1", made.digest)


def test_the_card_says_what_is_in_it_and_marks_simulated_data_first(workspace: Workspace) -> None:
    for labeler in ("w0", "w1"):
        said = {"labeler": labeler, "kind": "simulated", "cohort": "x|y"}
        put(workspace, [judged(pair_of(i), "ab"[i % 3 == 0], **said) for i in range(6)])
    card = snapshots.cut(workspace, "sim").card
    assert "SIMULATED" in "".join(card.splitlines()[:4])
    for said in ("## Motivation", "## Composition", "## Consent", "alpha (nominal) is 1.000", "2 labelers", r"x\|y"):
        assert said in card
    put(workspace, [judged(pair_of(9), "a", source="people")])
    assert "SIMULATED" not in snapshots.cut(workspace, "real", sources=["people"]).card


def test_more_rows_than_a_shard_go_into_several(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlhf.snapshots import rows

    put(workspace, [judged(pair_of(i), "a") for i in range(25)])
    whole = snapshots.cut(workspace, "whole")
    monkeypatch.setattr(rows, "SHARD_ROWS", 10)
    monkeypatch.setattr(rows, "_GROUP_ROWS", 4)
    made = snapshots.cut(workspace, "cut")
    assert [p.name for p in made.shards] == ["rows-00000.parquet", "rows-00001.parquet", "rows-00002.parquet"]
    assert made.digest == whole.digest and list(made.rows()) == list(whole.rows())


def test_the_manifest_counts_are_those_of_the_rows(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a", labeler=f"w{i % 4}") for i in range(10)] + [judged(pair_of(0), "tie")])
    made = snapshots.cut(workspace, "hh")
    manifest = json.loads((made.path / "manifest.json").read_text())
    assert manifest["schema_version"] == 1 and manifest["digest"] == made.digest
    assert manifest["choices"] == {"a": 10, "tie": 1} and manifest["votes_per_pair"] == {"1": 9, "2": 1}
    assert manifest["labelers"] == {"known": 4, "judgements_of_unknown": 1}


def test_the_manifest_counts_pairs_judgements_and_labelers_of_each_source(workspace: Workspace) -> None:
    hh = [judged(pair_of(i), "a", source="hh") for i in range(4)]
    survey = [judged(pair_of(i), "b", source="survey", labeler=f"w{i % 2}") for i in range(3, 6)]
    put(workspace, [*hh, *survey, judged(pair_of(3), "a", source="survey", labeler="w0")])
    manifest = snapshots.cut(workspace, "both").manifest
    assert manifest["by_source"] == {
        "hh": {"pairs": 4, "judgements": 4, "labelers": 0, "judgements_of_unknown": 4},
        "survey": {"pairs": 3, "judgements": 4, "labelers": 2, "judgements_of_unknown": 0},
    }
    assert {source: n["pairs"] for source, n in manifest["by_source"].items()} == manifest["sources"]
    assert snapshots.cut(workspace, "one", sources=["hh"]).manifest["by_source"].keys() == {"hh"}


def test_pairs_without_a_user_turn_have_a_group_too(workspace: Workspace) -> None:
    put(workspace, [judged(Pair.of((), f"x{i}", f"y{i}"), "a") for i in range(20)])
    assert snapshots.cut(workspace, "bare", holdout=0.5).splits["test"] not in (0, 20)
