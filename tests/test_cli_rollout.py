"""`rlhf rollout` as scripts and people meet it."""

from __future__ import annotations

from pathlib import Path

import pytest
import served
from command_line import CommandLine
from served import ALIAS, serve

from rlhf.serving import Router
from rlhf.store import Workspace


@pytest.fixture
def four(workspace: Workspace, tmp_path: Path) -> Workspace:
    return served.with_versions(workspace, tmp_path)


@pytest.fixture
def rlhf(four: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(four.root, capsys, monkeypatch)


def test_a_canary_from_start_to_completion_by_commands(rlhf: CommandLine) -> None:
    begun = rlhf.json("rollout", "start", ALIAS, "hh@2", "--ramp", "10,100", "--why", "newer")
    assert {"rollout", "alias", "kind", "status", "arms", "stages"} <= begun.keys()
    assert (begun["kind"], begun["status"], begun["stages"]) == ("canary", "running", [10, 100])
    wanted = {"version": "hh@2", "digest": begun["arms"]["b"]["digest"], "share": 10, "shadows": None}
    assert begun["arms"]["b"] == wanted
    refused = rlhf("rollout", "complete", ALIAS, "--why", "now", "--json")
    assert refused.status == 1 and refused.error["code"] == "conflict"
    assert rlhf.json("rollout", "pause", ALIAS, "--why", "lunch")["status"] == "paused"
    assert rlhf.json("rollout", "advance", ALIAS, "--why", "back")["status"] == "running"
    assert rlhf.json("rollout", "advance", ALIAS, "--why", "good")["arms"]["b"]["share"] == 100
    assert rlhf.json("rollout", "complete", ALIAS, "--why", "done")["status"] == "completed"
    assert rlhf.json("alias", "history", ALIAS)["moves"][-1]["to"] == "hh@2"
    back = rlhf.json("rollout", "rollback", ALIAS, "--why", "bad after all")
    assert back["seconds"] < 5 and rlhf.json("alias", "history", ALIAS)["moves"][-1]["to"] == "hh@1"


def test_status_shows_arms_guards_and_time_to_effect(four: Workspace, rlhf: CommandLine) -> None:
    assert rlhf.json("rollout", "status") == {"rollouts": []} and "no rollout" in rlhf("rollout", "status").out
    router = Router(four)
    served.started(four, "ab")
    serve(four, router, 60, lambda arm, chance: {"latency_s": chance.random(), "reward": chance.random()})
    router.close()  # writes its times to effect
    told = rlhf.json("rollout", "status", ALIAS)
    assert told["figures"]["b"]["n"] + told["figures"]["control"]["n"] == 60
    assert {"error_rate", "latency_p50", "latency_p95", "satisfaction", "reward"} <= told["figures"]["b"].keys()
    assert {"value", "low", "high", "n", "method"} <= told["figures"]["b"]["latency_p95"].keys()
    assert told["verdict"]["action"] == "none" and {one["metric"] for one in told["verdict"]["guards"]} == {
        "error_rate",
        "latency",
        "satisfaction",
    }
    assert told["time_to_effect"]["n"] == 1 and told["time_to_effect"]["max_s"] < 1
    assert [entry["kind"] for entry in told["entries"]] == ["start"]
    text = rlhf("rollout", "status", ALIAS).out
    assert "shares as drawn" in text and "guardrail error_rate higher of b" in text and "in force after" in text
    assert rlhf.json("rollout", "status")["rollouts"][0]["rollout"] == told["rollout"]


def test_a_shadows_share_is_said(rlhf: CommandLine) -> None:
    said = rlhf("rollout", "start", ALIAS, "hh@2", "--kind", "shadow", "--share", "25", "--why", "look")
    assert "control hh@1 100 %, b hh@2 shadows 25 %" in said.out
    told = rlhf.json("rollout", "status", ALIAS)["arms"]
    assert (told["b"]["share"], told["b"]["shadows"], told["control"]["shadows"]) == (0, 25, None)


def test_so_few_that_no_interval_can_be_formed_have_none(four: Workspace, rlhf: CommandLine) -> None:
    router = Router(four, follow=False)
    served.started(four, "ab")
    serve(four, router, 2, lambda arm, chance: {"latency_s": 0.3, "length_chars": 10, "refusal": False})
    router.close()
    figures = {arm: one for arm, one in rlhf.json("rollout", "status", ALIAS)["figures"].items() if one["n"]}
    assert figures
    for one in figures.values():
        for share in ("error_rate", "refusal"):
            assert one[share]["low"] == 0 and 0.6 < one[share]["high"] < 1
        assert (one["latency_p50"]["low"], one["latency_p95"]["high"]) == (None, None)
        if one["units"] == 1:
            assert (one["reply_length"]["value"], one["reply_length"]["low"]) == (10, None)
    assert "0.3 –" in rlhf("rollout", "status", ALIAS).out


@pytest.mark.parametrize("back", [False, True], ids=["set", "rollback"])
def test_a_move_of_the_alias_says_that_it_ends_the_rollout(rlhf: CommandLine, back: bool) -> None:
    assert rlhf.json("alias", "set", ALIAS, "hh@4", "--why", "newer")["ended_rollout"] is None
    begun = rlhf.json("rollout", "start", ALIAS, "hh@2", "--why", "try it")
    words = ("rollback", ALIAS) if back else ("set", ALIAS, "hh@3")
    said = rlhf("alias", *words, "--why", "in a hurry").out
    assert f"its canary {begun['rollout'][:10]} ended with that" in said
    told = rlhf.json("rollout", "status", ALIAS)
    assert (told["status"], told["who"]) == ("rolled_back" if back else "superseded", told["entries"][-1]["who"])
    assert [(one["seq"], one["kind"]) for one in told["entries"]] == [(1, "start"), (None, f"alias {words[0]}")]
    assert told["entries"][-1]["why"] == "in a hurry" and told["entries"][-1]["status"] == told["status"]
    assert f"alias {words[0]}" in rlhf("rollout", "status", ALIAS).out
    assert rlhf.json("alias", "set", ALIAS, "hh@2", "--why", "once more")["ended_rollout"] is None


def test_a_rollout_that_ended_itself_is_not_ended_again(rlhf: CommandLine) -> None:
    rlhf.json("rollout", "start", ALIAS, "hh@2", "--why", "try it")
    rlhf.json("rollout", "rollback", ALIAS, "--why", "bad")
    assert rlhf.json("alias", "set", ALIAS, "hh@3", "--why", "newer")["ended_rollout"] is None
    assert [one["kind"] for one in rlhf.json("rollout", "status", ALIAS)["entries"]] == ["start", "roll_back"]


def test_a_file_says_what_words_cannot(rlhf: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "rollout.yaml"
    file.write_text(
        "kind: ab\narms: {new: {version: hh@2, share: 20}}\n"
        "audience: {any: [{field: country, in: [AT]}, {field: plan, equals: paid}]}\ntoggles: {staff: new}\n"
    )
    begun = rlhf.json("rollout", "start", ALIAS, "--config", file, "--why", "x", "--pending")
    assert begun["status"] == "pending" and begun["settings"]["toggles"] == {"staff": "new"}
    assert rlhf.json("rollout", "advance", ALIAS, "--why", "go")["arms"]["new"]["share"] == 20
    ask = ("rollout", "status", ALIAS, "--unit", "ann", "--context")
    outside = rlhf.json(*ask, "country=DE")["assignment"]
    assert (outside["version"], outside["rule"]) == ("hh@1", "audience") and "country is one of" in outside["because"]
    staff = rlhf.json(*ask, "country=AT", "--context", "cohort=staff")["assignment"]
    assert (staff["version"], staff["arm"], staff["rule"]) == ("hh@2", "new", "toggle")
    drawn = rlhf.json(*ask, "plan=paid")["assignment"]
    assert drawn["rule"] == "weights" and drawn["propensity"] in (0.2, 0.8)
    assert f"bucket {drawn['bucket']}" in rlhf(*ask, "plan=paid").out


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["start", ALIAS, "hh@2", "--kind", "zebra", "--why", "x"], 2, "kind"),
        (["start", ALIAS, "--why", "x"], 2, "arms"),
        (["start", ALIAS, "hh@2", "--ramp", "one,two", "--why", "x"], 2, "percents"),
        (["start", ALIAS, "hh@2", "--ramp", "50,5", "--why", "x"], 2, "rise"),
        (["start", ALIAS, "hh@9", "--why", "x"], 1, "no version hh@9"),
        (["start", "hh@beta", "hh@2", "--why", "x"], 1, "no alias hh@beta"),
        (["advance", ALIAS, "--why", "x"], 1, "never had a rollout"),
        (["rollback", ALIAS, "--why", " "], 1, "why"),
    ],
)
def test_refusals_say_what_is_wrong_and_what_to_do(rlhf: CommandLine, words: list[str], status: int, said: str) -> None:
    answer = rlhf("rollout", *words, "--json")
    assert answer.status == status and said in answer.error["message"] and answer.error["fix"]


def test_an_entry_that_is_not_the_last_is_refused(rlhf: CommandLine) -> None:
    rlhf.json("rollout", "start", ALIAS, "hh@2", "--why", "x")
    assert rlhf.json("rollout", "advance", ALIAS, "--why", "x", "--expect", "1")["seq"] == 2
    assert rlhf("rollout", "advance", ALIAS, "--why", "x", "--expect", "1", "--json").error["code"] == "conflict"
