"""Round and round: from new judgements to a decision, through the gate or not at all, killed anywhere, and nothing twice."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import copy_of
from rounds_made import (
    OPEN,
    POLICY,
    counts,
    in_a_process,
    kill,
    loop,
    loop_run,
    reached,
    rewards_alone,
    rewind,
    say_more,
    state_of,
    until,
)

from rlhf import feedback, jobs, labeling, registry, rounds, snapshots
from rlhf.engine import add_from_dir
from rlhf.errors import BadInput, Conflict, NotFound
from rlhf.evaluation import open_report
from rlhf.registry import GateRules, Rule, aliases, gates
from rlhf.rounds.state import Round, alone
from rlhf.rounds.steps import Work, choose_phase
from rlhf.rounds.stopping import Stop
from rlhf.store import Workspace, audit, runs

STEPS = [name for name, _, _ in rounds.round.STEPS]
NEVER = GateRules(report="evaluation", rules=(Rule(figure="accuracy", above=0.9999, min_n=10_000),))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A workspace with a base and 40 judged pairs. Copy it; never write to it."""
    made = Workspace.create(tmp_path_factory.mktemp("begun") / "ws", actor="tester")
    add_from_dir(made, "tiny", tiny_folder)
    say_more(made, made.root.parent)
    made.close()
    return made.root


