"""Decisions: each move of an alias, each change of its gate and each retirement has its record in the same transaction; a promotion
is taken back by one rollback that names it; and what is in force wants its regular look."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import adapter_folders as made
import pytest
from sqlalchemy import select, text

from rlhf.errors import BadInput, BadUsage, Conflict, Damaged, NotFound
from rlhf.ids import clock_at, digest_text
from rlhf.registry import (
    GateRules,
    Rule,
    aliases,
    decision_content,
    decision_log,
    decisions,
    gates,
    resolve,
    retire,
    sign,
)
from rlhf.registry.gate_reports import FoundReport
from rlhf.store import Workspace, audit
from rlhf.store.tables import decisions as table

ALIAS = "hh@champion"
DAY = 86_400.0
RULES = GateRules(
    report="evaluation",
    against="any",
    rules=(Rule(figure="accuracy_low", at_least=0.6, min_n=50), Rule(figure="fairness.worst_gap", at_most=0.05)),
    signoffs=("evaluator",),
    review_days=30,
    risk_class="standard",
)
FIGURES = {
    "accuracy": 0.7,
    "accuracy_low": 0.64,
    "n": 200,
    "fairness": {"worst_gap": {"value": 0.03, "low": 0.0, "high": 0.06, "n": 80, "level": 0.95, "method": "bootstrap"}},
    "measures": {"accuracy": {"value": 0.7, "low": 0.64, "high": 0.76, "n": 180, "level": 0.95, "method": "bootstrap"}},
}


def ready(workspace: Workspace, scratch: Path, n: int = 2) -> Workspace:
    for seed in range(n):
        made.published(workspace, scratch, seed)
    return workspace


@pytest.fixture
def two(workspace: Workspace, tmp_path: Path) -> Workspace:
    return ready(workspace, tmp_path)


def report(workspace: Workspace, *versions: str, **more: Any) -> str:
    digest = digest_text(repr((versions, more)))
    figures: dict[str, Mapping[str, Any]] = dict.fromkeys(versions, FIGURES)
    made.report(workspace, digest, figures, method={"accuracy": "share ranked as the labelers did"}, seed=3, **more)
    return digest


def last(workspace: Workspace) -> decisions.Standing:
    return decisions.list_decisions(workspace)[-1]


def test_a_promotion_through_a_gate_has_its_whole_record(either: Workspace, tmp_path: Path) -> None:
    ready(either, tmp_path)
    gates.set_gate(either.as_actor("ada"), ALIAS, RULES, "it is served to everybody")
    digest = report(either, "hh@1", simulated=True, assumptions=["pairs are independent"])
    sign(either.as_actor("eva"), "hh@1", digest, "evaluator")
    move = aliases.move(either.as_actor("ops"), ALIAS, "hh@1", why="better on held-out pairs")
    shown = decisions.show(either, last(either).decision.number)
    one, content = shown.decision, shown.decision.content
    assert (one.kind, one.alias, one.alias_seq, one.who, one.why) == (
        "promotion", ALIAS, move.seq, "ops", "better on held-out pairs"
    )  # fmt: skip
    assert (one.from_digest, one.to_digest) == (None, resolve(either, "hh@1").digest)
    assert content["gate"]["class"] == "standard" and content["gate"]["digest"] == gates.gate_of(either, ALIAS).digest  # type: ignore[union-attr]
    first, second, third = content["gate"]["results"]
    assert (first["rule"], first["met"], first["value"], first["n"], first["method"]) == (
        "accuracy_low >= 0.6 of 50", True, 0.64, 180, "bootstrap"
    )  # fmt: skip
    assert (second["value"], second["n"], second["low"], second["high"]) == (0.03, 80, 0.0, 0.06)
    assert (third["role"], third["who"], len(third["digest"])) == ("evaluator", "eva", 64)
    assert content["report"]["digest"] == digest and content["report"]["n"] == 200 and content["report"]["seed"] == 3
    assert content["figures"]["to"]["accuracy"] == 0.7 and content["figures"]["from"] is None
    assert content["methods"] == {"accuracy": "share ranked as the labelers did"}
    assert content["assumptions"][0] == "pairs are independent" and "simulated labelers" in content["assumptions"][-1]
    assert content["signoffs"] == [{key: third[key] for key in ("role", "who", "at", "digest")}]
    assert shown.in_force and not shown.is_overdue
    with either.read() as connection:
        (entry,) = audit.entries(connection, subject=str(one.number), action="decision.record")
        audit.verify(connection)
    assert entry["details"]["digest"] == one.digest and entry["actor"] == "ops"


def test_a_move_and_its_decision_are_there_together_or_not_at_all(
    either: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(either, tmp_path)
    aliases.move(either, ALIAS, "hh@1", why="first")

    def refused(*_: Any, **__: Any) -> int:
        raise RuntimeError("the pen broke")

    with monkeypatch.context() as patch:
        patch.setattr(decision_log, "record", refused)
        for call in (
            lambda: aliases.move(either, ALIAS, "hh@2", why="up"),
            lambda: gates.set_gate(either, ALIAS, RULES, "x"),
            lambda: retire(either, "hh@2"),
        ):
            with pytest.raises(RuntimeError):
                call()
    assert str(aliases.current(either, ALIAS)) == "hh@1" and len(aliases.history(either, ALIAS)) == 1
    assert gates.gate_of(either, ALIAS) is None
    aliases.move(either, ALIAS, "hh@2", why="not retired, then")
    assert [one.decision.number for one in decisions.list_decisions(either)] == [1, 2]


def test_every_kind_of_decision_is_in_the_log_in_order(either: Workspace, tmp_path: Path) -> None:
    ready(either, tmp_path, 3)
    aliases.move(either, ALIAS, "hh@1", why="first")
    gates.set_gate(either, ALIAS, RULES, "from now on")
    gates.set_gate(either, ALIAS, RULES, "the same again is none")
    gates.set_gate(
        either, ALIAS, RULES.model_copy(update={"rules": RULES.rules[:1], "risk_class": "low"}), "too strict"
    )
    gates.remove_gate(either, ALIAS, "in the way")
    aliases.move(either, ALIAS, "hh@2", why="up")
    aliases.roll_back(either, ALIAS, why="worse")
    retire(either, "hh@3", why="never good")
    retire(either, "hh@3", why="twice is once")
    found = decisions.list_decisions(either)
    assert [(one.decision.number, one.decision.kind) for one in found] == [
        (1, "promotion"), (2, "gate"), (3, "gate"), (4, "gate"), (5, "promotion"), (6, "rollback"), (7, "retirement")
    ]  # fmt: skip
    assert [one.title for one in found] == [
        "hh@champion moves from nothing to hh@1",
        "hh@champion has a gate of class standard",
        "hh@champion has another gate of class low",
        "hh@champion has no gate any more",
        "hh@champion moves from hh@1 to hh@2",
        "hh@champion goes back from hh@2 to hh@1",
        "hh@3 is retired",
    ]
    assert found[2].decision.content["gate"]["no_more"] == ["fairness.worst_gap <= 0.05"]
    assert (found[5].decision.takes_back, found[4].taken_back_by) == (5, 6)
    assert found[5].decision.content["returned_to"] == 1
    assert [one.in_force for one in found[4:6]] == [False, True] and found[0].in_force


def test_a_gate_that_was_opened_before_a_promotion_is_told_in_it(two: Workspace) -> None:
    """Nobody goes around a gate in silence: who asked less of the alias stands in what moved it."""
    gates.set_gate(two, ALIAS, RULES, "strict")
    gates.remove_gate(two.as_actor("mallory"), ALIAS, "in a hurry")
    aliases.move(two.as_actor("mallory"), ALIAS, "hh@1", why="quick")
    content = last(two).decision.content
    assert content["gate"] is None
    opened = [change for change in content["gate_changes"] if change["no_more"]]
    assert [(change["who"], change["decision"]) for change in opened] == [("mallory", 2)]
    assert "signed by evaluator" in opened[0]["no_more"] and "accuracy_low >= 0.6 of 50" in opened[0]["no_more"]
    aliases.move(two, ALIAS, "hh@2", why="later")
    assert last(two).decision.content["gate_changes"] == []


def test_figures_of_both_stand_beside_each_other_and_a_named_report_counts_without_a_gate(two: Workspace) -> None:
    aliases.move(two, ALIAS, "hh@1", why="first")
    digest = report(two, "hh@1", "hh@2")
    report(two, "hh@2")
    aliases.move(two, ALIAS, "hh@2", why="up", evidence={"report": digest})
    content = last(two).decision.content
    assert content["report"]["digest"] == digest and content["evidence"] == {"report": digest}
    assert content["figures"]["from"] == content["figures"]["to"] and content["figures"]["to"]["accuracy_low"] == 0.64


def test_a_damaged_report_keeps_nothing_from_moving_where_no_gate_reads_it(two: Workspace) -> None:
    digest = report(two, "hh@1")
    (Path(two.artifacts.root) / "reports" / digest[:12] / "report.json").write_text("{}")
    aliases.move(two, ALIAS, "hh@1", why="free")
    assert last(two).decision.content["report"] is None


def test_a_promotion_is_taken_back_by_the_alias_rollback_that_names_it(either: Workspace, tmp_path: Path) -> None:
    ready(either, tmp_path)
    for version in ("hh@1", "hh@2"):
        aliases.move(either, ALIAS, version, why="up")
    gates.set_gate(either, ALIAS, RULES, "no gate keeps from taking back")
    moved = decisions.revoke(either.as_actor("eva"), 2, why="complaints")
    assert (moved.action, moved.who, str(aliases.current(either, ALIAS))) == ("rollback", "eva", "hh@1")
    made_now = last(either)
    assert (made_now.decision.takes_back, made_now.decision.kind) == (2, "rollback")
    assert decisions.show(either, 2).taken_back_by == made_now.decision.number
    with pytest.raises(Conflict, match="decision 2 was taken back by decision 4"):
        decisions.revoke(either, 2, why="again")
    with pytest.raises(Conflict, match="first entry"):
        decisions.revoke(either, 1, why="there is nothing before it")


def test_what_is_no_promotion_in_force_is_not_taken_back(two: Workspace) -> None:
    for version in ("hh@1", "hh@2", "hh@1"):
        aliases.move(two, ALIAS, version, why="up")
    aliases.roll_back(two, ALIAS, why="down")
    gates.set_gate(two, ALIAS, RULES, "x")
    before = aliases.history(two, ALIAS)
    with pytest.raises(Conflict, match="has moved on since decision 1"):
        decisions.revoke(two, 1, why="x")
    with pytest.raises(BadInput, match="decision 4 is a rollback") as back:
        decisions.revoke(two, 4, why="x")
    assert back.value.fix == "promote the version again, through its gate: rlhf alias set hh@champion hh@1 --why TEXT"
    with pytest.raises(BadInput, match="decision 5 is a gate"):
        decisions.revoke(two, 5, why="x")
    with pytest.raises(NotFound, match="there is no decision 9"):
        decisions.revoke(two, 9, why="x")
    with pytest.raises(BadInput, match="why the decision is taken back"):
        decisions.revoke(two, 2, why=" ")
    assert aliases.history(two, ALIAS) == before
    decisions.revoke(two, 2, why="where the alias stands after its rollback")
    assert str(aliases.current(two, ALIAS)) == "hh@1" and last(two).decision.takes_back == 2


def test_a_decision_is_overdue_after_its_days_and_a_review_that_was_held_renews_it(two: Workspace) -> None:
    with clock_at(1.0e9):
        gates.set_gate(two, ALIAS, GateRules(canary=None, signoffs=("x",), against="any", review_days=30), "x")
        gates.remove_gate(two, ALIAS, "so that it moves")
        aliases.move(two, ALIAS, "hh@1", why="without a gate: no date")
        gates.set_gate(two, ALIAS, RULES, "x")
        digest = report(two, "hh@2")
        sign(two.as_actor("eva"), "hh@2", digest, "evaluator")
        aliases.move(two, ALIAS, "hh@2", why="due in 30 days")
    with clock_at(1.0e9 + 29 * DAY):
        assert decisions.list_decisions(two, overdue=True) == ()
    with clock_at(1.0e9 + 31 * DAY):
        (late,) = decisions.list_decisions(two, overdue=True)
        assert late.decision.why == "due in 30 days" and late.as_json()["overdue"]
        held = decisions.hold_review(two.as_actor("eva"), "looked at complaints: none", seen=late.decision.number)
        assert held.decision.content["overdue"] == [late.decision.number]
        assert held.decision.content["in_force"] == [late.decision.number]
        assert decisions.list_decisions(two, overdue=True) == ()
    with clock_at(1.0e9 + 62 * DAY):
        assert [one.decision.number for one in decisions.list_decisions(two, overdue=True)] == [late.decision.number]
        aliases.roll_back(two, ALIAS, why="what is no longer in force is not due")
        assert decisions.list_decisions(two, overdue=True) == ()
    with clock_at(1.0e9 + 100 * DAY):
        assert [one.decision.kind for one in decisions.list_decisions(two, overdue=True)] == ["rollback"]


def test_a_review_is_of_what_was_seen_and_needs_its_notes(two: Workspace) -> None:
    aliases.move(two, ALIAS, "hh@1", why="first")
    with pytest.raises(Conflict, match=r"decision 1 was made meanwhile \(you have seen up to 0\)"):
        decisions.hold_review(two, "fine", seen=0)
    for notes in (" ", "x" * 5000):
        with pytest.raises(BadInput):
            decisions.hold_review(two, notes)
    assert decisions.hold_review(two, "fine", seen=1).decision.number == 2


def test_the_list_is_cut_by_time_review_alias_and_kind(two: Workspace) -> None:
    with clock_at(1.0e9):
        aliases.move(two, ALIAS, "hh@1", why="first")
    with clock_at(1.0e9 + DAY):
        decisions.hold_review(two, "fine")
        aliases.move(two, "hh@beta", "hh@2", why="other")

    def numbers(**chosen: Any) -> list[int]:
        return [one.decision.number for one in decisions.list_decisions(two, **chosen)]

    assert numbers(since="2001-09-10") == [2, 3] and numbers(since="2001-09-09T01:46:40+00:00") == [1, 2, 3]
    assert numbers(since="2001-09-10T03:46:40+02:00") == [2, 3]
    assert numbers(since="review") == [3] and numbers(alias=ALIAS) == [1] and numbers(kind="review") == [2]
    with pytest.raises(BadUsage, match="is no day"):
        numbers(since="tuesday")


def test_a_decision_that_was_changed_is_not_shown(two: Workspace) -> None:
    aliases.move(two, ALIAS, "hh@1", why="first")
    with two.write() as write:
        write.connection.execute(text("update decisions set who = 'somebody else'"))
    with pytest.raises(Damaged, match="isn't what was recorded"):
        decisions.show(two, 1)


def test_decisions_hold_no_words_and_no_labelers(two: Workspace, tmp_path: Path) -> None:
    """What stands behind a version is counted, by digest: nothing in a decision needs erasing."""
    from rlhf import feedback, snapshots

    rows = [
        {
            "prompt": f"secret question {n}",
            "a": "secret yes",
            "b": "secret no",
            "labeler": f"labeler-{n % 3}",
            "vote": "a",
        }
        for n in range(12)
    ]
    file = tmp_path / "votes.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    feedback.import_files(two, [file], source="votes")
    cut = snapshots.cut(two, "hh", holdout=0.2)
    made.published(two, tmp_path, 7, snapshot_digest=cut.digest)
    aliases.move(two, ALIAS, "hh@3", why="first")
    (data,) = last(two).decision.content["data"]
    assert (data["snapshot"], data["digest"], data["judgements"]) == ("hh@1", cut.digest, 12)
    assert data["labelers"]["known"] == 3 and data["consents"]
    with two.read() as connection:
        stored = repr(connection.execute(select(table)).all())
    assert "secret" not in stored and "labeler-" not in stored


def test_movers_at_once_leave_one_decision_for_each_move(either: Workspace, tmp_path: Path) -> None:
    ready(either, tmp_path, 4)

    def move(number: int) -> None:
        aliases.move(either, f"hh@a{number}", f"hh@{number}", why="at once")
        retired = either.as_actor(f"w{number}")
        aliases.move(retired, f"hh@b{number}", f"hh@{number}", why="at once")

    threads = [threading.Thread(target=move, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = decisions.list_decisions(either)
    assert [one.decision.number for one in found] == list(range(1, 9))
    assert len({one.decision.alias for one in found}) == 8
    with either.read() as connection:
        audit.verify(connection)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "nobody has checked the judge against people"),
        (0.71, "the judge agrees with people on 71.0% of 40 pairs"),
    ],
)
def test_a_decision_says_whether_the_judge_that_it_rests_on_was_checked(value: float | None, said: str) -> None:
    judge = {"name": "hh@1", "flatters": ["demo@1"], "agreement": {"agreement": {"value": value, "n": 40}}}
    found = FoundReport("0" * 64, "comparison", "a against b", {"judge": judge}, "demo@1", None)
    told = decision_content._assumptions(found)
    assert any(line.startswith(said) for line in told) and "flatters it" in told[0]


def test_a_decision_tells_a_judges_agreement_by_source() -> None:
    shown = {"hh": {"value": 0.9, "n": 30}, "convarg": {"value": 0.4, "n": 31}}
    known = {"agreement": {"value": 0.65, "n": 61}, "by_source": {"shown": shown, "hidden": {}}}
    judge = {"name": "hh@1", "flatters": [], "agreement": known}
    found = FoundReport("0" * 64, "comparison", "a against b", {"judge": judge}, "demo@1", None)
    told = decision_content._assumptions(found)
    assert "of these, from hh: 90.0% of 30" in told and "of these, from convarg: 40.0% of 31" in told
