"""The operator's API: what is served and how well, and the way back, which the next request of every router takes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import served
from fastapi.testclient import TestClient
from operated import operated
from served import ALIAS, started
from test_web_board import expert
from test_web_labeler import BASE

from rlhf import people
from rlhf.registry import GateRules, aliases, gates, retire
from rlhf.serving import Router, guardrails, monitor, rollouts
from rlhf.store import Workspace, audit
from rlhf.web import create_app, standing


def operator(workspace: Workspace, name: str = "op", *scopes: str) -> TestClient:
    return expert(workspace, name, "operator", scopes)


def told(client: TestClient, alias: str = ALIAS) -> dict[str, Any]:
    answer = client.get("/api/operate")
    assert answer.status_code == 200, answer.text
    (one,) = (one for one in answer.json()["aliases"] if one["alias"] == alias)
    return dict(one)


def test_figures_are_those_of_what_was_recorded(workspace: Workspace, tmp_path: Path) -> None:
    rollout = operated(workspace, tmp_path)
    gates.set_gate(workspace, "hh@beta", GateRules(signoffs=("evaluator",)), "signed first")
    one, other = told(op := operator(workspace)), told(op, "hh@beta")
    assert (one["version"], one["who"], one["seq"], one["back"], one["gate"]) == ("hh@2", "ann", 2, "hh@1", False)
    assert (other["gate"], other["back"], other["rollout"], other["lately"]) == (True, None, None, None)
    assert one["lately"]["n"] == 400 and one["lately"]["per_minute"] == pytest.approx(400 / 15)
    assert one["lately"]["n_thumbs"] == 100 and one["lately"]["satisfaction"] == pytest.approx(0.66)
    shown = one["rollout"]
    assert (shown["id"], shown["kind"], shown["status"], shown["stages"]) == (
        rollout.id,
        "canary",
        "running",
        [50, 100],
    )
    arms = {arm["arm"]: arm for arm in shown["arms"]}
    assert {name: (arm["version"], arm["share"]) for name, arm in arms.items()} == {
        "control": ("hh@2", 50.0),
        "b": ("hh@3", 50.0),
    }
    with workspace.read() as connection:
        rows = monitor.served(connection, rollout)
        assert shown["figures"] == monitor.figures(rollout, rows)
        assert shown["verdict"] == guardrails.judge(connection, rollout, rows).as_json()
    for figures in shown["figures"].values():
        assert figures["error_rate"]["low"] <= figures["error_rate"]["value"] <= figures["error_rate"]["high"]
        assert figures["satisfaction"]["n"] > 0 and figures["reward"]["n"] > 0 and figures["latency_p95"]["value"] > 0


def test_a_rollback_through_the_page_reaches_a_following_router_within_a_second(
    either: Workspace, tmp_path: Path
) -> None:
    """The router has a connection of its own and hears nothing of the call: the store tells it, as another process's."""
    operated(either, tmp_path, n=20)
    other = Workspace.open(either.root, actor="server")
    router = Router(other)
    try:
        assert router.resolve(ALIAS).alias == ALIAS and router.rollouts()
        op = operator(either)
        seen = told(op)["seq"]
        began = time.monotonic()
        back = op.post(f"/api/operate/{ALIAS}/rollback", json={"seen": seen, "why": "complaints"}).json()
        while router.resolve(ALIAS).version != "hh@1" or router.rollouts():
            assert time.monotonic() - began < 1.0, "a second has passed"
            time.sleep(0.005)
        assert (back["from"], back["to"], back["seq"]) == ("hh@2", "hh@1", 3) and 0 < back["seconds"] < 1
        end = time.monotonic() + 5
        while told(op)["effect"] is None:
            assert time.monotonic() < end, "the router says how long it took"
            time.sleep(0.05)
        assert told(op)["effect"]["n"] == 1 and told(op)["effect"]["max_s"] < 1
    finally:
        router.close()
        other.close()
    last = aliases.history(either, ALIAS)[-1]
    assert (last.action, last.who, last.why) == ("rollback", "op", "complaints")
    assert told(op)["rollout"] is None, "the rollout beside it ended with that"


def test_nobody_takes_back_what_they_did_not_see(workspace: Workspace, tmp_path: Path) -> None:
    rollout = operated(workspace, tmp_path, n=20)
    op, two = operator(workspace), operator(workspace, "two")
    seen = told(op)
    aliases.move(workspace, ALIAS, "hh@4", why="mended")
    late = op.post(f"/api/operate/{ALIAS}/rollback", json={"seen": seen["seq"], "why": "complaints"})
    assert late.status_code == 409 and "moved meanwhile: tester pointed it at hh@4" in late.json()["error"]["message"]
    assert str(aliases.current(workspace, ALIAS)) == "hh@4"
    ended = op.post(f"/api/operate/rollouts/{rollout.id}/pause", json={"seen": seen["rollout"]["seq"], "why": "x"})
    assert ended.status_code == 409 and "superseded" in ended.json()["error"]["message"]
    again = started(workspace)
    body = {"seen": again.seq, "why": "looks good"}
    assert op.post(f"/api/operate/rollouts/{again.id}/advance", json=body).json()["rollout"]["stage"] == 1
    for verb in ("advance", "pause", "complete", "rollback"):
        lost = two.post(f"/api/operate/rollouts/{again.id}/{verb}", json=body)
        assert lost.status_code == 409 and "changed meanwhile" in lost.json()["error"]["message"], verb
    assert rollouts.status(workspace, ALIAS).seq == again.seq + 1


