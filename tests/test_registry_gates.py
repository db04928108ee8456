"""Gates: an alias moves only where its gate is met, keeps what was shown, and always has its way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import adapter_folders as made
import pytest
from pydantic import ValidationError

from rlhf import people
from rlhf.errors import BadInput, BadUsage, Conflict, Damaged, Forbidden, NotFound
from rlhf.evaluation.material import TEMPLATE
from rlhf.ids import clock_at, digest_text
from rlhf.registry import GateRules, Rule, Trial, aliases, gate_log, gates, read_rules, resolve, retire, sign
from rlhf.store import Workspace, audit
from rlhf.store.tables import signoffs

ALIAS = "hh@champion"
WINS = GateRules(rules=(Rule(figure="win_rate_low", above=0.5, min_n=50),))


@pytest.fixture
def three(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Policies hh@1, hh@2 and hh@3."""
    for seed in range(3):
        made.published(workspace, tmp_path, seed, head=False)
    return workspace


def _compare(workspace: Workspace, one: str, other: str, low: float | None, n: int = 60, **more: Any) -> str:
    """A comparison report as the evaluation room writes it; each call's digest is its own."""
    digest = digest_text(repr((one, other, low, n, more)))
    figures: dict[str, Mapping[str, Any]] = {
        one: {"win_rate": 0.6, "win_rate_low": low, "n": n, "repetition": 0.1},
        other: {"win_rate": 0.4, "win_rate_low": 0.3, "n": n, "repetition": 0.2},
    }
    made.report(workspace, digest, figures, kind="comparison", bases={"base:tiny": made.BASE_DIGEST}, **more)
    return digest


def _in_force(workspace: Workspace) -> str:
    return str(aliases.current(workspace, ALIAS))


def test_an_alias_without_a_gate_moves_freely(three: Workspace) -> None:
    assert gates.gate_of(three, ALIAS) is None
    assert gates.check(three, ALIAS, "hh@1").passed
    assert aliases.move(three, ALIAS, "hh@1", why="first").evidence == {}


def test_a_move_needs_its_report_and_keeps_what_was_shown(three: Workspace) -> None:
    aliases.move(three, ALIAS, "hh@1", why="first")
    gate = gates.set_gate(three, ALIAS, WINS, "only what wins")
    with pytest.raises(Conflict, match="no comparison report of hh@2 against hh@1, which hh@champion points at") as no:
        aliases.move(three, ALIAS, "hh@2", why="better")
    assert no.value.fix.startswith("make one: rlhf compare hh@2 hh@1")
    report = _compare(three, "hh@2", "hh@1", 0.51)
    move = aliases.move(three, ALIAS, "hh@2", why="better", evidence={"note": "mine"})
    assert move.evidence["note"] == "mine"
    assert move.evidence["gate"] == {
        "digest": gate.digest,
        "seq": 1,
        "report": report,
        "against": resolve(three, "hh@1").digest,
        "figures": [
            {
                "figure": "win_rate_low",
                "above": 0.5,
                "min_n": 50,
                "relative": False,
                "value": 0.51,
                "n": 60,
                "low": None,
                "high": None,
                "level": None,
                "method": None,
            },
        ],
        "signoffs": [],
        "class": None,
    }
    assert aliases.history(three, ALIAS)[-1] == move


@pytest.mark.parametrize(
    ("low", "n", "said"),
    [
        (0.5, 60, "win_rate_low is 0.5, wanted above 0.5"),
        (0.4, 60, "win_rate_low is 0.4, wanted above 0.5"),
        (0.9, 49, "win_rate_low is of 49 items, wanted 50 or more"),
        (None, 60, "gives no win_rate_low of hh@2"),
    ],
)
def test_a_rule_that_is_not_met_is_named_and_nothing_moves(
    three: Workspace, low: float | None, n: int, said: str
) -> None:
    aliases.move(three, ALIAS, "hh@1", why="first")
    gates.set_gate(three, ALIAS, WINS, "only what wins")
    _compare(three, "hh@2", "hh@1", low, n)
    with pytest.raises(Conflict, match=said):
        aliases.move(three, ALIAS, "hh@2", why="better")
    assert _in_force(three) == "hh@1" and len(aliases.history(three, ALIAS)) == 1


def test_every_rule_that_is_not_met_is_named(three: Workspace) -> None:
    both = (*WINS.rules, Rule(figure="repetition", below=0.1))
    gates.set_gate(three, ALIAS, GateRules(rules=both, against="base", signoffs=("evaluator",)), "x")
    _compare(three, "hh@1", "base:tiny", 0.2)
    verdict = gates.check(three, ALIAS, "hh@1")
    assert not verdict.passed and len(verdict.reasons) == 3
    assert [figure["value"] for figure in verdict.evidence["figures"]] == [0.2, 0.1]


