"""A labeler under the bar: the answer that led to it is saved, the page says why, and the appeal reaches a reviewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_labeling_checks import write_gold
from test_web_browser import page  # noqa: F401
from test_web_guard import browser
from test_web_labeler import XSS, add_pair, client_of

from rlhf import labeling, people
from rlhf.labeling import gold, set_rules
from rlhf.store import Workspace


def under_the_bar(workspace: Workspace, tmp_path: Path) -> None:
    """Half of the pairs are known ones, and five wrong answers are enough."""
    for i in range(60):
        add_pair(workspace, f"open question {i}", f"one {i}", f"two {i}")
    gold.add_file(workspace, write_gold(tmp_path / "gold.jsonl", 40))
    set_rules(workspace, ["gold_rate=0.5", "min_checks=5", "gold_bar=0.9"], "soon, for a test")


def test_answer_that_pauses_is_acknowledged_and_nothing_comes_after_it(workspace: Workspace, tmp_path: Path) -> None:
    under_the_bar(workspace, tmp_path)
    client = client_of(workspace)
    given = client.get("/api/tasks/next").json()
    assert client.get("/api/appeal").json() == {"pause": None}
    assert client.post("/api/appeal", json={"text": "early"}).status_code == 409
    while task := given["task"]:
        assert task.keys() == {"lease", "prompt", "left", "right", "expires_at", "nodes"}
        word = "left" if task["left"].startswith("wrong") else "right"
        saved = client.post(
            "/api/judgements", json={"lease": task["lease"], "answer": word, "seconds": 2, "next": True}
        )
        assert saved.status_code == 200 and len(saved.json()["judgement"]) == 26
        given = saved.json()
    assert given["paused"] is True
    again = client.post("/api/judgements", json={"lease": task_lease(saved), "answer": word, "next": True})
    assert again.status_code == 200 and again.json()["judgement"] == given["judgement"], "sent again it is still saved"
    refused = client.get("/api/tasks/next")
    assert refused.status_code == 403 and refused.json()["error"]["code"] == "paused"
    assert "whose answer is known" in refused.json()["error"]["message"] and "appeal" in refused.json()["error"]["fix"]
    assert client.post("/api/undo", json={}).json()["error"]["code"] == "paused"
    for text in ("", "   ", "x" * 2001, "nul \x00"):
        assert client.post("/api/appeal", json={"text": text}).status_code == 400
    told = client.post("/api/appeal", json={"text": f"{XSS} call 212-555-0123"}).json()["pause"]
    assert told["appeal"].startswith(XSS) and "555-0123" not in told["appeal"] and told["decision"] is None
    assert client.post("/api/appeal", json={"text": "twice"}).status_code == 409
    labeling.decide(workspace, "ada", "uphold", "they were easy ones")
    assert client.get("/api/appeal").json()["pause"]["decision"] == "they were easy ones"
    labeling.decide(workspace, "ada", "resume", "a second look")
    assert client.get("/api/tasks/next").status_code == 200


def task_lease(saved: Any) -> str:
    """The lease that the last request named."""
    import json

    return str(json.loads(saved.request.content)["lease"])


def test_only_who_reviews_is_told_of_a_review(workspace: Workspace) -> None:
    add_pair(workspace, "q?", "good", "bad")
    set_rules(workspace, ["review=true"], "a reviewer decides")
    for who, reply in (("bob", "good"), ("cid", "bad")):
        task = labeling.next_task(workspace, who, overlap=2)
        assert task is not None
        labeling.answer(workspace, who, task.lease, "left" if task.left == reply else "right")
    from fastapi.testclient import TestClient

    from rlhf.web import create_app

    for role, kind in (("labeler", None), ("reviewer", True)):
        people.add(workspace, role, [role])
        token = people.issue_token(workspace, role, people.ROLES[role])
        client = TestClient(create_app(workspace, overlap=2), base_url="http://127.0.0.1:8765")
        client.headers["Authorization"] = f"Bearer {token}"
        texts = client.get("/api/texts").json()
        client.post("/api/agree", json={name: texts[name]["digest"] for name in ("guideline", "consent")})
        task = client.get("/api/tasks/next").json()["task"]
        assert (task and task.get("review")) == kind
    assert "a reviewer decides" in client.get("/api/texts").json()["rules"]
    assert browser(workspace, "dan").get("/api/tasks/next").json()["task"] is None


@pytest.mark.browser
def test_page_says_why_it_is_paused_and_takes_the_appeal(page: Any, workspace: Workspace, tmp_path: Path) -> None:  # noqa: F811
    [labeler] = [account.name for account in people.list_accounts(workspace)]
    labeling.pause(
        workspace,
        labeler,
        "of 34 pairs whose answer is known, 12 were answered that way (35%; with all the luck allowed for at most 57%), "
        "and 70% are wanted",
    )
    page.wait_for_timeout(300)
    page.keyboard.press("1")
    page.wait_for_selector("#paused:not([hidden])")
    assert "12 were answered that way" in page.inner_text("#paused-text") and page.locator("#actions").is_hidden()
    page.screenshot(path=str(tmp_path / "paused-1280.png"))
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in page.locator("button:visible").all():
        box = button.bounding_box()
        assert box["width"] >= 44 and box["height"] >= 44, button.inner_text()
    page.screenshot(path=str(tmp_path / "paused-390.png"))
    page.fill("#appeal", f"{XSS} I mixed up 1 and 2")
    page.click("#appeal-box button")
    page.wait_for_selector("#appealed:not([hidden])")
    assert page.inner_text("#appealed-text").startswith(XSS) and page.locator("#appeal-box").is_hidden()
    assert "A reviewer decides" in page.inner_text("#appeal-status")
    page.screenshot(path=str(tmp_path / "appealed-390.png"))
    labeling.decide(workspace, labeler, "resume", "keys explained")
    page.click("#paused-again")
    page.wait_for_selector("#task:not([hidden])")
    assert labeling.paused(workspace) == []
    page.keyboard.press("g")
    page.wait_for_selector("#guide-box[open]")
    assert "judged by one person" in page.inner_text("#guide-rules")