def test_a_rollout_goes_through_its_steps_in_the_name_of_who_is_logged_in(workspace: Workspace, tmp_path: Path) -> None:
    rollout = operated(workspace, tmp_path, n=20)
    op = operator(workspace)

    def step(verb: str, **more: Any) -> dict[str, Any]:
        body = {"seen": told(op)["rollout"]["seq"], "why": f"to {verb}", **more}
        answer = op.post(f"/api/operate/rollouts/{rollout.id}/{verb}", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["rollout"])

    assert step("pause")["status"] == "paused" and step("advance")["status"] == "running"
    assert [arm["share"] for arm in step("advance")["arms"]] == [0.0, 100.0]
    done = step("complete", arm="b")
    assert done["status"] == "completed" and told(op)["version"] == "hh@3"
    found = op.get(f"/api/operate/{ALIAS}").json()
    assert [entry["kind"] for entry in found["rollout"]["entries"]] == [
        "complete",
        "advance",
        "resume",
        "pause",
        "start",
    ]
    assert {entry["who"] for entry in found["rollout"]["entries"]} == {"op", "ann"}
    assert found["history"][0]["rollout"] == rollout.id and found["history"][0]["from"] == "hh@2"
    back = op.post(f"/api/operate/rollouts/{rollout.id}/rollback", json={"seen": done["seq"], "why": "no"})
    assert back.status_code == 200 and told(op)["version"] == "hh@2", "the alias went back: it had moved"
    with workspace.read() as connection:
        audit.verify(connection)


def test_a_rollback_may_name_where_to_and_never_what_is_retired(workspace: Workspace, tmp_path: Path) -> None:
    operated(workspace, tmp_path, n=1)
    aliases.move(workspace, ALIAS, "hh@4", why="on")
    op = operator(workspace)
    found = op.get(f"/api/operate/{ALIAS}").json()
    assert (found["version"], found["back"], found["returns"]) == ("hh@4", "hh@2", ["hh@2", "hh@1"])
    never = op.post(f"/api/operate/{ALIAS}/rollback", json={"seen": found["seq"], "why": "x", "to": "hh@3"})
    assert never.status_code == 400 and "never pointed at hh@3" in never.json()["error"]["message"]
    back = op.post(f"/api/operate/{ALIAS}/rollback", json={"seen": found["seq"], "why": "x", "to": "hh@1"}).json()
    assert (back["from"], back["to"]) == ("hh@4", "hh@1")
    retire(workspace, "hh@2")
    found = op.get(f"/api/operate/{ALIAS}").json()
    assert (found["back"], found["returns"]) == (None, ["hh@4"]), "hh@1 is its first entry again"
    first = op.post(f"/api/operate/{ALIAS}/rollback", json={"seen": found["seq"], "why": "x"})
    assert first.status_code == 409 and "first entry" in first.json()["error"]["message"]


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        (("evaluate",), []),
        (("promote",), ["advance", "complete"]),
        (("roll_back",), ["pause", "rollback", "take back"]),
    ],
)
def test_a_token_does_what_its_scopes_say(
    workspace: Workspace, tmp_path: Path, scopes: tuple[str, ...], may: list[str]
) -> None:
    rollout = operated(workspace, tmp_path, n=1)
    client = operator(workspace, "op", *scopes)
    assert client.get("/operate").status_code == client.get(f"/api/operate/{ALIAS}").status_code == 200
    assert client.get("/api/operate").json()["may"] == [word for word in ("promote", "roll_back") if word in scopes]
    stale: dict[str, Any] = {"seen": 99, "why": "x"}
    answers = {
        verb: client.post(f"/api/operate/rollouts/{rollout.id}/{verb}", json=stale).status_code
        for verb in ("advance", "pause", "complete", "rollback")
    }
    answers["take back"] = client.post(f"/api/operate/{ALIAS}/rollback", json=stale).status_code
    assert answers == {deed: 409 if deed in may else 403 for deed in answers}