@pytest.fixture(scope="module")
def turned(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after one whole round that promoted both. Copy it; never write to it."""
    made = opened(begun, tmp_path_factory.mktemp("turned"))
    assert rounds.once(made, loop(**OPEN, promote="auto")).state == "done"
    made.close()
    return made.root


def opened(root: Path, folder: Path) -> Workspace:
    return Workspace.open(copy_of(root, folder / root.parent.name), actor="tester")


@pytest.fixture
def fresh(begun: Path, tmp_path: Path) -> Iterator[Workspace]:
    made = opened(begun, tmp_path)
    yield made
    made.close()


@pytest.fixture
def after(turned: Path, tmp_path: Path) -> Iterator[Workspace]:
    made = opened(turned, tmp_path)
    yield made
    made.close()


def test_a_round_ends_in_two_versions_their_reports_and_a_decision(after: Workspace) -> None:
    run_id = loop_run(after) or ""
    results = state_of(after, run_id)["results"]
    assert set(results) == {*STEPS, "because"}
    assert (results["reward"]["version"], results["policy"]["version"]) == ("hh-reward@1", "hh@1")
    assert results["mix"]["snapshot"] == "hh@1" and "first training" in results["mix"]["why"]
    assert results["compare"]["against"][0]["other"] == "base:tiny"
    row = runs.show(after, run_id)
    assert (row.kind, row.state, row.version_digest) == ("loop", "done", results["reward"]["digest"])
    for alias, version in (("hh-reward@champion", "hh-reward@1"), ("hh@champion", "hh@1")):
        (move,) = aliases.history(after, alias)
        assert str(aliases.current(after, alias)) == version and move.evidence["round"] == run_id

    report = open_report(after, results["decision"]["report"])
    content = report.content
    assert (content["kind"], content["actor"]) == ("decision", "tester")
    assert set(report.figures) == {"hh-reward@1", "hh@1"} and report.figures["hh@1"]["n"] == 6
    assert content["judgements"] == {"wanted": 10, "new": results["cut"]["splits"]["train"], "since": None}
    assert content["rewards"]["frozen"]["digest"] == content["snapshot"]["frozen_digest"] == results["cut"]["digest"]
    page = report.path.read_text("utf-8")
    assert "hh@1 promoted to hh@champion" in page and "rlhf alias rollback hh@champion" in page
    with after.read() as connection:
        (noted,) = audit.entries(connection, action="loop.decision")
        assert (noted["subject"], noted["details"]["report"], noted["actor"]) == (run_id, report.digest, "tester")


def test_too_few_new_judgements_do_nothing_and_say_how_many_are_missing(after: Workspace, tmp_path: Path) -> None:
    say_more(after, tmp_path, n=12, seed=7)
    n_new = snapshots.count_new(after, "hh@1", holdout=0.3)
    before = counts(after)
    outcome = rounds.once(after, loop(**OPEN, min_new_judgements=n_new + 3))
    assert (outcome.state, outcome.new, outcome.as_json()["missing"]) == ("idle", n_new, 3)
    assert f"3 more judgements are missing: {n_new} of {n_new + 3}" in outcome.text and counts(after) == before


def test_a_second_round_goes_on_from_the_champion_with_replay_and_shows_what_it_forgot(
    after: Workspace, tmp_path: Path
) -> None:
    say_more(after, tmp_path, n=30, seed=1)
    outcome = rounds.once(after, loop(**OPEN, replay=0.5))
    results = state_of(after, outcome.round or "")["results"]
    mixed = snapshots.open_snapshot(after, results["mix"]["snapshot"])
    assert mixed.name == "hh-mix" and results["mix"]["replayed"] == round(0.5 * results["mix"]["new"])
    assert mixed.splits["train"] == results["mix"]["new"] + results["mix"]["replayed"]
    manifest = registry.show(after, "hh-reward@2").manifest
    assert manifest["snapshot_digest"] == mixed.digest
    assert [str(r.version) for r in registry.lineage(after, "hh-reward@2").ancestors] == ["hh-reward@1"]
    assert {str(r.version) for r in registry.lineage(after, "hh@2").ancestors} >= {"hh@1", "hh-reward@2"}

    content = open_report(after, outcome.decision or "").content
    frozen, newest = content["rewards"]["frozen"], content["rewards"]["newest"]
    assert (frozen["snapshot"], newest["snapshot"]) == ("hh@1", "hh@2")
    assert frozen["figures"]["hh-reward@1"]["n"] < newest["figures"]["hh-reward@1"]["n"]
    gap = frozen["figures"]["hh-reward@2"]["accuracy"] - frozen["figures"]["hh-reward@1"]["accuracy"]
    assert frozen["change"]["value"] == pytest.approx(gap, abs=1e-5)
    assert frozen["change"]["n"] == frozen["figures"]["hh-reward@1"]["n_decided"]
    assert content["policies"][0]["other"] == "hh@1"
    # `promote: propose`: both wait for somebody, and nothing moved
    assert [v["outcome"] for v in outcome.verdicts] == ["proposed", "proposed"]
    assert "the settings say promote: propose" in content["needed"][0]
    assert str(aliases.current(after, "hh@champion")) == "hh@1"


def test_an_unmet_gate_is_never_passed_and_what_is_lacking_is_said(fresh: Workspace) -> None:
    gates.set_gate(fresh, "hh-reward@champion", NEVER, "nothing passes")
    outcome = rounds.once(fresh, rewards_alone(reward_gate="required", promote="auto"))
    (verdict,) = outcome.verdicts
    assert verdict["outcome"] == "proposed" and any("wanted" in reason for reason in verdict["reasons"])
    assert verdict["gate"]["figures"][0]["figure"] == "accuracy"
    content = open_report(fresh, outcome.decision or "").content
    assert "hh-reward@1 proposed for hh-reward@champion" in content["needed"][0]
    with pytest.raises(NotFound):
        aliases.current(fresh, "hh-reward@champion")


def test_a_loop_without_a_gate_refuses_to_start_unless_told(fresh: Workspace) -> None:
    before = counts(fresh)
    with pytest.raises(Conflict, match="hh-reward@champion and hh@champion have no gate") as no:
        rounds.once(fresh, loop())
    assert "reward_gate: none" in no.value.fix
    with pytest.raises(Conflict, match="hh@champion has no gate"):
        rounds.once(fresh, loop(reward_gate="none"))
    assert counts(fresh) == before


def test_what_can_be_known_beforehand_is_refused_beforehand(fresh: Workspace, after: Workspace) -> None:
    with pytest.raises(NotFound, match="nobase"):
        rounds.once(fresh, loop(**OPEN, base="nobase"))
    with pytest.raises(NotFound, match="nojudge"):
        rounds.once(fresh, loop(**OPEN, judge="nojudge"))
    assert loop_run(fresh) is None
    with pytest.raises(Conflict, match=r"was cut with holdout 0\.3 and seed 0, the settings say 0\.5"):
        rounds.once(after, loop(**OPEN, holdout=0.5))


def test_a_proposal_is_promoted_once_it_is_signed_and_gets_a_record_of_its_own(fresh: Workspace) -> None:
    rules = GateRules(
        report="evaluation", rules=(Rule(figure="accuracy", above=-1),), signoffs=("evaluator",), four_eyes=True
    )
    gates.set_gate(fresh, "hh-reward@champion", rules, "somebody reads it")
    settings = rewards_alone(reward_gate="required", promote="auto")
    first = rounds.once(fresh, settings)
    (verdict,) = first.verdicts
    assert verdict["outcome"] == "proposed" and "rlhf adapter sign hh-reward@1" in verdict["fix"]
    assert rounds.once(fresh, settings).settled == ()
    registry.sign(fresh.as_actor("eva"), "hh-reward@1", verdict["gate"]["report"], "evaluator")
    second = rounds.once(fresh, settings)
    assert second.state == "idle" and [v["outcome"] for v in second.settled] == ["promoted"]
    (move,) = aliases.history(fresh, "hh-reward@champion")
    assert move.evidence["decision"] == first.decision and move.evidence["gate"]["signoffs"][0]["who"] == "eva"
    with fresh.read() as connection:
        noted = [entry["details"]["report"] for entry in audit.entries(connection, action="loop.decision")]
    assert open_report(fresh, noted[-1]).content["settles"] == noted[0] == first.decision
    assert rounds.once(fresh, settings).settled == ()


def test_a_promotion_that_was_taken_back_is_not_made_again(after: Workspace, tmp_path: Path) -> None:
    say_more(after, tmp_path, n=30, seed=1)
    settings = rewards_alone(promote="auto")
    assert rounds.once(after, settings).verdicts[0]["outcome"] == "promoted"
    aliases.roll_back(after, "hh-reward@champion", why="worse in use")
    assert rounds.once(after, settings).settled == ()
    assert str(aliases.current(after, "hh-reward@champion")) == "hh-reward@1"
    say_more(after, tmp_path, n=30, seed=2)
    third = rounds.once(after, settings)
    results = state_of(after, third.round or "")["results"]
    assert results["look"]["reward"]["version"] == "hh-reward@1"
    # the champion hasn't seen what the version that was taken back was trained on: that is new again
    held = (
        snapshots.open_snapshot(after, "hh@3").splits["train"] - snapshots.open_snapshot(after, "hh@1").splits["train"]
    )
    assert results["mix"]["new"] == held
    assert results["cut"]["frozen"] == "hh@1"


def test_an_alias_that_was_moved_meanwhile_is_left_alone(after: Workspace, tmp_path: Path) -> None:
    say_more(after, tmp_path, n=30, seed=1)
    settings = rewards_alone(promote="auto")
    outcome = rounds.once(after, settings.model_copy(update={"promote": "propose"}))
    run_id = outcome.round or ""
    aliases.move(after, "hh-reward@champion", "hh-reward@2", why="by hand")
    aliases.roll_back(after, "hh-reward@champion", why="and back")
    rewind(after, run_id, STEPS.index("reward_verdict"))
    kept = state_of(after, run_id)
    kept["results"]["look"]["reward"] = {
        "version": "hh-reward@9",
        "digest": "0" * 64,
    }  # what was there at its beginning
    (after.root / "runs" / run_id / "state.json").write_text(json.dumps(kept))
    again = rounds.once(after, settings.model_copy(update={"promote": "propose"}))
    assert "was moved to hh-reward@1 while the round was under way" in again.verdicts[0]["reasons"][0]


def test_kill_9_at_every_step_and_the_same_command_goes_on(fresh: Workspace) -> None:
    """A process is killed as soon as its state says that it is at the step; the next one takes over. Once each is enough."""
    settings = loop(**OPEN, promote="auto", phase="explore")
    for step in STEPS[:-1]:
        process = in_a_process(fresh.root, settings)
        until(reached(fresh, step), process)
        if step in ("reward", "policy"):  # in the middle of it
            until(partial(_has_checkpoint, fresh, step), process)
        assert kill(process) == -signal.SIGKILL
        assert runs.state_now(fresh, runs.show(fresh, loop_run(fresh) or "")) == "lost"
    outcome = rounds.once(fresh, settings)
    assert outcome.state == "done" and [v["outcome"] for v in outcome.verdicts] == ["promoted", "promoted"]
    found = [(row.kind, row.name, row.state) for row in runs.list_runs(fresh)]
    assert sorted(found) == [("loop", "hh", "done"), ("policy", "hh", "done"), ("reward", "hh-reward", "done")]
    assert sorted(str(row.ref) for row in registry.list_versions(fresh)) == ["hh-reward@1", "hh@1"]
    assert [entry.ref for entry in snapshots.list_snapshots(fresh)] == ["hh@1"]
    assert all(len(aliases.history(fresh, alias)) == 1 for alias in ("hh@champion", "hh-reward@champion"))
    with fresh.read() as connection:
        assert len(audit.entries(connection, action="loop.decision")) == 1
        audit.verify(connection)


@pytest.mark.parametrize("kind", [{"kind": "head"}, {"members": 2, "max_steps": 2, "lora_r": 4, "dtype": "float32"}])
def test_a_round_trains_an_instant_reward_or_an_ensemble_as_any_other(
    fresh: Workspace, kind: dict[str, Any], tmp_path: Path
) -> None:
    settings = rewards_alone(promote="auto", reward=kind)
    assert rounds.once(fresh, settings).state == "done"
    say_more(fresh, tmp_path, seed=1)
    assert rounds.once(fresh, settings).state == "done"
    opened = registry.open_version(fresh, registry.resolve(fresh, "hh-reward@2"))
    assert opened.kind == ("head" if "kind" in kind else "ensemble")


def test_a_round_that_ended_between_two_members_trains_none_of_them_again(
    fresh: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlhf.reward import ensemble

    member, trained = ensemble.train_one, []

    def broken(workspace: Workspace, material: Any, *args: Any, **kwargs: Any) -> Any:
        trained.append(material.settings.name)
        if trained == ["hh-reward.1", "hh-reward.2"]:
            raise RuntimeError("power cut")
        return member(workspace, material, *args, **kwargs)

    monkeypatch.setattr(ensemble, "train_one", broken)
    settings = rewards_alone(reward={"members": 2, "max_steps": 2, "lora_r": 4, "dtype": "float32"})
    with pytest.raises(RuntimeError, match="power cut"):
        rounds.once(fresh, settings)
    assert rounds.once(fresh, settings).state == "done"
    assert trained == ["hh-reward.1", "hh-reward.2", "hh-reward.2"]


@pytest.mark.parametrize("keep", [1, STEPS.index("policy"), STEPS.index("ask")])
def test_a_step_that_was_done_but_not_written_down_is_not_done_twice(after: Workspace, keep: int) -> None:
    """The moment between a publication and its line in state.json: everything is found again."""
    run_id = loop_run(after) or ""
    before, decided = counts(after), state_of(after, run_id)["results"]
    rewind(after, run_id, keep)
    outcome = rounds.once(after, loop(**OPEN, promote="auto"))
    assert (outcome.round, outcome.decision) == (run_id, decided["decision"]["report"])
    assert counts(after) == before
    assert state_of(after, run_id)["results"] == decided


def test_an_unfinished_round_keeps_its_settings_or_is_given_up(fresh: Workspace) -> None:
    broken = rewards_alone(reward={"max_length": 16, "dtype": "float32"})
    with pytest.raises(BadInput, match="none is left to train on"):
        rounds.once(fresh, broken)
    run_id = loop_run(fresh) or ""
    assert runs.show(fresh, run_id).state == "failed"
    with pytest.raises(Conflict, match=f"round {run_id} of hh is unfinished and was begun with another reward"):
        rounds.once(fresh, rewards_alone())
    outcome = rounds.once(fresh, rewards_alone(), anew=True)
    assert outcome.state == "done" and outcome.round != run_id
    assert runs.show(fresh, run_id).state == "cancelled"


def test_one_round_at_a_time(fresh: Workspace) -> None:
    with (
        alone(fresh, "other"),
        pytest.raises(Conflict, match="another round is under way in this workspace: loop other"),
    ):
        rounds.once(fresh, rewards_alone())


def test_a_round_that_explores_asks_people_about_the_closest_replies(fresh: Workspace) -> None:
    n_pairs = counts(fresh)["pairs"]
    outcome = rounds.once(fresh, loop(**OPEN, phase="explore"))
    asked = state_of(fresh, outcome.round or "")["results"]["ask"]
    assert 0 < asked["pairs"] <= 3 and counts(fresh)["pairs"] == n_pairs + asked["pairs"]
    with fresh.read() as connection:
        mine = list(feedback.read_pairs(connection, sources=[asked["source"]]))
    assert len(mine) == asked["pairs"] and all(not judgements for _, judgements, _ in mine)
    manifest = registry.show(fresh, "hh@1").manifest
    assert manifest["settings"]["temperature"] == loop().explore.temperature
    # what people say of them is new, and the next round's
    said = 0
    while (task := labeling.next_task(fresh, "ada")) is not None:
        labeling.answer(fresh, "ada", task.lease, "left")
        said += task.pair_id in {pair.id for pair, _, _ in mine}
    assert said == asked["pairs"]
    train = {pair.id for pair, _, _ in mine} & {
        row.pair.id for row in snapshots.cut(fresh, "look", holdout=0.3).rows("train")
    }
    assert len(train) == asked["pairs"], "asked about train-side prompts, so they train"


def test_auto_explores_while_the_champion_is_uncertain(after: Workspace, tmp_path: Path) -> None:
    say_more(after, tmp_path, n=30, seed=1)
    outcome = rounds.once(after, rewards_alone(phase="auto", auto_interval=0.01, explore={"pairs": 0}))
    results = state_of(after, outcome.round or "")["results"]
    phase = results["phase"]
    assert phase["phase"] == "explore" and "hh-reward@1's held-out accuracy has an interval" in phase["why"]
    kept = Round(outcome.round or "", tmp_path, rewards_alone(phase="auto", auto_interval=1.0), results)
    assert choose_phase(Work(after, kept, Stop(), print))["phase"] == "exploit"


def test_a_round_waits_for_people_and_goes_on_when_they_have_judged(fresh: Workspace) -> None:
    settings = loop(**OPEN, judge="people", min_judged=1)
    first = rounds.once(fresh, settings)
    assert first.state == "waiting" and "0 of" in first.why
    before = counts(fresh)
    assert rounds.once(fresh, settings).state == "waiting" and counts(fresh) == before
    task = labeling.next_task(fresh, "ada")
    assert task is not None
    labeling.answer(fresh, "ada", task.lease, "left")
    done = rounds.once(fresh, settings)
    assert (done.state, done.round) == ("done", first.round)
    (compared,) = state_of(fresh, done.round or "")["results"]["compare"]["against"]
    figures = open_report(fresh, compared["report"]).figures["hh@1"]
    assert figures["n"] - figures["n_identical"] == 1 and compared["judge"]["kind"] == "people"


def test_watch_begins_a_round_when_enough_came_in_and_ends_at_ctrl_c(fresh: Workspace, tmp_path: Path) -> None:
    settings = rewards_alone()
    process = in_a_process(fresh.root, settings, watch=True)
    until(lambda: len(snapshots.list_snapshots(fresh)) == 1 and _all_done(fresh), process)
    say_more(fresh, tmp_path, n=30, seed=1)
    until(lambda: len(snapshots.list_snapshots(fresh)) >= 2 and _all_done(fresh), process)
    assert kill(process, signal.SIGINT) == 0
    assert [row.state for row in runs.list_runs(fresh) if row.kind == "loop"] == ["done", "done"]


def test_ctrl_c_in_a_round_ends_between_two_steps_and_the_same_command_goes_on(fresh: Workspace) -> None:
    settings = rewards_alone()
    process = in_a_process(fresh.root, settings)
    until(reached(fresh, "measure"), process)
    assert kill(process, signal.SIGINT) == 3
    run_id = loop_run(fresh) or ""
    assert "stopped before the step 'reward_verdict'" in (runs.show(fresh, run_id).error or "")
    assert "measure" in state_of(fresh, run_id)["results"] and state_of(fresh, run_id)["doing"] is None
    before = counts(fresh)
    assert rounds.once(fresh, settings).round == run_id
    assert counts(fresh) == {**before, "reports": before["reports"] + 1}


def test_trainings_in_processes_of_their_own_outlive_the_loop_and_are_never_started_twice(fresh: Workspace) -> None:
    settings = rewards_alone(processes="child", reward={"max_steps": 2, "dtype": "float32", "lora_r": 4})
    process = in_a_process(fresh.root, settings)
    until(lambda: any(job.process for job in jobs.list_jobs(fresh)), process)
    kill(process)
    outcome = rounds.once(fresh, settings)
    assert outcome.state == "done"
    (job,) = jobs.list_jobs(fresh)
    assert job.state == "done" and job.run_id == state_of(fresh, outcome.round or "")["results"]["reward"]["run"]
    assert [row.kind for row in runs.list_runs(fresh)] == ["loop", "reward"]


def test_ctrl_c_stops_the_training_of_its_own_process_too_and_the_same_command_goes_on_with_it(
    fresh: Workspace,
) -> None:
    reward = {"max_steps": 400, "dtype": "float32", "lora_r": 4, "save_steps": 400}
    settings = rewards_alone(processes="child", reward=reward)
    process = in_a_process(fresh.root, settings)
    until(lambda: _has_stepped(fresh), process)
    assert kill(process, signal.SIGINT) == 3
    (job,) = jobs.list_jobs(fresh)
    assert jobs.state_now(job) == "cancelled" and job.process is not None and not job.process.is_alive
    loop_row, training = runs.list_runs(fresh)
    assert (loop_row.state, training.state) == ("interrupted", "interrupted") and _has_checkpoint(fresh, "reward")
    assert f"and with it job {job.id}" in (loop_row.error or "")
    steps = len((fresh.root / training.folder / "metrics.jsonl").read_text().splitlines())
    again = in_a_process(fresh.root, settings)
    until(lambda: len(jobs.list_jobs(fresh)) == 2, again)
    until(lambda: len((fresh.root / training.folder / "metrics.jsonl").read_text().splitlines()) > steps, again)
    assert kill(again, signal.SIGTERM) == 3
    assert "--resume" in jobs.list_jobs(fresh)[1].words
    assert [row.kind for row in runs.list_runs(fresh)] == ["loop", "reward"]


@pytest.mark.slow
def test_a_training_that_fails_in_its_process_is_told_in_its_own_words(fresh: Workspace) -> None:
    settings = rewards_alone(processes="child", reward={"max_length": 16, "dtype": "float32"})
    with pytest.raises(
        rounds.training.TrainingFailed,
        match=r"hh-reward, is failed: .* (none is left to train on|has no pair on its train side)",
    ):
        rounds.once(fresh, settings)


def test_a_gate_against_the_base_gets_its_comparison_and_the_reward_in_force_may_train(
    after: Workspace, tmp_path: Path
) -> None:
    say_more(after, tmp_path, n=30, seed=1)
    rules = GateRules(against="base", rules=(Rule(figure="win_rate", above=-1),))
    gates.set_gate(after, "hh@champion", rules, "better than nothing")
    settings = loop(
        **OPEN, promote="auto", policy_reward="champion", continue_policy=False, policy={**POLICY, "seed": 3}, replay=0
    )
    gates.set_gate(after, "hh-reward@champion", NEVER, "the old one stays")
    outcome = rounds.once(after, settings)
    results = state_of(after, outcome.round or "")["results"]
    assert [v["outcome"] for v in outcome.verdicts] == ["proposed", "promoted"]
    assert (results["policy"]["reward"], results["policy"]["from"]) == ("hh-reward@1", None)
    champion, base = results["compare"]["against"]
    assert (champion["other"], base["other"]) == ("hh@1", "base:tiny")
    assert aliases.history(after, "hh@champion")[-1].evidence["gate"]["report"] == base["report"]


def test_a_comparison_gate_on_a_frozen_suite_is_met_by_rounds(after: Workspace, tmp_path: Path) -> None:
    """hh@1 stays the suite while the rounds cut hh@2."""
    say_more(after, tmp_path, n=30, seed=1)
    rules = GateRules(snapshot="hh@1", rules=(Rule(figure="win_rate", above=-1),))
    gates.set_gate(after, "hh@champion", rules, "the same prompts for ever")
    outcome = rounds.once(after, loop(**OPEN, promote="auto", policy={**POLICY, "seed": 3}))
    results = state_of(after, outcome.round or "")["results"]
    assert results["cut"]["snapshot"] == "hh@2"
    assert [one["snapshot"] for one in results["compare"]["against"]] == ["hh@1"]
    assert outcome.verdicts[-1]["outcome"] == "promoted", outcome


def test_a_comparison_gate_on_a_snapshot_that_nobody_cut_is_missed_in_words(after: Workspace, tmp_path: Path) -> None:
    say_more(after, tmp_path, n=30, seed=1)
    rules = GateRules(snapshot="suite@7", rules=(Rule(figure="win_rate", above=-1),))
    gates.set_gate(after, "hh@champion", rules, "to be cut")
    outcome = rounds.once(after, loop(**OPEN, promote="auto", policy={**POLICY, "seed": 3}))
    (reason,) = outcome.verdicts[-1]["reasons"]
    assert reason.endswith("on the test side of suite@7") and "--snapshot suite@7" in outcome.verdicts[-1]["fix"]


def _has_stepped(workspace: Workspace) -> bool:
    folders = [workspace.root / row.folder for row in runs.list_runs(workspace) if row.kind == "reward"]
    return any((folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").read_text() for folder in folders)


def _has_checkpoint(workspace: Workspace, kind: str) -> bool:
    folders = [workspace.root / row.folder for row in runs.list_runs(workspace) if row.kind == kind]
    return any(list(folder.glob("checkpoints/checkpoint-*/whole")) for folder in folders)


def _all_done(workspace: Workspace) -> bool:
    rows: list[Any] = [row for row in runs.list_runs(workspace) if row.kind == "loop"]
    return bool(rows) and all(row.state == "done" for row in rows)
