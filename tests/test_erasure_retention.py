"""Limits of retention: what is over its source's time goes from everywhere, and nothing else does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine
from test_erasure_steps import holding

from rlhf import erasure, feedback, snapshots
from rlhf.errors import BadInput, NotFound
from rlhf.ids import clock_at
from rlhf.records import PAGE_SOURCE, Judgement
from rlhf.snapshots.opening import Erased
from rlhf.store import Workspace, audit

DAY = 86_400.0
BEGAN = 1_800_000_000.0


def row(word: str) -> dict[str, str]:
    return {"prompt": f"Where does the {word} nest in winter?", "chosen": f"A {word} flies south.", "rejected": "No."}


def take_in(workspace: Workspace, folder: Path, source: str, *rows: dict[str, object] | dict[str, str]) -> None:
    file = folder / f"{source}.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    feedback.import_files(workspace, [file], source=source)


@pytest.fixture
def aged(workspace: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    """Two sources on day 0, of which `short` has one pair that `long` has too, and `short` again on day 20; it is day 31."""
    with clock_at(BEGAN):
        take_in(workspace, tmp_path, "short", row("quillowbird"), row("sharedfinch"))
        take_in(workspace, tmp_path, "long", row("sharedfinch"), row("longwing"))
        thumb = {"prompt": "Name a tree.", "reply": "The ombrewillow.", "user": "u1", "thumb": "up", "comment": "nice"}
        take_in(workspace, tmp_path, "thumbs", thumb)
    with clock_at(BEGAN + 20 * DAY):
        (tmp_path / "late.jsonl").write_text(json.dumps(row("latecrow")) + "\n")
        feedback.import_files(workspace, [tmp_path / "late.jsonl"], source="short")
    with clock_at(BEGAN + 31 * DAY):
        yield workspace


def test_what_is_over_its_limit_is_in_no_file_and_the_rest_stays(aged: Workspace) -> None:
    snapshots.cut(aged, "birds", holdout=0.0)
    feedback.export(aged, aged.root / "exported.jsonl")
    pair_id = feedback.list_pairs(aged, source="short", limit=9)[-1].id
    feedback.judge(aged, Judgement(pair_id, "a", PAGE_SOURCE, labeler="ann"))  # a judgement on the page keeps nothing
    for source in ("short", "thumbs"):
        erasure.set_limit(aged, source, 30, why="the notice says a month")
    over = erasure.expired(aged)
    assert (len(over.pair_ids), len(over.comments)) == (1, 1)

    done = erasure.expire(aged)

    assert done is not None and done.is_out_of_free_pages
    assert (done.counts["pairs"], done.counts["comments"], done.rows) == (1, 1, {"birds@1": 1})
    assert holding(aged.root, "quillowbird", "ombrewillow") == []
    assert all(holding(aged.root, word) for word in ("sharedfinch", "longwing", "latecrow"))
    with pytest.raises(Erased):
        list(snapshots.open_snapshot(aged, "birds").rows())
    assert snapshots.cut(aged, "birds", holdout=0.0).n_pairs == 3
    assert erasure.expire(aged) is None  # and that was all


def test_what_expired_does_not_come_back_by_an_import(aged: Workspace, tmp_path: Path) -> None:
    erasure.set_limit(aged, "short", 30, why="the notice says a month")
    erasure.expire(aged)
    (tmp_path / "again.jsonl").write_text(json.dumps(row("quillowbird")) + "\n")
    receipt = feedback.import_files(aged, [tmp_path / "again.jsonl"], source="short")
    assert (receipt.accepted, receipt.rejected) == (0, 1)


def test_a_pair_goes_when_the_last_of_its_sources_is_over(aged: Workspace) -> None:
    erasure.set_limit(aged, "short", 30, why="a month")
    erasure.expire(aged)
    assert holding(aged.root, "sharedfinch")
    erasure.set_limit(aged, "long", 30, why="a month")
    erasure.expire(aged)
    assert not holding(aged.root, "sharedfinch", "longwing")


def test_an_expiry_that_was_killed_goes_on(aged: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    erasure.set_limit(aged, "short", 30, why="a month")
    with monkeypatch.context() as patch:
        patch.setattr("rlhf.erasure.steps.scrub", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            erasure.expire(aged)
    assert holding(aged.root, "quillowbird")
    assert erasure.expire(aged) is not None
    assert not holding(aged.root, "quillowbird")


def test_a_limit_is_a_log_and_the_last_entry_holds(aged: Workspace) -> None:
    erasure.set_limit(aged, "short", 7, why="first")
    erasure.set_limit(aged, "short", 40, why="longer")
    assert [(limit.source, limit.days, limit.why) for limit in erasure.limits(aged)] == [("short", 40, "longer")]
    assert erasure.expire(aged) is None
    erasure.set_limit(aged, "short", None, why="agreed otherwise")
    assert erasure.limits(aged) == []
    with aged.read() as connection:
        assert len(audit.entries(connection, action="feedback.retain")) == 3


def test_a_limit_that_can_not_be_is_refused(aged: Workspace) -> None:
    with pytest.raises(NotFound, match="nothing here came"):
        erasure.set_limit(aged, "nobody", 30, why="a month")
    for days in (0, -3, 10**6):
        with pytest.raises(BadInput, match="no limit"):
            erasure.set_limit(aged, "short", days, why="a month")
    with pytest.raises(BadInput, match="why"):
        erasure.set_limit(aged, "short", 30, why=" ")
    with pytest.raises(BadInput, match="goes with its pair"):
        erasure.set_limit(aged, PAGE_SOURCE, 30, why="a month")


def test_the_command_line_limits_shows_and_expires(rlhf: CommandLine) -> None:
    source = next(iter(rlhf("feedback", "list", "--json").value["sources"]))
    assert rlhf("feedback", "retain", "--json").value == {"limits": []}
    assert rlhf("feedback", "retain", source, "ten", "--why", "x").status == 2
    assert rlhf("feedback", "retain", source, "30").status == 1
    (limit,) = rlhf("feedback", "retain", source, "30", "--why", "a month", "--json").value["limits"]
    assert (limit["source"], limit["days"], limit["why"]) == (source, 30, "a month")
    assert rlhf("feedback", "expire", "--dry-run", "--json").value["pairs"] == 0
    assert rlhf("feedback", "expire").out == "nothing is over its limit\n"
