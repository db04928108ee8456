"""Rollouts: one entry a step, the alias moves once, and whatever else moves it ends them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adapter_folders as made
import pytest
import served
from served import ALIAS, started

from rlhf.errors import BadInput, BadUsage, Conflict, Damaged, NotFound
from rlhf.people.roles import PERMISSIONS
from rlhf.registry import GateRules, aliases, gates, open_version, retire
from rlhf.serving import log, rollouts
from rlhf.store import Workspace, audit

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def four(workspace: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    yield served.with_versions(workspace, tmp_path)


def test_a_canary_climbs_to_100_percent_and_then_the_alias_moves(four: Workspace) -> None:
    now = started(four)
    assert (now.status, now.allocation.weights) == ("running", {"control": 9900, "b": 100})
    shares = [1.0]
    while shares[-1] < 100:
        now = rollouts.advance(four, ALIAS, why="looks good")
        shares.append(now.allocation.weights["b"] / 100)
    assert shares == [1, 5, 10, 25, 50, 100]
    assert str(aliases.current(four, ALIAS)) == "hh@1", "the alias stands until the end"
    done = rollouts.complete(four, ALIAS, why="proved")
    assert done.status == "completed" and str(aliases.current(four, ALIAS)) == "hh@2"
    last = aliases.history(four, ALIAS)[-1]
    assert last.evidence == {"rollout": done.id, "arm": "b"} and last.action == "set"


def test_each_step_is_an_entry_with_an_audit_entry_that_names_its_actor(four: Workspace) -> None:
    ann = four.as_actor("ann")
    rollout = started(ann)
    rollouts.advance(ann, ALIAS, why="up")
    rollouts.pause(four.as_actor("ben"), ALIAS, why="lunch")
    rollouts.advance(ann, ALIAS, why="back")
    rollouts.roll_back(ann, ALIAS, why="no")
    with four.read() as connection:
        kinds = [(e["kind"], e["status"], e["who"]) for e in log.entries(connection, rollout.id)]
        said = [e for e in audit.entries(connection, subject=ALIAS) if e["action"].startswith("rollout.")]
        audit.verify(connection)
    assert kinds == [
        ("start", "running", "ann"),
        ("advance", "running", "ann"),
        ("pause", "paused", "ben"),
        ("resume", "running", "ann"),
        ("roll_back", "rolled_back", "ann"),
    ]
    assert [(e["action"], e["actor"]) for e in said] == [(f"rollout.{k}", who) for k, _, who in kinds]
    assert said[1]["details"]["weights"] == {"control": 9500, "b": 500}


def test_a_pending_rollout_serves_nobody_until_it_is_advanced(four: Workspace) -> None:
    now = rollouts.start(four, ALIAS, served.settings("ab", "hh@2"), why="later", pending=True)
    assert (now.status, now.allocation.weights) == ("pending", {"control": 10_000})
    assert rollouts.advance(four, ALIAS, why="now").allocation.weights == {"control": 5000, "b": 5000}


def test_a_rollback_of_a_running_rollout_moves_no_alias(four: Workspace) -> None:
    started(four)
    before = aliases.history(four, ALIAS)
    back = rollouts.roll_back(four, ALIAS, why="bad")
    assert (back.status, back.allocation.weights, aliases.history(four, ALIAS)) == (
        "rolled_back",
        {"control": 10_000},
        before,
    )
    with pytest.raises(Conflict, match="rolled_back: tester, bad"):
        rollouts.advance(four, ALIAS, why="x")


def test_a_rollback_after_completion_is_the_aliass(four: Workspace) -> None:
    started(four, ramp=[{"share": 100}])
    rollouts.complete(four, ALIAS, why="good")
    rollouts.roll_back(four, ALIAS, why="bad after all")
    assert str(aliases.current(four, ALIAS)) == "hh@1" and aliases.history(four, ALIAS)[-1].action == "rollback"
    with pytest.raises(Conflict):
        rollouts.roll_back(four, ALIAS, why="again")


def test_whatever_else_moves_the_alias_ends_its_rollout_without_another_append(four: Workspace) -> None:
    aliases.move(four, ALIAS, "hh@3", why="up")
    one = started(four)
    aliases.roll_back(four, ALIAS, why="all of it is bad")
    ended = rollouts.status(four, one.id)
    assert (ended.status, ended.why, ended.seq) == ("rolled_back", "all of it is bad", 1)
    other = started(four)
    aliases.move(four, ALIAS, "hh@4", why="another way")
    assert rollouts.status(four, other.id).status == "superseded" and rollouts.in_force(four) == ()
    with pytest.raises(Conflict, match="superseded"):
        rollouts.pause(four, ALIAS, why="x")


def test_completion_asks_the_aliass_gate(four: Workspace) -> None:
    gates.set_gate(four, ALIAS, GateRules(signoffs=("evaluator",), report="evaluation"), "signed first")
    started(four, ramp=[{"share": 100}])
    with pytest.raises(Conflict):
        rollouts.complete(four, ALIAS, why="good")
    assert rollouts.status(four, ALIAS).status == "running" and str(aliases.current(four, ALIAS)) == "hh@1"


def test_a_canary_below_100_percent_is_not_completed(four: Workspace) -> None:
    started(four)
    with pytest.raises(Conflict, match="at 1 %, wanted 100"):
        rollouts.complete(four, ALIAS, why="impatient")


def test_an_ab_test_ends_with_a_named_arm_or_with_the_control(four: Workspace) -> None:
    started(four, "ab", "hh@2", "hh@3")
    with pytest.raises(BadUsage, match="no arm is named") as refused:
        rollouts.complete(four, ALIAS, why="c won")
    assert "b, c, control" in refused.value.fix
    rollouts.complete(four, ALIAS, arm="c", why="c won")
    assert str(aliases.current(four, ALIAS)) == "hh@3"
    started(four, "ab", "hh@2")
    moves = len(aliases.history(four, ALIAS))
    assert rollouts.complete(four, ALIAS, arm="control", why="no difference").status == "completed"
    assert len(aliases.history(four, ALIAS)) == moves


def test_who_loses_a_race_is_told(four: Workspace) -> None:
    first = started(four)
    rollouts.advance(four, ALIAS, why="ann was first", expect=first.seq)
    with pytest.raises(Conflict, match="changed meanwhile"):
        rollouts.advance(four, ALIAS, why="ben is late", expect=first.seq)
    assert rollouts.status(four, ALIAS).stage == 1


def test_one_rollout_an_alias(four: Workspace) -> None:
    started(four)
    with pytest.raises(Conflict, match="has a rollout already"):
        started(four, "ab", "hh@3")


def test_what_cannot_be_an_arm_is_refused(four: Workspace, tmp_path: Path) -> None:
    made.published(four, tmp_path, 20, "other", head=False)
    made.published(four, tmp_path, 21, "hh")
    retire(four, "hh@3")
    (open_version(four, "hh@4").folder / "adapter_config.json").write_text("{}")
    for version, error, said in (
        ("hh@1", BadInput, "b and control are both hh@1"),
        ("hh@3", BadInput, "retired"),
        ("hh@4", Damaged, "was changed"),
        ("hh@5", BadInput, "hh@5 is a reward"),
        ("hh@9", NotFound, "no version hh@9"),
        ("other@1", BadInput, "not a version of hh"),
    ):
        with pytest.raises(error, match=said):
            started(four, "ab", version)
    with pytest.raises(NotFound):
        rollouts.start(four, "hh@beta", served.settings("ab", "hh@2"), why="x")
    assert rollouts.in_force(four) == ()


def test_settings_are_refused_with_everything_that_is_wrong() -> None:
    bad: dict[str, Any] = {
        "ramp": [{"share": 50}, {"share": 5}],
        "toggles": {"staff": "zebra"},
        "audience": {"field": "x", "like": 1},
        "floor": 0.7,
    }
    with pytest.raises(ValueError) as refused:
        served.settings("canary", "hh@2", "hh@3", **bad)
    assert all(word in str(refused.value) for word in ("like is no operator", "floor"))
    del bad["audience"], bad["floor"]
    with pytest.raises(ValueError) as refused:
        served.settings("canary", "hh@2", "hh@3", **bad)
    assert all(word in str(refused.value) for word in ("canary has one, here are 2", "wanted it to rise", "zebra"))


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ({"b": {"version": "hh@2", "share": 70}, "c": {"version": "hh@3", "share": 40}}, "shares of 110 %"),
        ({"b": {"version": "hh@2", "share": 100}}, "leave the control none"),
        ({"control": {"version": "hh@2", "share": 100}}, "has what the others' shares leave"),
    ],
)
def test_shares_that_cannot_be_are_refused(arms: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        served.settings("ab", arms=arms)


def test_arms_may_have_everything_where_nothing_is_compared_with_the_control(four: Workspace) -> None:
    now = started(four, "ab", arms={"b": {"version": "hh@2", "share": 100}}, guards=[])
    assert now.allocation.weights == {"b": 10_000}


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"control": 10_000, "b": 0}, "control would have 100 %"),
        ({"control": 9_000, "b": 2_000}, "shares of 110 %"),
        ({"control": 11_000, "b": -1_000}, "the least -10 %"),
        ({"control": 10_000}, "weights for control"),
    ],
)
def test_a_bandits_shares_that_cannot_be_are_refused(four: Workspace, weights: dict[str, int], said: str) -> None:
    one = started(four, "bandit")
    with pytest.raises(BadInput, match=said):
        rollouts.weigh(four, ALIAS, weights, why="drawn")
    assert rollouts.status(four, ALIAS) == one


def test_a_signal_that_was_resumed_past_is_remembered(four: Workspace) -> None:
    started(four)
    paused = rollouts.pause(four, ALIAS, why="slow", fired=("latency higher of b",))
    assert paused.fired == ("latency higher of b",) and paused.serves
    resumed = rollouts.advance(four, ALIAS, why="it is the disk")
    assert (resumed.status, resumed.stage, resumed.fired, resumed.signals) == (
        "running",
        0,
        (),
        ("latency higher of b",),
    )


def test_a_door_asks_for_permissions_that_exist() -> None:
    assert set(rollouts.PERMISSION_OF.values()) <= set(PERMISSIONS)


def test_a_rollout_is_found_by_its_alias_or_its_id(four: Workspace) -> None:
    one = started(four)
    assert rollouts.status(four, one.id[:20]) == rollouts.status(four, ALIAS) == one
    for which, error in (("abc", BadUsage), ("zzzzzz", NotFound), ("hh@beta", NotFound)):
        with pytest.raises(error):
            rollouts.status(four, which)