def test_the_first_version_of_an_alias_is_held_against_its_base(three: Workspace) -> None:
    gates.set_gate(three, ALIAS, WINS, "from the start")
    _compare(three, "hh@1", "hh@2", 0.9)
    with pytest.raises(Conflict, match=r"no comparison report of hh@1 against its base \(base:tiny\), as .* yet"):
        aliases.move(three, ALIAS, "hh@1", why="first")
    _compare(three, "hh@1", "base:tiny", 0.6)
    aliases.move(three, ALIAS, "hh@1", why="first")
    with pytest.raises(Conflict, match="against hh@1"):
        _compare(three, "hh@3", "base:tiny", 0.99)
        aliases.move(three, ALIAS, "hh@3", why="beats the base, but hh@1?")


def test_any_takes_whatever_report_there_is_of_the_version(three: Workspace) -> None:
    gates.set_gate(three, ALIAS, WINS.model_copy(update={"against": "any"}), "x")
    _compare(three, "hh@1", "hh@3", 0.9)
    assert gates.check(three, ALIAS, "hh@1").passed and not gates.check(three, ALIAS, "hh@2").passed


def test_the_newest_report_decides_and_no_older_one_is_picked(three: Workspace) -> None:
    aliases.move(three, ALIAS, "hh@1", why="first")
    gates.set_gate(three, ALIAS, WINS, "x")
    with clock_at(2.0e9):
        _compare(three, "hh@2", "hh@1", 0.9)
    with clock_at(2.1e9):
        _compare(three, "hh@2", "hh@1", 0.1)
    assert "win_rate_low is 0.1" in gates.check(three, ALIAS, "hh@2").reasons[0]
    with clock_at(2.2e9):
        _compare(three, "hh@2", "hh@1", 0.8)
    assert gates.check(three, ALIAS, "hh@2").passed


def test_a_report_of_a_namesake_from_elsewhere_is_no_report_of_this_version(three: Workspace) -> None:
    gates.set_gate(three, ALIAS, WINS.model_copy(update={"against": "any"}), "x")
    content = {"versions": {"hh@1": {"digest": "0" * 64, "figures": {"win_rate_low": 0.9, "n": 99}}}}
    made.report(
        three, "ab12" * 16, {"hh@1": {"win_rate_low": 0.9, "n": 99}}, kind="comparison", versions=content["versions"]
    )
    assert gates.check(three, ALIAS, "hh@1").reasons == ("no comparison report of hh@1",)


def test_an_evaluation_counts_on_held_out_pairs_of_the_suite_only(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 0)
    rules = GateRules(report="evaluation", snapshot="suite@1", rules=(Rule(figure="accuracy", above=0.6),))
    gates.set_gate(workspace, ALIAS, rules, "x")
    for n, snapshot in enumerate(({"name": "suite@1", "split": "train"}, {"name": "other@1", "split": "test"})):
        made.report(workspace, f"{n}abc" * 16, {"hh@1": {"accuracy": 0.9}}, snapshot=snapshot)
        assert gates.check(workspace, ALIAS, "hh@1").reasons == (
            "no evaluation report of hh@1 on the test side of suite@1",
        )
    made.report(workspace, "ab12" * 16, {"hh@1": {"accuracy": 0.9}})
    assert gates.check(workspace, ALIAS, "hh@1").passed


def test_a_comparison_counts_by_the_judge_and_on_the_suite_that_the_gate_names(three: Workspace) -> None:
    rules = WINS.model_copy(update={"against": "base", "judge": "people", "snapshot": "suite@1"})
    gates.set_gate(three, ALIAS, rules, "people decide")
    for kind, name, suite in (("reward", "hh@9", "suite@1"), ("people", "people", None)):
        _compare(three, "hh@1", "base:tiny", 0.9, judge={"kind": kind, "name": name}, prompts={"snapshot": suite})
        (reason,) = gates.check(three, ALIAS, "hh@1").reasons
        assert reason.endswith("on the test side of suite@1, judged by people")
    people = {"kind": "people", "name": "people"}
    _compare(three, "hh@1", "base:tiny", 0.9, judge=people, prompts={"snapshot": "suite@1"})
    assert gates.check(three, ALIAS, "hh@1").passed


