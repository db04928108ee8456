"""Drift of what is served against the snapshot: found with its slice, put on the board, and able to pause a rollout."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import served
from command_line import CommandLine
from preferences import WORDS, cut_polite
from served import ALIAS, shown, started
from sqlalchemy import insert

from rlhf import board
from rlhf.errors import NotFound
from rlhf.ids import clock_at, now
from rlhf.serving import drift, rollouts
from rlhf.store import Workspace
from rlhf.store.tables import judgements


@pytest.fixture
def four(workspace: Workspace, tmp_path: Path) -> Workspace:
    served.with_versions(workspace, tmp_path)
    cut_polite(workspace, tmp_path, 200)
    return workspace


@pytest.fixture
def rlhf(four: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(four.root, capsys, monkeypatch)


def test_replies_like_the_snapshot_raise_no_alarm(four: Workspace, rlhf: CommandLine) -> None:
    shown(four, 300)
    told = rlhf.json("drift", "polite", "--alias", ALIAS)
    assert (told["snapshot"], told["alias"], told["n"], told["alarm"]) == ("polite@1", ALIAS, 300, False)
    by_name = {one["name"]: one for one in told["features"]}
    assert set(by_name) == {*drift.NUMBERS, *drift.WORDS, "reward", "agreement"}
    assert {"effect", "low", "high", "n_reference", "n_window", "p", "q", "psi", "distance", "why"} <= by_name[
        "prompt_chars"
    ].keys()
    assert by_name["reward"]["n_reference"] == 0 and "too few" in by_name["reward"]["why"]
    assert told["item"] is None and not board.list_items(four), "nothing was put on the board"
    assert "chance does as much" in rlhf("drift", "polite", "--alias", ALIAS).out


def test_an_alarm_opens_one_item_with_slice_and_examples_and_no_words(four: Workspace, rlhf: CommandLine) -> None:
    shown(four, 400, long_turns=True)
    told = rlhf.json("drift", "polite", "--alias", ALIAS)
    assert told["alarm"] and {one["name"] for one in told["features"] if one["alarm"]} >= {"prompt_words"}
    longer = [one for one in told["slices"] if one["feature"] == "prompt_chars"]
    assert longer and (longer[0]["by"], longer[0]["value"], longer[0]["n"]) == ("conversation", "later turn", 80)
    assert longer[0]["effect"] > 1.5 and all(int(one[1:]) % 5 == 0 for one in longer[0]["examples"])
    (item,) = board.list_items(four)
    assert (item.id, item.kind, item.channel, item.status, item.rule) == (told["item"], "bug", "drift", "new", "drift")
    assert item.text and "later turn" in item.text and longer[0]["examples"][0] in item.text and ALIAS in item.text
    assert not any(word in item.text for word in WORDS), "nobody's words"
    assert rlhf.json("drift", "polite", "--alias", ALIAS)["item"] == item.id, "the same replies open none anew"
    assert "is on the board" in rlhf("drift", "polite", "--alias", ALIAS).out and len(board.list_items(four)) == 1


def test_an_alarm_can_pause_a_rollout_and_a_person_can_go_past_it(four: Workspace, rlhf: CommandLine) -> None:
    started(four, "ab")
    shown(four, 300, length_chars=2000, reply="word " * 400)
    ask = ("drift", "polite", "--alias", ALIAS, "--pause")
    assert rlhf.json("drift", "polite", "--alias", ALIAS)["paused"] is None, "unless it was asked for"
    told = rlhf.json(*ask)
    assert told["paused"] == rollouts.status(four, ALIAS).id and rollouts.status(four, ALIAS).status == "paused"
    assert rollouts.status(four, ALIAS).fired == ("drift",) and "drift of" in rollouts.status(four, ALIAS).why
    assert rlhf.json(*ask)["not_paused"] == "the rollout is paused already"
    rlhf.json("rollout", "advance", ALIAS, "--why", "we wanted longer replies")
    assert "resumed it past" in rlhf.json(*ask)["not_paused"] and rollouts.status(four, ALIAS).status == "running"
    rlhf.json("rollout", "rollback", ALIAS, "--why", "done")
    assert rlhf.json(*ask)["not_paused"] == "no rollout is in force"


def test_rewards_are_held_against_the_replies_before(four: Workspace) -> None:
    with clock_at(now().timestamp() - 1000):
        shown(four, 300, tag="old")
    shown(four, 200, seed=1, reward=-2.5)
    found = drift.look(four, "polite", ALIAS, last=200)
    assert [shift.name for shift in found.alarms] == ["reward"] and found.alarms[0].n_reference == 300
    assert drift.look(four, "polite", ALIAS, last=500).alarms == (), "all of them together have none before"


def also(row: Any, k: int, choice: str, tag: str) -> dict[str, Any]:
    """The same pair judged by somebody else."""
    own = {field: f"{tag}{k}{row._mapping[field][3:]}" for field in ("id", "once", "digest")}
    return {**row._mapping, **own, "labeler": f"l{k}", "choice": choice}


def test_labelers_who_agree_no_more_are_found(four: Workspace) -> None:
    """Three judge each pair of the snapshot alike; of those who came after it was cut each says what they like."""
    from rlhf import snapshots

    chance = random.Random(3)
    with four.write() as write:
        rows = write.connection.execute(judgements.select()).all()

        more = [also(row, k, row.choice, "aa") for row in rows for k in range(2)]
        write.connection.execute(insert(judgements), more)
    snapshots.cut(four, "polite", holdout=0.2)
    later = now().isoformat(timespec="microseconds")
    with four.write() as write:
        fresh = [{**also(row, k, chance.choice("ab"), "bb"), "created_at": later} for row in rows for k in range(3)]
        write.connection.execute(insert(judgements), fresh)
    shown(four, 200)
    found = drift.look(four, "polite@2", ALIAS)
    assert [shift.name for shift in found.alarms] == ["agreement"]
    assert found.alarms[0].effect is not None and found.alarms[0].effect < -0.5


def test_words_that_nobody_let_be_kept_are_not_needed(four: Workspace) -> None:
    shown(four, 200, prompt=None, reply=None, length_chars=2000)
    found = drift.look(four, "polite", ALIAS)
    assert [shift.name for shift in found.alarms] == ["reply_chars"]
    assert all(shift.n_window == 0 for shift in found.shifts if shift.name.startswith("prompt"))


def test_what_is_not_there_is_said(four: Workspace) -> None:
    with pytest.raises(NotFound, match="nothing was served"):
        drift.look(four, "polite", ALIAS)
    with pytest.raises(NotFound, match="no alias"):
        drift.look(four, "polite", "hh@beta")
    with pytest.raises(NotFound):
        drift.look(four, "none", ALIAS)
