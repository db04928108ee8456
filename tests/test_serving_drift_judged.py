"""A judge reads replies of the snapshot and served ones: its points can be held against the snapshot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from preferences import cut_polite
from served import ALIAS, shown
from serving_made import digest_named

from rlhf import board
from rlhf.errors import BadInput, NotFound
from rlhf.serving import drift, drift_judged
from rlhf.store import Workspace


@pytest.fixture
def judged(to_serve: Workspace, tmp_path: Path) -> Workspace:
    cut_polite(to_serve, tmp_path, 120)
    return to_serve


def feature(told: dict[str, Any]) -> dict[str, Any]:
    (one,) = [one for one in told["features"] if one["name"] == "judged_reward"]
    return dict(one)


def test_replies_like_the_snapshots_get_the_points_of_its_replies(
    judged: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown(judged, 150)
    rlhf = CommandLine(judged.root, capsys, monkeypatch)
    found = feature(rlhf.json("drift", "polite", "--alias", ALIAS, "--judge", "judge@1"))
    assert not found["alarm"] and (found["n_reference"], found["n_window"]) == (240, 150)
    assert found["low"] is not None and found["low"] < found["effect"] < found["high"]
    assert "judged_reward" in rlhf("drift", "polite", "--alias", ALIAS, "--judge", "judge@1").out


def test_points_that_the_judge_gave_while_serving_are_taken_and_an_alarm_names_those_replies(
    judged: Workspace,
) -> None:
    """Words that weren't kept can't be read now; another's points and the same judge's are told apart by its digest."""
    by_judge = {"reason": {"judge": digest_named(judged, "judge@1")}, "prompt": None, "reply": None}
    shown(judged, 80, seed=1, tag="other", reason={"judge": "f" * 64}, prompt=None, reply=None, reward=900.0)
    shown(judged, 80, tag="ours", reward=-40.0, **by_judge)
    found = drift.look(judged, "polite", ALIAS, judge="judge@1")
    (shift,) = [one for one in found.alarms if one.name == "judged_reward"]
    assert shift.n_window == 80 and shift.effect is not None and shift.effect < -3
    (part,) = [one for one in found.slices if one.feature == "judged_reward"]
    assert part.n == 80 and all(one.startswith("ours") for one in part.examples)
    (item,) = board.list_items(judged)
    assert item.text is not None and "judged_reward" in item.text


def test_so_many_are_read_and_no_more(judged: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_judged, "PAIRS", 60)
    monkeypatch.setattr(drift_judged, "REPLIES", 70)
    shown(judged, 90)
    shown(judged, 20, seed=1, tag="empty", reply=" ")
    shift = next(
        one for one in drift.look(judged, "polite", ALIAS, judge="judge@1").shifts if one.name == "judged_reward"
    )
    assert (shift.n_reference, shift.n_window) == (120, 70)


def test_a_judge_must_be_a_reward_that_is_there(judged: Workspace) -> None:
    shown(judged, 10)
    with pytest.raises(NotFound, match="judge@9"):
        drift.look(judged, "polite", ALIAS, judge="judge@9")
    with pytest.raises(BadInput, match="wanted a reward"):
        drift.look(judged, "polite", ALIAS, judge="a@1")
    assert "judged_reward" not in json.dumps(drift.look(judged, "polite", ALIAS).as_json())