def test_min_n_of_a_win_rate_counts_judged_replies_alone(three: Workspace) -> None:
    gates.set_gate(three, ALIAS, WINS.model_copy(update={"against": "base"}), "x")
    judged = {"win_rate": 0.8, "win_rate_low": 0.6, "n": 60, "measures": {"win_rate": {"n": 60, "n_judged": 9}}}
    names = {"base:tiny": made.BASE_DIGEST}
    made.report(three, "ab12" * 16, {"hh@1": judged, "base:tiny": {}}, kind="comparison", bases=names)
    (reason,) = gates.check(three, ALIAS, "hh@1").reasons
    assert "win_rate_low is of 9 judged replies, wanted 50 or more" in reason


@pytest.mark.parametrize(("judge", "near"), [("peopel", "people"), ("dmo", "demo"), ("taste@7", "taste@1"), ("x", "")])
def test_a_judge_that_nothing_answers_to_is_refused_with_the_nearest(
    three: Workspace, tmp_path: Path, judge: str, near: str
) -> None:
    made.published(three, tmp_path, 7, name="taste")
    with pytest.raises(NotFound) as refused:
        gates.set_gate(three, ALIAS, WINS.model_copy(update={"judge": judge}), "x")
    assert refused.value.message == f"no judge answers to '{judge}'" + (f" (nearest: '{near}')" if near else "")
    assert "people, demo, taste@1" in refused.value.fix and gates.gate_of(three, ALIAS) is None


def test_a_policy_is_no_judge(three: Workspace) -> None:
    with pytest.raises(NotFound, match="no judge answers to 'hh@1'"):
        gates.set_gate(three, ALIAS, WINS.model_copy(update={"judge": "hh@1"}), "x")


def test_an_alias_as_judge_means_the_reward_that_it_points_at(three: Workspace, tmp_path: Path) -> None:
    first, second = (made.published(three, tmp_path, seed, name="taste") for seed in (7, 8))
    aliases.move(three, "taste@champion", str(first), why="first")
    gates.set_gate(three, ALIAS, WINS.model_copy(update={"against": "base", "judge": "taste@champion"}), "x")
    judge = {"kind": "reward", "name": str(first), "digest": first.digest}
    _compare(three, "hh@1", "base:tiny", 0.9, judge=judge)
    assert gates.check(three, ALIAS, "hh@1").passed
    aliases.move(three, "taste@champion", str(second), why="better")
    assert not gates.check(three, ALIAS, "hh@1").passed


def test_a_relative_rule_bounds_the_paired_difference_whichever_way_round(workspace: Workspace, tmp_path: Path) -> None:
    for seed in range(2):
        made.published(workspace, tmp_path, seed)
    rules = GateRules(
        report="evaluation",
        rules=(
            Rule(figure="accuracy", above=0.0, relative=True),
            Rule(figure="accuracy_low", above=-0.02, relative=True),
        ),
    )
    gates.set_gate(workspace, ALIAS, rules, "no forgetting")
    made.report(workspace, "0abc" * 16, {"hh@1": {"accuracy": 0.7, "accuracy_low": 0.6}})
    first = aliases.move(workspace, ALIAS, "hh@1", why="first: there is nothing to be better than")
    assert [figure["value"] for figure in first.evidence["gate"]["figures"]] == [None, None]
    figures = {"hh@1": {"accuracy": 0.7, "accuracy_low": 0.6}, "hh@2": {"accuracy": 0.75, "accuracy_low": 0.7}}
    difference = {"a": "hh@1", "b": "hh@2", "accuracy": {"value": -0.05, "low": -0.09, "high": 0.01}}
    made.report(workspace, "1abc" * 16, figures, differences=[difference])
    verdict = gates.check(workspace, ALIAS, "hh@2")
    assert verdict.passed, verdict.reasons
    assert [round(figure["value"], 6) for figure in verdict.evidence["figures"]] == [0.05, -0.01]
    with clock_at(4.0e9):
        made.report(workspace, "2abc" * 16, figures, differences=[])
    assert "no interval of the difference in accuracy" in gates.check(workspace, ALIAS, "hh@2").reasons[0]


def test_n_of_a_figure_is_its_own_where_the_report_gives_one(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 0)
    figures = {"accuracy": 0.9, "accuracy_low": 0.8, "n": 500, "measures": {"accuracy": {"n": 40}}}
    made.report(workspace, "ab12" * 16, {"hh@1": figures})
    rules = GateRules(report="evaluation", rules=(Rule(figure="accuracy_low", above=0.5, min_n=50),))
    gates.set_gate(workspace, ALIAS, rules, "x")
    assert gates.check(workspace, ALIAS, "hh@1").reasons == (
        "accuracy_low is of 40 items, wanted 50 or more (report ab12ab12ab12)",
    )


