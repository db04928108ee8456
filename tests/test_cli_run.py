"""`rlhf run list|show|queue|work|cancel` as scripts meet them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

from rlhf.ids import clock_at
from rlhf.rounds import LoopSettings, state
from rlhf.store import Workspace, runs


@pytest.fixture
def call(rlhf: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command line on a copy of the trained workspace, which is named by the environment: words end with a job's."""
    monkeypatch.setenv("RLHF_WORKSPACE", str(rlhf.root))
    return rlhf.at(None)


def test_a_job_is_queued_shown_worked_off_and_listed(call: CommandLine) -> None:
    queued = _queue(call, "adapter", "show", "hh@1")
    assert queued["state"] == "queued" and queued["words"] == ["adapter", "show", "hh@1"]
    assert call.json("run", "show", queued["id"])["state"] == "queued"
    worked = call.json("run", "work", "--once")
    assert [(job["id"], job["state"], job["exit_status"]) for job in worked["jobs"]] == [(queued["id"], "done", 0)]
    shown = call.json("run", "show", queued["id"])
    assert shown["answer"]["version"] == "hh@1" and shown["log"] == []
    listed = call.json("run", "list")
    assert [job["state"] for job in listed["jobs"]] == ["done"] and [r["state"] for r in listed["runs"]] == ["done"] * 2
    assert call("run", "work", "--once").out == "nothing was queued\n"
    assert f"{queued['id']}  done" in call("run", "list").out


@pytest.mark.parametrize(
    "words",
    [
        ("adapter", "shw", "hh@1"),
        ("adapter",),
        ("adapter", "show"),
        ("adapter", "show", "hh@1", "--nosuch"),
        ("reward", "train", "hh", "--config"),
        ("serve",),
        ("run", "work"),
        ("adapter", "list", "--workspace", "x"),
    ],
)
def test_what_can_t_be_read_is_refused_before_it_waits(call: CommandLine, words: tuple[str, ...]) -> None:
    answer = call("run", "queue", "--json", "--", *words)
    assert answer.status == 2 and answer.error["code"] == "bad_usage"
    assert call.json("run", "list")["jobs"] == []


@pytest.mark.parametrize(
    "words",
    [
        ("reward", "train", "hh", "--snapshot", "later", "--base", "tiny", "epochs=x", "lerning_rate=1"),
        ("reward", "train", "hh"),
        ("policy", "train", "hh", "--reward", "hh@1", "--base", "tiny", "--method", "dop"),
        ("policy", "train", "hh", "--config", "absent.yaml"),
        ("loop", "run", "--config", "loop_of_test.yaml", "policy.beta=-1"),
        ("loop", "run"),
    ],
)
def test_wrong_settings_are_refused_before_they_wait_as_the_command_itself_would(
    call: CommandLine, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop_of_test.yaml").write_text("name: hh\nbase: tiny\n", "utf-8")
    queued = call("run", "queue", "--json", "--", *words)
    itself = call(*words, "--json")
    assert queued.status == itself.status and queued.error == itself.error
    assert call.json("run", "list")["jobs"] == []


def test_a_job_may_name_what_a_job_before_it_will_make(call: CommandLine) -> None:
    _queue(call, "reward", "train", "hh", "--snapshot", "later", "--base", "tiny", "--from", "other@7", "epochs=1")


def test_a_queued_job_is_cancelled_once(call: CommandLine) -> None:
    job = _queue(call, "adapter", "list")["id"]
    assert call.json("run", "cancel", job) == {"job": job, "run": None, "state": "cancelled"}
    again = call("run", "cancel", job, "--json")
    assert again.status == 1 and again.error["code"] == "conflict"
    assert call("run", "cancel", "zzz", "--json").error["code"] == "not_found"
    done = call.json("run", "list")["runs"][0]["id"]
    assert "is done: there is nothing to cancel" in call("run", "cancel", done, "--json").error["message"]


def test_a_lost_run_is_shown_as_lost_with_the_way_on(call: CommandLine, rlhf: CommandLine) -> None:
    workspace = Workspace.open(rlhf.root or Path())
    with clock_at(1.0e9):
        run = runs.start(workspace, "reward", "hh", None, {})
    shown = call.json("run", "show", run)
    assert shown["state"] == "lost" and shown["fix"].endswith(f"runs/{run}/config.yaml --resume")
    assert f"fix: run {run} lost its process; go on: rlhf reward train hh --config" in call("run", "list").out
    assert runs.show(workspace, run).state == "running"
    workspace.close()
    assert call.json("run", "cancel", run)["state"] == "cancelled"
    assert call.json("run", "show", run)["state"] == "cancelled"


def test_a_lost_member_is_gone_on_with_by_the_command_of_its_ensemble(call: CommandLine, rlhf: CommandLine) -> None:
    workspace = Workspace.open(rlhf.root or Path())
    with clock_at(1.0e9):
        run = runs.start(workspace, "reward", "hh.2", None, {"bootstrap": True})
    assert (
        "go on: the command that trains hh, whose member hh.2 is, and --resume" in call.json("run", "show", run)["fix"]
    )
    workspace.close()


def test_a_lost_round_is_gone_on_with_by_the_command_that_began_it(call: CommandLine, rlhf: CommandLine) -> None:
    workspace = Workspace.open(rlhf.root or Path())
    settings = LoopSettings.model_validate({"name": "hh", "base": "tiny"})
    with clock_at(1.0e9):
        state.start(workspace, settings, {"new": 9, "since": None}, "rlhf loop run --config /some/where.yaml replay=0")
    workspace.close()
    (fix,) = [row["fix"] for row in call.json("run", "list")["runs"] if row["kind"] == "loop"]
    assert fix.endswith("go on: rlhf loop run --config /some/where.yaml replay=0")


def _queue(call: CommandLine, *words: str) -> dict[str, Any]:
    answer = call("run", "queue", "--json", "--", *words)
    assert answer.status == 0, answer
    return answer.value
