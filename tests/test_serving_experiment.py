"""A rollout as an experiment: shares first, then differences by user, less their past; and its command."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import served
from command_line import CommandLine
from served import ALIAS, started
from sqlalchemy import insert

from rlhf.errors import BadUsage, Conflict, NotFound
from rlhf.ids import clock_at, now, now_text
from rlhf.serving import Router, experiment, pseudonym, rollouts
from rlhf.serving.exposures import _exposure_row
from rlhf.store import Workspace
from rlhf.store.tables import exposures, outcomes


@pytest.fixture
def four(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Its key and the rollouts' salts are always the same, so that the same users get the same arms in each run."""
    workspace.key = "0" * 64
    return served.with_versions(workspace, tmp_path)


@pytest.fixture
def rlhf(four: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(four.root, capsys, monkeypatch)


Measure = Callable[[int, str, random.Random], Mapping[str, Any]]


def visit(workspace: Workspace, users: int, times: int, measure: Measure, *, seed: int = 0, tag: str = "r") -> None:
    """Every user asks `times` times; what the reply measures may depend on the user. A `thumb` becomes an outcome."""
    router, chance = Router(workspace, follow=False), random.Random(seed)
    rows, told = [], []
    for turn in range(times):
        for user in range(users):
            route = router.resolve(ALIAS, pseudonym(workspace, f"user-{user}"))
            measured = dict(measure(user, route.arm or "none", chance))
            thumb = measured.pop("thumb", None)
            request = f"{tag}{turn}-{user}"
            rows.append(_exposure_row(route.exposure(request, at=now().isoformat(timespec="microseconds"), **measured)))
            if thumb is not None:
                row = {"id": f"o{request}", "request_id": request, "at": now_text(), "kind": "thumb", "name": "thumb"}
                told.append({**row, "value": float(thumb), "state": "quarantined"})
    router.close()
    with workspace.write() as write:
        write.connection.execute(insert(exposures), rows)
        if told:
            write.connection.execute(insert(outcomes), told)


def taste(user: int) -> float:
    return random.Random(user).gauss(0, 1)


def felt(user: int, chance: random.Random) -> float:
    """Never the same twice: where the past told all, nothing would be left to vary."""
    return taste(user) + chance.gauss(0, 0.3)


def test_a_difference_is_found_and_swapped_arms_mirror_it(four: Workspace) -> None:
    """The same users, once with b the better arm and once with control the better by as much."""
    started(four, "ab", salt="one")
    visit(four, 900, 1, lambda user, arm, chance: {"reward": felt(user, chance) + (0.5 if arm == "b" else 0)})
    (one,) = experiment.read(four, ALIAS, "reward").comparisons
    assert one.says == "better" and one.p is not None and one.p < 0.001 and one.looks == 18
    assert one.low is not None and one.high is not None and 0 < one.low < 0.5 < one.high
    assert sum(one.units.values()) == 900 == sum(one.n.values()) and one.with_past == 0 and one.mixed == 0
    rollouts.roll_back(four, ALIAS, why="again")
    started(four, "ab", salt="one")
    visit(
        four,
        900,
        1,
        lambda user, arm, chance: {"reward": felt(user, chance) + (0.5 if arm != "b" else 0)},
        seed=1,
        tag="s",
    )
    (other,) = experiment.read(four, ALIAS, "reward").comparisons
    assert other.says == "worse" and other.difference is not None and other.difference < 0
    assert other.low is not None and other.high is not None and other.low < -0.5 < other.high < 0


@pytest.mark.parametrize(("salt", "with_past"), [("one", 0), ("two", 900)])
def test_a_past_that_the_same_draw_made_is_left_out(four: Workspace, salt: str, with_past: int) -> None:
    """With one salt b's users are b's again: their past holds b's lead, which isn't to be taken off."""

    def lead(user: int, arm: str, chance: random.Random) -> Mapping[str, Any]:
        return {"reward": felt(user, chance) + (0.5 if arm == "b" else 0)}

    started(four, "ab", salt="one")
    visit(four, 900, 1, lead)
    rollouts.roll_back(four, ALIAS, why="again")
    started(four, "ab", salt=salt)
    visit(four, 900, 1, lead, seed=1, tag="s")
    (again,) = experiment.read(four, ALIAS, "reward").comparisons
    assert again.with_past == with_past and again.says == "better"
    assert again.low is not None and again.high is not None and again.low < 0.5 < again.high


def test_the_past_of_the_same_users_makes_the_interval_narrower(four: Workspace) -> None:
    visit(four, 500, 2, lambda user, arm, chance: {"reward": taste(user) + chance.gauss(0, 0.3)}, tag="before")
    started(four, "ab", salt="one")
    visit(four, 500, 2, lambda user, arm, chance: {"reward": taste(user) + chance.gauss(0, 0.3)}, seed=1)
    (with_past,) = experiment.read(four, ALIAS, "reward").comparisons
    assert with_past.with_past == 500 and with_past.variance_left is not None and with_past.variance_left < 0.2
    assert with_past.says == "not shown" and with_past.low is not None and with_past.high is not None
    with four.write() as write:
        write.connection.execute(exposures.delete().where(exposures.c.request_id.startswith("before")))
    (without,) = experiment.read(four, ALIAS, "reward").comparisons
    assert without.low is not None and without.high is not None and without.variance_left == 1.0
    assert with_past.high - with_past.low < 0.6 * (without.high - without.low)


def test_a_mismatch_blocks_the_verdict(four: Workspace, rlhf: CommandLine) -> None:
    """Replies of the arm b get lost for every third user: what is left is no random half."""
    started(four, "ab", salt="one")

    def reply(user: int, arm: str, chance: random.Random) -> Mapping[str, Any]:
        return {"reward": 5.0 if arm == "b" else 0.0}

    visit(four, 1500, 1, reply)
    lost = (exposures.c.arm == "b") & exposures.c.unit.regexp_match("^[01234]")
    with four.write() as write:
        write.connection.execute(exposures.delete().where(lost))
    told = rlhf.json("experiment", ALIAS, "--metric", "reward")
    assert told["blocked"] and told["mismatch"]["found"] and told["mismatch"]["chi_square_p"] < 1e-6
    (blocked,) = told["comparisons"]
    assert blocked["says"] == "blocked" and blocked["difference"] is blocked["p"] is None
    assert "MISMATCH" in rlhf("experiment", ALIAS, "--metric", "reward").out


def test_thumbs_are_compared_and_two_arms_share_alpha(four: Workspace, rlhf: CommandLine) -> None:
    started(four, "ab", "hh@2", "hh@3", salt="one")
    liked = {"b": 0.8, "c": 0.5, "control": 0.5}
    visit(four, 1200, 1, lambda user, arm, chance: {"thumb": chance.random() < liked[arm]})
    told = rlhf.json("experiment", ALIAS, "--effect", "0.05")
    assert not told["blocked"] and told["metric"] == "satisfaction" and told["planned_units"] == 5000
    b, c = told["comparisons"]
    assert (b["says"], c["says"]) == ("better", "not shown") and b["alpha"] == 0.025
    assert b["low"] < 0.3 < b["high"] and c["low"] < 0 < c["high"] and 2000 < c["wanted_units"] < 6000
    assert "better" in rlhf("experiment", ALIAS).out


def test_only_replies_since_the_shares_last_changed_are_compared(four: Workspace) -> None:
    """A ramp while rewards rise for everybody: pooled, the arm would look better for coming later (Simpson)."""
    started(four, salt="one", ramp=[{"share": 10}, {"share": 50}])
    visit(four, 800, 1, lambda user, arm, chance: {"reward": chance.gauss(0, 1)})
    rollouts.advance(four, ALIAS, why="next")
    visit(four, 800, 1, lambda user, arm, chance: {"reward": chance.gauss(3, 1)}, seed=1, tag="later")
    (found,) = experiment.read(four, ALIAS, "reward").comparisons
    assert sum(found.n.values()) == 800 and found.says == "not shown"
    assert found.difference is not None and abs(found.difference) < 0.3
    rollouts.pause(four, ALIAS, why="lunch")
    assert sum(experiment.read(four, ALIAS, "reward").comparisons[0].n.values()) == 800, "a pause changes no share"


def test_few_users_give_no_number(four: Workspace) -> None:
    started(four, "ab", salt="one")
    visit(four, 150, 3, lambda user, arm, chance: {"latency_s": chance.random()})
    (found,) = experiment.read(four, ALIAS, "latency").comparisons
    assert found.says == "too few" and found.difference is None and "wanted 100 of each" in found.why
    assert experiment.read(four, ALIAS, "satisfaction").comparisons[0].n == {"b": 0, "control": 0}


@pytest.mark.parametrize("kind", ["bandit", "shadow"])
def test_what_is_no_experiment_says_what_to_ask_instead(four: Workspace, kind: str) -> None:
    started(four, kind)
    with pytest.raises(Conflict) as refused:
        experiment.read(four, ALIAS)
    assert kind in refused.value.message and "rlhf" in refused.value.fix


def test_wrong_words_are_named(four: Workspace, rlhf: CommandLine) -> None:
    with pytest.raises(NotFound):
        experiment.read(four, ALIAS)
    started(four, "ab", salt="one")
    with pytest.raises(BadUsage, match="no metric"):
        experiment.read(four, ALIAS, "zebra")
    assert rlhf("experiment", ALIAS, "--alpha", "2", "--json").status == 2
    assert rlhf("experiment", "hh@none", "--json").error["code"] == "not_found"


def test_sample_sizes_by_command(rlhf: CommandLine) -> None:
    assert rlhf.json("samplesize", "--base", "0.5", "--effect", "0.05")["units_per_arm"] == 1565
    assert rlhf.json("samplesize", "--wins", "0.55")["pairs"] == 783
    assert rlhf.json("samplesize", "--wins", "0.55", "--looks")["pairs"] > 1200
    assert rlhf("samplesize", "--base", "0.5", "--json").status == 2
    assert rlhf("samplesize", "--wins", "0.5", "--json").error["code"] == "bad_usage"
    refused = rlhf("samplesize", "--base", "0.3", "--effect", "0.05", "--ties", "0.3", "--json")
    assert refused.status == 2 and "--ties without --wins" in refused.error["message"]
    assert rlhf("samplesize", "--wins", "0.6", "--power", "0.05", "--json").status == 2
    assert rlhf.json("samplesize", "--wins", "0.6", "--ties", "0.3")["ties"] == 0.3


def test_what_was_served_after_the_start_is_no_past(four: Workspace) -> None:
    """The clock decides: a reply of the same users under the rollout isn't taken off from itself."""
    started(four, "ab", salt="one")
    with clock_at(now().timestamp() + 5):
        visit(four, 300, 1, lambda user, arm, chance: {"reward": taste(user)})
    (found,) = experiment.read(four, ALIAS, "reward").comparisons
    assert found.with_past == 0 and found.variance_left == 1.0
