"""The regular review as its API tells it: what came in since the last one, what was decided and changed, what is overdue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import adapter_folders as made
import pytest
from fastapi.testclient import TestClient
from test_web_board import expert

from rlhf import feedback
from rlhf.erasure import erase
from rlhf.ids import clock_at, digest_text, first_id_at, new_id, now
from rlhf.registry import GateRules, Rule, aliases, decisions, gates, sign
from rlhf.serving import rollouts
from rlhf.serving.settings import RolloutSettings
from rlhf.store import Workspace

ALIAS = "hh@champion"
DAY = 86_400.0
RULES = GateRules(
    report="evaluation", against="any", rules=(Rule(figure="accuracy_low", at_least=0.6),), signoffs=("evaluator",),
    review_days=30, risk_class="standard",
)  # fmt: skip


def reported(workspace: Workspace, **low_of: float) -> str:
    """An evaluation of hh_1=0.64 and so on, with intervals."""
    digest = digest_text(repr(sorted(low_of.items())))
    figures = {
        name.replace("_", "@"): {"accuracy": low + 0.06, "accuracy_low": low, "accuracy_high": low + 0.12, "n": 200}
        for name, low in low_of.items()
    }
    made.report(workspace, digest, figures)
    return digest


def votes(workspace: Workspace, scratch: Path, n: int, source: str) -> None:
    file = scratch / f"{source}.jsonl"
    rows = [{"prompt": f"{source} {i}", "a": "yes", "b": "no", "labeler": f"l{i % 3}", "vote": "a"} for i in range(n)]
    file.write_text("\n".join(map(json.dumps, rows)))
    feedback.import_files(workspace, [file], source=source)


def decided(workspace: Workspace, scratch: Path) -> Workspace:
    """hh@champion: hh@1 without a gate, then hh@2 through one; hh@3 waits."""
    for seed in range(3):
        made.published(workspace, scratch, seed)
    aliases.move(workspace.as_actor("ops"), ALIAS, "hh@1", why="first")
    gates.set_gate(workspace.as_actor("ada"), ALIAS, RULES, "from now on")
    report = reported(workspace, hh_1=0.6, hh_2=0.7)
    sign(workspace.as_actor("eva"), "hh@2", report, "evaluator")
    aliases.move(workspace.as_actor("ops"), ALIAS, "hh@2", why="better on held-out pairs")
    return workspace


def told(client: TestClient) -> dict[str, Any]:
    answer = client.get("/api/decisions")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_what_came_in_is_counted_since_the_last_review(either: Workspace, tmp_path: Path) -> None:
    start = now().timestamp()
    with clock_at(start - 20):
        votes(either, tmp_path, 5, "old")
    with clock_at(start - 10):
        decisions.hold_review(either, "the first")
    with clock_at(start):
        votes(either, tmp_path, 9, "new")
        erase(either, "pair", _pair_of(either, "old"))
    came = told(expert(either, "eva", "evaluator", ()))["came_in"]
    assert (came["judgements"], came["by_kind"], came["labelers"]) == (9, {"human": 9}, 3)
    assert (came["sources"], came["n_sources"], came["imports"], came["erasures"], came["appeals"]) == (
        ["new"],
        1,
        1,
        1,
        0,
    )


def _pair_of(workspace: Workspace, source: str) -> str:
    from sqlalchemy import select

    from rlhf.store.tables import pair_sources

    with workspace.read() as connection:
        query = select(pair_sources.c.pair_id).where(pair_sources.c.source == source)
        return str(connection.execute(query.order_by(pair_sources.c.pair_id).limit(1)).scalar_one())


def test_ids_are_cut_by_time_with_their_own_order() -> None:
    with clock_at(1.0e9):
        before = new_id()
    with clock_at(1.0e9 + 0.002):
        after = new_id()
    assert before < first_id_at(1.0e9 + 0.002) <= after and first_id_at(1.0e9) <= before


def test_what_was_decided_and_changed_stands_with_figures_beside_each_other(
    workspace: Workspace, tmp_path: Path
) -> None:
    decided(workspace, tmp_path)
    found = told(expert(workspace, "eva", "evaluator", ()))
    assert [(one["decision"], one["kind"], one["who"]) for one in found["decided"]] == [
        (3, "promotion", "ops"), (2, "gate", "ada"), (1, "promotion", "ops")
    ]  # fmt: skip
    assert (found["review"], found["last"], found["may"], found["me"]) == (None, 3, ["review"], "eva")
    (change,) = found["changed"]
    assert (change["alias"], change["from"], change["to"], change["moves"]) == (ALIAS, None, "hh@2", 2)
    assert change["figures"] == [
        {"figure": "accuracy", "from": None, "to": {"value": 0.76, "low": 0.7, "high": pytest.approx(0.82)}}
    ], "of what it pointed at before these two moves there is nothing to tell"


def test_a_change_since_the_last_review_has_both_figures(workspace: Workspace, tmp_path: Path) -> None:
    decided(workspace, tmp_path)
    decisions.hold_review(workspace, "fine")
    report = reported(workspace, hh_2=0.65, hh_3=0.8)
    sign(workspace.as_actor("eva"), "hh@3", report, "evaluator")
    aliases.move(workspace, ALIAS, "hh@3", why="up")
    found = told(op := expert(workspace, "op", "operator", ()))
    (change,) = found["changed"]
    assert (change["from"], change["to"], change["report"]["digest"]) == ("hh@2", "hh@3", report)
    (figure,) = change["figures"]
    assert (figure["from"]["low"], figure["to"]["low"]) == (0.65, 0.8)
    assert found["review"]["notes"] == "fine" and found["overdue"]["gates"] == []
    taken = op.post("/api/decisions/5/revoke", json={"why": "complaints"}).json()["decision"]
    assert (taken["kind"], taken["takes_back"], taken["who"]) == ("rollback", 5, "op")
    assert told(op)["changed"][0]["is_back"] and str(aliases.current(workspace, ALIAS)) == "hh@2"
    refused = op.post("/api/decisions/5/revoke", json={"why": "again"})
    assert refused.status_code == 409 and "taken back by decision 6" in refused.json()["error"]["message"]


def test_what_is_overdue_is_told_with_what_to_do(workspace: Workspace, tmp_path: Path) -> None:
    start = now().timestamp()
    decided(workspace, tmp_path)
    settings = RolloutSettings(kind="canary", arms={"b": {"version": "hh@3"}}, ramp=[{"share": 50}, {"share": 100}])
    rollouts.start(workspace, ALIAS, settings, why="try it")
    client = expert(workspace, "eva", "evaluator", ())
    overdue = told(client)["overdue"]
    assert overdue["reviews"] == []
    (gate,) = overdue["gates"]
    assert (gate["version"], gate["in_force"]) == ("hh@3", False)
    assert gate["reasons"] == ["no evaluation report of hh@3 on the test side of a snapshot"]
    assert gate["fix"].startswith("make one: rlhf evaluate hh@3")
    (canary,) = overdue["canaries"]
    assert (canary["alias"], canary["waits_for"], canary["status"]) == (ALIAS, "somebody to advance it", "running")
    rollouts.pause(workspace, ALIAS, why="lunch")
    assert told(client)["overdue"]["canaries"][0]["waits_for"] == "somebody to go on or to roll back: lunch"
    gates.set_gate(workspace, ALIAS, RULES.model_copy(update={"review_days": 60}), "another look later")
    assert [one["in_force"] for one in told(client)["overdue"]["gates"]] == [True, False], (
        "hh@2 came by the gate before"
    )
    with workspace.read() as connection:
        last = decisions.list_decisions(workspace)[-1].decision.number
        assert decisions.last_review(connection) is None
    with clock_at(start + 31 * DAY):
        aged = told(expert(workspace, "eve", "evaluator", ()))
        assert [one["decision"] for one in aged["overdue"]["reviews"]] == [3]
        decisions.hold_review(workspace, "looked", seen=last)
        assert told(expert(workspace, "evo", "evaluator", ()))["overdue"]["reviews"] == []


def test_a_review_is_held_once_for_what_was_seen(workspace: Workspace, tmp_path: Path) -> None:
    decided(workspace, tmp_path)
    client = expert(workspace, "eva", "evaluator", ())
    for body in ({"seen": 3}, {"seen": 3, "notes": " "}, {"seen": -1, "notes": "x"}, {"seen": 3, "notes": "x\x00"}):
        assert client.post("/api/reviews", json=body).status_code == 400
    refused = client.post("/api/reviews", json={"seen": 2, "notes": "fine"})
    assert refused.status_code == 409 and "decision 3 was made meanwhile" in refused.json()["error"]["message"]
    held = client.post("/api/reviews", json={"seen": 3, "notes": "no complaints"}).json()["decision"]
    assert (held["kind"], held["who"], held["why"], held["content"]["up_to"]) == ("review", "eva", "no complaints", 3)
    after = told(client)
    assert after["decided"] == [] and after["changed"] == [] and after["review"]["who"] == "eva" and after["last"] == 4


def test_one_decision_is_shown_whole(workspace: Workspace, tmp_path: Path) -> None:
    decided(workspace, tmp_path)
    client = expert(workspace, "eva", "evaluator", ())
    content = client.get("/api/decisions/3").json()["decision"]["content"]
    assert content["gate"]["class"] == "standard" and content["signoffs"][0]["who"] == "eva"
    for number, status in (("9", 404), ("0", 400), ("x", 400), ("99999999999", 400)):
        assert client.get(f"/api/decisions/{number}").status_code == status