def test_sign_offs_count_with_the_report_that_decides(three: Workspace) -> None:
    rules = WINS.model_copy(update={"signoffs": ("evaluator", "legal")})
    gates.set_gate(three, ALIAS, rules, "x")
    report = _compare(three, "hh@1", "base:tiny", 0.6)
    sign(three.as_actor("ann"), "hh@1", report, "evaluator")
    with pytest.raises(Conflict, match=f"no legal has signed hh@1 with report {report[:12]}") as unsigned:
        aliases.move(three, ALIAS, "hh@1", why="first")
    assert f"rlhf adapter sign hh@1 --report {report[:12]} --as legal" in unsigned.value.fix
    sign(three.as_actor("bob"), "hh@1", report, "legal")
    with clock_at(4.0e9):
        newer = _compare(three, "hh@1", "base:tiny", 0.7)
    assert len(gates.check(three, ALIAS, "hh@1").reasons) == 2
    for who, role in (("ann", "evaluator"), ("bob", "legal")):
        sign(three.as_actor(who), "hh@1", newer, role)
    move = aliases.move(three, ALIAS, "hh@1", why="first")
    assert [(s["role"], s["who"]) for s in move.evidence["gate"]["signoffs"]] == [
        ("evaluator", "ann"),
        ("legal", "bob"),
    ]


def test_two_roles_are_signed_by_two_people(three: Workspace) -> None:
    rules = WINS.model_copy(update={"signoffs": ("evaluator", "safety")})
    gates.set_gate(three, ALIAS, rules, "x")
    report = _compare(three, "hh@1", "base:tiny", 0.6)
    for role in ("evaluator", "safety"):
        sign(three.as_actor("ann"), "hh@1", report, role)
    (reason,) = gates.check(three, ALIAS, "hh@1").reasons
    assert "ann signed hh@1" in reason and "as safety and in another role; wanted different people" in reason
    sign(three.as_actor("bob"), "hh@1", report, "evaluator")
    verdict = gates.check(three, ALIAS, "hh@1")
    assert verdict.passed, "bob as evaluator leaves ann for safety"
    assert {s["role"]: s["who"] for s in verdict.evidence["signoffs"]} == {"evaluator": "bob", "safety": "ann"}


def test_a_sign_off_of_who_trained_it_counts_for_no_gate(workspace: Workspace, tmp_path: Path) -> None:
    """`sign` refuses it; a row that came in otherwise doesn't count."""
    ref = made.published(workspace, tmp_path, 0, head=False, run_id="01run")
    gates.set_gate(workspace, ALIAS, WINS.model_copy(update={"signoffs": ("evaluator",)}), "x")
    report = _compare(workspace, "hh@1", "base:tiny", 0.6)
    row = {
        "id": "1",
        "version_digest": ref.digest,
        "report_digest": report,
        "role": "evaluator",
        "who": "tester",
        "at": "t",
    }
    made.add_rows(workspace, signoffs, row)
    assert gates.check(workspace, ALIAS, "hh@1").reasons == (f"no evaluator has signed hh@1 with report {report[:12]}",)
    made.add_rows(workspace, signoffs, {**row, "id": "2", "who": "ann"})
    assert gates.check(workspace, ALIAS, "hh@1").passed


def test_every_thing_asked_is_told_with_its_figure_n_interval_and_method(three: Workspace) -> None:
    rules = GateRules(
        against="base",
        rules=(
            Rule(figure="win_rate_low", at_least=0.5, min_n=50),
            Rule(figure="length.gap.abs", at_most=0.1),
            Rule(figure="fairness.worst_gap", at_most=0.05),
        ),
        signoffs=("evaluator",),
        canary="1h",
    )
    gates.set_gate(three, ALIAS, rules, "x")
    measure = {"value": -0.3, "low": -0.4, "high": -0.2, "n": 60, "level": 0.95, "method": "bootstrap"}
    figures = {"win_rate_low": 0.6, "n": 60, "length": {"gap": measure}}
    names = {"base:tiny": made.BASE_DIGEST}
    made.report(three, "ab12" * 16, {"hh@1": figures, "base:tiny": {}}, kind="comparison", bases=names)
    verdict = gates.check(three, ALIAS, "hh@1")
    wins, gap, fair, signed, canary = verdict.as_json()["rules"]
    assert wins["met"] and (wins["value"], wins["n"]) == (0.6, 60)
    assert (gap["met"], gap["value"], gap["low"], gap["high"], gap["method"]) == (False, 0.3, 0.2, 0.4, "bootstrap")
    assert gap["reason"] == "length.gap.abs is 0.3, wanted at most 0.1 (report ab12ab12ab12)"
    assert fair["value"] is None and "has no figure 'fairness.worst_gap' of hh@1" in fair["reason"]
    assert fair["reason"].endswith("wanted fairness.worst_gap at most 0.05")
    assert (
        not signed["met"]
        and canary["reason"] == "no rollout of hh@champion has had hh@1 as an arm, wanted one that runs for 1h"
    )
    assert len(verdict.reasons) == 4 and verdict.fix.startswith("bring a better version")