def test_the_first_page_and_the_headers_lead_there(workspace: Workspace) -> None:
    sent = {}
    for role in people.ROLES:
        client = expert(workspace, role, role)
        sent[role] = client.get("/").headers.get("location")
    deciding = {"operator": "/board", "evaluator": "/decisions", "researcher": "/decisions"}
    assert sent == {role: deciding.get(role) for role in people.ROLES}
    assert operator(workspace, "op", "roll_back").get("/").headers["location"] == "/operate"
    named = ("operator", "reviewer", "evaluator")
    op, reviewer, evaluator = (people.issue_token(workspace, who, people.ROLES[who]) for who in named)

    def page(token: str, path: str) -> str:
        return (
            TestClient(create_app(workspace), base_url=BASE, headers={"Authorization": f"Bearer {token}"})
            .get(path)
            .text
        )

    assert 'href="/operate"' in page(op, "/board") and 'href="/operate"' not in page(reviewer, "/board")
    assert 'href="/board"' in page(op, "/operate") and 'href="/board"' not in page(evaluator, "/operate")


@pytest.mark.parametrize(
    "wrong",
    [{"why": " "}, {"why": "a\x00b"}, {"why": "x" * 2001}, {"seen": 0}, {"seen": "x"}, {"seen": 2**31}, {"more": 1}, {"to": ""},
     {"arm": "b"}],
)  # fmt: skip
def test_what_cannot_be_a_rollback_is_refused(workspace: Workspace, tmp_path: Path, wrong: dict[str, Any]) -> None:
    operated(workspace, tmp_path, n=1)
    refused = operator(workspace).post(f"/api/operate/{ALIAS}/rollback", json={"seen": 2, "why": "fine", **wrong})
    assert refused.status_code == 400 and str(aliases.current(workspace, ALIAS)) == "hh@2"


def test_a_shadow_is_told_as_one(workspace: Workspace, tmp_path: Path) -> None:
    served.with_versions(workspace, tmp_path)
    started(workspace, "shadow", "hh@2")
    op = operator(workspace)
    arms = told(op)["rollout"]["arms"]
    assert [(arm["arm"], arm["share"], arm["shadowed"]) for arm in arms] == [("control", 100, None), ("b", 0, 100)]


def test_what_is_not_there_is_said(workspace: Workspace) -> None:
    op = operator(workspace)
    body = {"seen": 1, "why": "x"}
    assert op.get("/api/operate").json()["aliases"] == []
    assert op.get("/api/operate/hh@nobody").status_code == 404
    assert op.get("/api/operate/hh").status_code == 400
    assert op.post("/api/operate/hh@nobody/rollback", json=body).status_code == 409, "never seen, so never at entry 1"
    assert op.post("/api/operate/rollouts/0123456789/pause", json=body).status_code == 404
    assert op.post("/api/operate/rollouts/0123456789/start", json=body).status_code == 400


def test_who_looks_often_makes_nobody_reckon_again(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = operated(workspace, tmp_path, n=40)
    reckoned: list[str] = []
    whole = monitor.figures
    monkeypatch.setattr(monitor, "figures", lambda *args: reckoned.append("once") or whole(*args))
    figures = standing.Figures(workspace)
    first = figures.of(rollout)
    assert figures.of(rollout) is first and len(reckoned) == 1
    router = Router(workspace, follow=False)
    served.serve(workspace, router, 5, lambda arm, chance: {"status": "ok"}, seed=9)
    router.close()
    stepped = rollouts.advance(workspace, rollout.id, why="on")
    assert sum(arm["n"] for arm in figures.of(stepped)["figures"].values()) == 45, "an entry is shown at once"
    now = time.monotonic()
    monkeypatch.setattr(standing.time, "monotonic", lambda: now + 60)
    figures.of(stepped)
    assert len(reckoned) == 3


def test_the_web_completes_a_rollout_without_torch(workspace: Workspace, tmp_path: Path) -> None:
    """Files of a version are read where its alias moves; neither that nor the page's figures load torch."""
    operated(workspace, tmp_path, n=20)
    people.add(workspace, "op", ["operator"])
    token = people.issue_token(workspace, "op", people.ROLES["operator"])
    script = f"""
import sys
from fastapi.testclient import TestClient
from rlhf.store import Workspace
from rlhf.web import create_app
client = TestClient(create_app(Workspace.open({str(workspace.root)!r}, actor="web")), base_url={BASE!r})
client.headers["Authorization"] = "Bearer {token}"
one = next(a for a in client.get("/api/operate").json()["aliases"] if a["rollout"])
ended = client.post(f"/api/operate/rollouts/{{one['rollout']['id']}}/advance", json={{"seen": 1, "why": "x"}})
ended = client.post(f"/api/operate/rollouts/{{one['rollout']['id']}}/complete", json={{"seen": 2, "why": "x"}})
assert ended.json()["rollout"]["status"] == "completed", ended.text
assert not {{"torch", "transformers", "peft"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert str(aliases.current(workspace, ALIAS)) == "hh@3"
