"""How a canary went, as a gate hears of it: from the rollout's log, from what was served, and from the guards as they judge now."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import served
from served import ALIAS, started

from rlhf.errors import Conflict
from rlhf.ids import clock_at, now
from rlhf.registry import GateRules, aliases, decisions, gates, resolve, retire
from rlhf.serving import Recorder, Router, rollouts, tend, trial_of
from rlhf.serving.log import Rollout
from rlhf.store import Workspace

HOUR = 3600.0
DAY_GATE = GateRules(canary="24h")


@pytest.fixture
def four(either: Workspace, tmp_path: Path) -> Workspace:
    return served.with_versions(either, tmp_path)


def good(arm: str, _: random.Random) -> dict[str, Any]:
    return {"status": "ok", "latency_s": 0.3}


def bad(arm: str, chance: random.Random) -> dict[str, Any]:
    return {"status": "error" if arm == "b" and chance.random() < 0.8 else "ok", "latency_s": 0.3}


def asked(workspace: Workspace, reply: Any, n: int = 60, **more: Any) -> None:
    router, recorder = Router(workspace, follow=False), Recorder(workspace)
    served.serve(workspace, router, n, reply, **more)
    recorder.close()
    router.close()


def canary(workspace: Workspace) -> Rollout:
    return started(workspace, "canary", "hh@2", ramp=[{"share": 50}, {"share": 100}])


def trial(workspace: Workspace, version: str = "hh@2") -> Any:
    with workspace.read() as connection:
        return trial_of(connection, ALIAS, resolve(workspace, version).digest)


def test_a_version_that_was_no_arm_has_no_trial(four: Workspace) -> None:
    canary(four)
    assert trial(four, "hh@3") is None and trial(four, "hh@1") is None, "the control is no trial"


def test_hours_are_those_that_it_ran_and_pauses_are_left_out(four: Workspace) -> None:
    start = now().timestamp()
    with clock_at(start):
        canary(four)
    with clock_at(start + 3 * HOUR):
        rollouts.pause(four, ALIAS, why="lunch")
    with clock_at(start + 10 * HOUR):
        assert trial(four).hours == pytest.approx(3)
        rollouts.advance(four, ALIAS, why="on")
    with clock_at(start + 12 * HOUR):
        asked(four, good)
        found = trial(four)
    assert found.hours == pytest.approx(5) and found.arm == "b" and not found.harm and not found.ended
    assert 0 < found.n_replies == found.n_units < 60


def test_a_rollout_completes_only_after_the_canary_that_its_gate_wants(four: Workspace) -> None:
    gates.set_gate(four, ALIAS, DAY_GATE, "a day first")
    start = now().timestamp()
    with clock_at(start):
        canary(four)
        asked(four, good)
        rollouts.advance(four, ALIAS, why="all")
        with pytest.raises(Conflict, match="has run for 0 h with hh@2, wanted 24h"):
            rollouts.complete(four, ALIAS, why="impatient")
    assert rollouts.status(four, ALIAS).status == "running" and str(aliases.current(four, ALIAS)) == "hh@1"
    with clock_at(start + 25 * HOUR):
        rollouts.complete(four.as_actor("ops"), ALIAS, why="a day without harm")
    one = decisions.list_decisions(four)[-1].decision
    assert (one.kind, one.who, one.content["canary"]["hours"]) == ("promotion", "ops", pytest.approx(25))
    assert one.content["evidence"]["rollout"] == one.content["canary"]["rollout"]
    assert one.content["gate"]["results"][0]["met"]


def test_the_end_of_a_ramp_is_recorded_in_the_name_of_who_ended_it(four: Workspace) -> None:
    started(four, "canary", "hh@2", ramp=[{"share": 100, "hours": 1}], complete="auto")
    with clock_at(now().timestamp() + 2 * HOUR):
        (deed,) = tend(four)
    assert deed.what == "complete"
    one = decisions.list_decisions(four)[-1].decision
    assert (one.kind, one.who, one.to_digest) == ("promotion", "guardrails", resolve(four, "hh@2").digest)


def test_harm_that_nobody_has_tended_yet_keeps_the_gate_shut(four: Workspace) -> None:
    gates.set_gate(four, ALIAS, DAY_GATE, "a day first")
    canary(four)
    asked(four, bad, 400)
    with clock_at(now().timestamp() + 30 * HOUR):
        assert "harm is shown: error_rate higher of b" in trial(four).harm
        with pytest.raises(Conflict, match="can't speak for hh@2: harm is shown"):
            aliases.move(four, ALIAS, "hh@2", why="x", trials=trial_of)


def test_what_answered_nobody_and_what_was_taken_back_proves_nothing(four: Workspace) -> None:
    gates.set_gate(four, ALIAS, DAY_GATE, "a day first")
    canary(four)
    later = now().timestamp() + 30 * HOUR
    with clock_at(later), pytest.raises(Conflict, match="hh@2 answered nobody in it"):
        aliases.move(four, ALIAS, "hh@2", why="x", trials=trial_of)
    asked(four, good)
    rollouts.roll_back(four, ALIAS, why="a hunch")
    with clock_at(later), pytest.raises(Conflict, match=r"is rolled_back \(tester: a hunch\)"):
        aliases.move(four, ALIAS, "hh@2", why="x", trials=trial_of)


def test_a_shadow_is_seen_by_nobody_and_is_no_canary(four: Workspace) -> None:
    gates.set_gate(four, ALIAS, DAY_GATE, "a day first")
    started(four, "shadow", "hh@2")
    asked(four, good)
    with clock_at(now().timestamp() + 30 * HOUR):
        assert trial(four).n_replies == 0
        assert "answered nobody" in gates.check(four, ALIAS, "hh@2", trials=trial_of).reasons[0]


def test_rollbacks_of_rollouts_and_aliases_leave_their_decisions(four: Workspace) -> None:
    canary(four)
    rollouts.advance(four, ALIAS, why="all")
    rollouts.complete(four, ALIAS, why="good")
    rollouts.roll_back(four, ALIAS, why="not so good")
    retire(four, "hh@2", why="harm")
    kinds = [(one.decision.kind, one.decision.why) for one in decisions.list_decisions(four)]
    assert kinds == [("promotion", "first"), ("promotion", "good"), ("rollback", "not so good"), ("retirement", "harm")]
    assert decisions.list_decisions(four)[-2].decision.takes_back == 2