def test_a_figure_that_no_report_gives_says_how_to_get_it(three: Workspace) -> None:
    gates.set_gate(three, ALIAS, GateRules(against="base", rules=(Rule(figure="fairness.gap", at_most=0.05),)), "x")
    _compare(three, "hh@1", "base:tiny", 0.9)
    verdict = gates.check(three, ALIAS, "hh@1")
    assert not verdict.passed
    assert verdict.fix.startswith(
        "bring a report that measures it (make one: rlhf compare hh@1 base:tiny --judge JUDGE)"
    )
    assert gates.unknown_figures(three, GateRules(rules=(Rule(figure="fairness.gap", at_most=0.05),))) == [
        "fairness.gap"
    ]


def test_another_report_may_be_looked_at_and_the_newest_still_decides(three: Workspace) -> None:
    gates.set_gate(three, ALIAS, WINS.model_copy(update={"against": "base"}), "x")
    with clock_at(2.0e9):
        good = _compare(three, "hh@1", "base:tiny", 0.9)
    with clock_at(2.1e9):
        _compare(three, "hh@1", "base:tiny", 0.1)
    assert gates.check(three, ALIAS, "hh@1", report=good[:12]).passed
    with pytest.raises(Conflict, match="win_rate_low is"):
        aliases.move(three, ALIAS, "hh@1", why="the older one was better")
    other = _compare(three, "hh@2", "base:tiny", 0.9)
    with pytest.raises(BadInput, match=f"report {other[:12]} .* isn't what the gate reads"):
        gates.check(three, ALIAS, "hh@1", report=other[:12])
    with pytest.raises(NotFound):
        gates.check(three, ALIAS, "hh@1", report="0" * 12)
    with pytest.raises(BadUsage):
        gates.check(three, ALIAS, "hh@1", report="xyz")
    with pytest.raises(BadInput, match="has no gate"):
        gates.check(three, "hh@free", "hh@1", report=good)


TRIAL = Trial("01roll", "b", "canary", 25.0, 400, 90)


@pytest.mark.parametrize(
    ("trial", "said"),
    [
        (None, "no rollout of hh@champion has had hh@1 as an arm"),
        (replace(TRIAL, hours=3.25), "has run for 3.25 h with hh@1, wanted 24h"),
        (replace(TRIAL, harm="harm is shown: error_rate"), "can't speak for hh@1: harm is shown: error_rate"),
        (replace(TRIAL, ended="is rolled_back (ann: bad)"), "in which hh@1 was an arm, is rolled_back"),
        (replace(TRIAL, n_replies=0), "hh@1 answered nobody in it"),
    ],
)
def test_a_canary_must_have_run_so_long_without_harm(three: Workspace, trial: Trial | None, said: str) -> None:
    gates.set_gate(three, ALIAS, GateRules(canary="24h"), "x")
    with pytest.raises(Conflict, match=said):
        aliases.move(three, ALIAS, "hh@1", why="x", trials=lambda *_: trial)
    with pytest.raises(Conflict, match="no rollout of"):
        aliases.move(three, ALIAS, "hh@1", why="nobody tells how it went")
    moved = aliases.move(three, ALIAS, "hh@1", why="x", trials=lambda *_: TRIAL)
    assert moved.evidence["gate"]["canary"] == TRIAL.as_json()


def test_who_promotes_does_not_change_the_gate(three: Workspace) -> None:
    for name, role in (("ops", "operator"), ("root", "admin")):
        people.add(three, name, [role])
    for change in (
        lambda who: gates.set_gate(three.as_actor(who), ALIAS, WINS, "x"),
        lambda who: gates.remove_gate(three.as_actor(who), ALIAS, "x"),
    ):
        if gates.gate_of(three, ALIAS) is None:
            with pytest.raises(Forbidden, match="'ops' may not change the gate of hh@champion"):
                change("ops")
        else:
            with pytest.raises(Forbidden):
                change("ops")
        change("root")
    assert gates.gate_of(three, ALIAS) is None
    assert gates.set_gate(three, ALIAS, WINS, "who writes the files is trusted").who == "tester"
    people.disable(three, "root")
    with pytest.raises(Forbidden):
        gates.remove_gate(three.as_actor("root"), ALIAS, "shut out")
    assert [gate.alias for gate in gates.list_gates(three)] == [ALIAS]


def test_four_eyes_wants_another_person_than_the_one_who_moves(three: Workspace) -> None:
    rules = WINS.model_copy(update={"signoffs": ("evaluator",), "four_eyes": True})
    gates.set_gate(three, ALIAS, rules, "x")
    report = _compare(three, "hh@1", "base:tiny", 0.6)
    sign(three.as_actor("ann"), "hh@1", report, "evaluator")
    with pytest.raises(Conflict, match="no evaluator other than ann, who moves it, has signed"):
        aliases.move(three.as_actor("ann"), ALIAS, "hh@1", why="mine")
    assert aliases.move(three.as_actor("bob"), ALIAS, "hh@1", why="hers").who == "bob"


def test_a_rollback_never_waits_for_a_gate(three: Workspace) -> None:
    for version in ("hh@1", "hh@2"):
        aliases.move(three, ALIAS, version, why="up")
    gates.set_gate(three, ALIAS, WINS, "x")
    assert aliases.roll_back(three, ALIAS, why="worse").evidence == {} and _in_force(three) == "hh@1"
    aliases.roll_back(three, ALIAS, to="hh@2", why="no, it was good")
    assert _in_force(three) == "hh@2"


def test_a_gate_binds_the_alias_that_it_is_on_alone(three: Workspace) -> None:
    gates.set_gate(three, ALIAS, WINS, "x")
    aliases.move(three, "hh@candidate", "hh@1", why="free")
    with pytest.raises(Conflict, match="has a gate"):
        aliases.move(three, ALIAS, "hh@1", why="not free")


def test_a_figure_that_no_report_has_is_refused_with_those_that_there_are(three: Workspace) -> None:
    wrong = GateRules(rules=(Rule(figure="winrate", above=0.5),))
    gates.set_gate(three, "hh@early", wrong, "no report yet to tell by")
    _compare(three, "hh@1", "base:tiny", 0.6)
    with pytest.raises(BadInput, match="no comparison report has a figure 'winrate'") as refused:
        gates.set_gate(three, ALIAS, wrong, "x")
    assert refused.value.message.endswith("'winrate' (nearest: win_rate, win_rate_low)")
    assert refused.value.fix == (
        "there are n, repetition, win_rate, win_rate_low; all that a report has: rlhf report show R --json"
    )
    assert gates.gate_of(three, ALIAS) is None
    with pytest.raises(Conflict, match="has no figure 'winrate' of hh@1; the nearest are win_rate, win_rate_low"):
        aliases.move(three, "hh@early", "hh@1", why="x")


def test_fairness_is_among_the_figures_that_are_told_of(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 0)
    figures = dict.fromkeys((f"figure_{n}" for n in range(60)), 0.5) | {"fairness": {"worst_gap": {"value": 0.1}}}
    made.report(workspace, "ab12" * 16, {"hh@1": figures})
    with pytest.raises(BadInput) as refused:
        gates.set_gate(workspace, ALIAS, GateRules(report="evaluation", rules=(Rule(figure="zzz", above=0.5),)), "x")
    assert "54 more plain ones, fairness.*; all that a report has" in refused.value.fix
    assert len(refused.value.fix) < 200 and "nearest" not in refused.value.message


def test_rules_that_nothing_meets_are_refused_and_those_that_are_kept_already_are_still_read(three: Workspace) -> None:
    never = GateRules(rules=(Rule(figure="win_rate", at_least=0.5), Rule(figure="win_rate", at_most=0.4)))
    with pytest.raises(BadInput, match=r"nothing meets both 'win_rate >= 0.5' and 'win_rate <= 0.4'"):
        gates.set_gate(three, ALIAS, never, "x")
    with three.write() as write:
        gate_log.append(write, ALIAS, never, "before it was refused")
    assert gates.gate_of(three, ALIAS).rules == never  # type: ignore[union-attr]


def test_a_report_on_templates_is_passed_over_for_whatever_is_not_fairness(
    workspace: Workspace, tmp_path: Path
) -> None:
    made.published(workspace, tmp_path, 0)
    rules = GateRules(report="evaluation", rules=(Rule(figure="accuracy_low", at_least=0.6, min_n=100),))
    gates.set_gate(workspace, ALIAS, rules, "x")
    figures = {"hh@1": {"accuracy_low": 0.99, "n": 110}}
    suite = {"name": "suite:names@1", "split": "test"}
    with clock_at(2.1e9):
        made.report(workspace, "ab12" * 16, figures, snapshot=suite, labelers=[TEMPLATE])
    over = (
        "report ab12ab12ab12 on suite:names@1 has the verdicts of whoever wrote its templates, which count for fairness.* "
        "alone"
    )
    verdict = gates.check(workspace, ALIAS, "hh@1")
    assert not verdict.passed
    assert verdict.reasons == (
        f"no evaluation report of hh@1 on the test side of a snapshot ({over}, and was passed over)",
    )
    with pytest.raises(Conflict, match="was passed over"):
        aliases.move(workspace, ALIAS, "hh@1", why="x")
    with pytest.raises(BadInput, match=f"the gate doesn't read it: {over}"):
        gates.check(workspace, ALIAS, "hh@1", report="ab12" * 3)
    with clock_at(2.0e9):
        made.report(workspace, "0abc" * 16, figures, labelers=["human", TEMPLATE])
    found = gates.check(workspace, ALIAS, "hh@1")
    assert found.passed and found.evidence["report"] == "0abc" * 16
    assert found.cautions[-1] == f"{over}, and was passed over"
    with clock_at(2.2e9):
        made.report(workspace, "1abc" * 16, figures, labelers=["human"])
    assert not any("passed over" in caution for caution in gates.check(workspace, ALIAS, "hh@1").cautions)


@pytest.mark.parametrize(
    ("words", "signoffs", "counts"),
    [
        (("fairness.reward_gap <= 0.1",), (), True),
        (("fairness.reward_gap <= 0.1", "fairness.worst_gap.high <= 0.2"), (), True),
        (("fairness.reward_gap <= 0.1", "accuracy >= 0.5"), (), False),
        (("fairnesses >= 0",), (), False),
        ((), ("evaluator",), False),
    ],
)
def test_a_report_on_templates_counts_where_fairness_alone_is_asked_for(
    workspace: Workspace, tmp_path: Path, words: tuple[str, ...], signoffs: tuple[str, ...], counts: bool
) -> None:
    made.published(workspace, tmp_path, 0)
    rules = GateRules(report="evaluation", rules=tuple(map(Rule.model_validate, words)), signoffs=signoffs)
    gates.set_gate(workspace, ALIAS, rules, "x")
    gaps = {"reward_gap": {"value": 0.05, "n": 9}, "worst_gap": {"value": 0.05, "low": 0.0, "high": 0.1, "n": 9}}
    figures = {"accuracy": 0.9, "fairnesses": 1.0, "n": 9, "fairness": gaps}
    made.report(workspace, "ab12" * 16, {"hh@1": figures}, labelers=[TEMPLATE])
    verdict = gates.check(workspace, ALIAS, "hh@1")
    assert (verdict.report is not None) == counts == verdict.passed
    no_one_report = "fairness.reward_gap stands in reports on templates alone"
    assert any(no_one_report in said for said in rules.cautions) == (len(words) == 2 and not counts)


def test_a_gate_that_names_no_data_set_says_so(three: Workspace) -> None:
    said = "it names no data set: the newest comparison report on any suite or snapshot counts; pin one with snapshot: suite:NAME@1"
    gates.set_gate(three, ALIAS, WINS, "x")
    assert WINS.cautions == gates.check(three, ALIAS, "hh@1").cautions == (said,)
    assert gates.check(three, ALIAS, "hh@1").as_json()["cautions"] == [said]
    assert WINS.model_copy(update={"snapshot": "suite:bench@1"}).cautions == ()
    assert GateRules(canary="1h").cautions == ()


def test_a_report_on_a_suite_that_is_wanted_is_made_with_the_suite_s_own_option(
    workspace: Workspace, tmp_path: Path
) -> None:
    made.published(workspace, tmp_path, 0)
    rules = GateRules(report="evaluation", snapshot="suite:bench@1", rules=(Rule(figure="accuracy", above=0.6),))
    gates.set_gate(workspace, ALIAS, rules, "x")
    assert gates.check(workspace, ALIAS, "hh@1").fix == "make one: rlhf evaluate hh@1 --suite bench@1"
    compared = WINS.model_copy(update={"against": "base", "snapshot": "suite:bench@1"})
    gates.set_gate(workspace, ALIAS, compared, "x")
    assert "rlhf compare hh@1 base:tiny --suite bench@1 --judge" in gates.check(workspace, ALIAS, "hh@1").fix


def test_who_asks_what_a_gate_says_means_one(three: Workspace) -> None:
    with pytest.raises(NotFound, match=r"^no gate is on hh@champoin$") as refused:
        gates.require_gate(three, "hh@champoin")
    assert "rlhf gate list" in refused.value.fix and "rlhf alias gate hh@champoin --rules FILE" in refused.value.fix
    assert gates.set_gate(three, ALIAS, WINS, "x") == gates.require_gate(three, ALIAS)
    with pytest.raises(NotFound, match=r"no gate is on hh@champoin \(nearest: hh@champion\)"):
        gates.require_gate(three, "hh@champoin")


def test_a_changed_report_opens_no_gate(three: Workspace) -> None:
    gates.set_gate(three, ALIAS, WINS, "x")
    report = _compare(three, "hh@1", "base:tiny", 0.1)
    file = Path(three.artifacts.root) / "reports" / report[:12] / "report.json"
    file.write_text(file.read_text().replace("0.1", "0.9"))
    with pytest.raises(Damaged):
        aliases.move(three, ALIAS, "hh@1", why="x")


def test_a_gate_that_changes_while_a_move_is_under_way_stops_it(
    three: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = gates.check

    def then_changed(workspace: Workspace, alias: str, version: Any, **more: Any) -> gates.Verdict:
        verdict = checked(workspace, alias, version, **more)
        gates.set_gate(workspace, alias, WINS, "meanwhile")
        return verdict

    monkeypatch.setattr(gates, "check", then_changed)
    with pytest.raises(Conflict, match="gate of hh@champion was changed meanwhile"):
        aliases.move(three, ALIAS, "hh@1", why="x")


def test_gates_are_a_log_with_its_actors_and_the_same_again_is_no_entry(three: Workspace) -> None:
    first = gates.set_gate(three.as_actor("ann"), ALIAS, WINS, "strict")
    assert gates.set_gate(three.as_actor("bob"), ALIAS, WINS, "again") == first
    gates.remove_gate(three.as_actor("bob"), ALIAS, "in the way")
    assert gates.gate_of(three, ALIAS) is None
    with pytest.raises(NotFound, match="has no gate"):
        gates.remove_gate(three, ALIAS, "again")
    aliases.move(three, ALIAS, "hh@1", why="free")
    third = gates.set_gate(three, ALIAS, WINS, "back")
    assert (third.seq, third.digest) == (3, first.digest)
    with three.read() as connection:
        entries = [e for e in audit.entries(connection, subject=ALIAS) if "gate" in e["action"]]
        audit.verify(connection)
    assert [(e["actor"], e["action"], e["details"]["seq"]) for e in entries] == [
        ("ann", "alias.gate", 1),
        ("bob", "alias.ungate", 2),
        ("tester", "alias.gate", 3),
    ]


def test_a_gate_needs_its_reason_and_a_name_that_can_be_an_alias(three: Workspace) -> None:
    with pytest.raises(BadInput, match="why the gate is set"):
        gates.set_gate(three, ALIAS, WINS, " ")
    for wrong in ("hh", "hh@7", "hh@latest"):
        with pytest.raises(BadUsage):
            gates.set_gate(three, wrong, WINS, "x")


def test_other_refusals_come_as_they_did(three: Workspace) -> None:
    aliases.move(three, ALIAS, "hh@1", why="first")
    gates.set_gate(three, ALIAS, WINS, "x")
    with pytest.raises(Conflict, match="points at hh@1 already"):
        aliases.move(three, ALIAS, "hh@1", why="again")
    retire(three, "hh@2")
    with pytest.raises(BadInput, match="was retired"):
        aliases.move(three, ALIAS, "hh@2", why="x")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"rules": [{"figure": "x"}]},
        {"rules": [{"figure": "x", "above": 1, "below": 1}]},
        {"rules": [{"figure": "x", "above": 1, "min_n": 0}]},
        {"rules": [{"figure": "x", "above": float("nan")}]},
        {"rules": [{"figur": "x", "above": 1}]},
        {"signoffs": ["1 "]},
        {"rules": [{"figure": "x", "above": 1}], "four_eyes": True},
        {"rules": [{"figure": "x", "above": 1}], "report": "evaluation", "against": "base"},
        {"rules": [{"figure": "x", "above": 1, "relative": True}], "against": "any"},
        {"rules": [{"figure": "x", "above": 1}], "against": "nobody"},
        {"rules": [{"figure": "x", "above": 1}], "report": "evaluation", "judge": "people"},
    ],
)
def test_rules_that_could_never_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GateRules(**wrong)


def test_rules_are_read_from_yaml_and_everything_wrong_is_named(tmp_path: Path) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text("against: base\nrules:\n  - {figure: win_rate_low, above: 0.5, min_n: 50}\nsignoffs: [evaluator]\n")
    assert read_rules(file) == WINS.model_copy(update={"against": "base", "signoffs": ("evaluator",)})
    file.write_text("agains: base\nrules:\n  - {figure: x, above: high}\n")
    with pytest.raises(BadUsage) as refused:
        read_rules(file)
    assert "unknown setting 'agains' (nearest: 'against')" in refused.value.message
    assert "'rules[0].above' = 'high'" in refused.value.message
    with pytest.raises(BadUsage, match="no rules at"):
        read_rules(tmp_path / "absent.yaml")
