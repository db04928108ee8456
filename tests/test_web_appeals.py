"""The reviewer's page of pauses: who waits comes first, nobody decides about what they didn't read or about themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsers import DESK, PHONE, log_in, opened_browser, watched
from payloads import PAYLOADS, acted
from test_web_board import expert
from test_web_labeler import XSS, add_pair, agreed, client_of
from test_web_serving import served

from rlhf import labeling, people
from rlhf.store import Workspace


def test_an_appeal_is_read_decided_and_told(workspace: Workspace) -> None:
    add_pair(workspace, "q?", "good", "bad")
    ada, bob, eva = client_of(workspace), client_of(workspace, "bob"), expert(workspace)
    for name in ("bob", "ada"):
        labeling.pause(workspace, name, "of 40 pairs with a known answer, 12 were answered as known")
    assert ada.get("/api/tasks/next").status_code == 403
    ada.post("/api/appeal", json={"text": f"{XSS} I mixed up 1 and 2"})
    found = eva.get("/api/appeals").json()
    assert found["me"] == "eva" and [one["labeler"] for one in found["paused"]] == ["ada", "bob"], "who waits is first"
    log = found["paused"][0]["log"]
    assert [entry["action"] for entry in log] == ["pause", "appeal"] and log[1]["why"].startswith(XSS)
    body = {"seen": found["paused"][0]["seq"], "decision": "resume", "why": "the keys were explained"}
    assert eva.post("/api/appeals/ada", json=body).json() == {"paused": False}
    assert ada.get("/api/tasks/next").status_code == 200
    late = eva.post("/api/appeals/ada", json=body)
    assert late.status_code == 409 and "something came after" in late.json()["error"]["message"]
    early = eva.post("/api/appeals/bob", json={"seen": 1, "decision": "uphold", "why": "a third time"})
    assert early.status_code == 409, "bob was not heard yet"
    bob.post("/api/appeal", json={"text": "I was tired"})
    upheld = eva.post("/api/appeals/bob", json={"seen": 2, "decision": "uphold", "why": "a third time"})
    assert upheld.json() == {"paused": True}
    assert bob.get("/api/tasks/next").json()["error"]["fix"].endswith("a third time")


def test_nobody_decides_unread_about_themselves_or_without_a_word(workspace: Workspace) -> None:
    eva = expert(workspace)
    client_of(workspace)
    for name in ("eva", "ada"):
        labeling.pause(workspace, name, "by hand")
    labeling.appeal(workspace, "ada", "please look again")
    own = eva.post("/api/appeals/eva", json={"seen": 1, "decision": "resume", "why": "it was me"})
    assert own.status_code == 403 and "their own pause" in own.json()["error"]["message"]
    unread = eva.post("/api/appeals/ada", json={"seen": 1, "decision": "uphold", "why": "no"})
    assert unread.status_code == 409
    for wrong in ({"why": " "}, {"why": "a\x00b"}, {"why": "x" * 2001}, {"decision": "end"}, {"seen": 0}, {"more": 1}):
        answer = eva.post("/api/appeals/ada", json={"seen": 2, "decision": "resume", "why": "fine", **wrong})
        assert answer.status_code == 400, wrong
    assert eva.post("/api/appeals/nobody", json={"seen": 1, "decision": "resume", "why": "x"}).status_code == 409
    assert len(labeling.paused(workspace)) == 2


@pytest.mark.browser
def test_a_reviewer_decides_on_the_page_by_keyboard(workspace: Workspace, tmp_path: Path) -> None:
    client_of(workspace)
    people.add(workspace, "eva", ["reviewer"])
    agreed(workspace, "eva")
    token = people.issue_token(workspace, "eva", people.ROLES["reviewer"])
    labeling.pause(workspace, "ada", "of 40 pairs with a known answer, 12 were answered as known")
    labeling.appeal(workspace, "ada", "\n".join(PAYLOADS.values())[:2000])
    with served(workspace) as (_, told), opened_browser() as browser:
        page: Any = browser.new_context(viewport=DESK, bypass_csp=True).new_page()
        problems = watched(page, told["address"])
        log_in(page, told["address"], token)
        page.locator("a", has_text="Board").click()
        page.locator("a", has_text="Paused").click()
        page.wait_for_selector(".log")
        assert acted(page) == [] and page.inner_text("#summary") == "1 paused, 1 waiting for an answer"
        page.screenshot(path=str(tmp_path / "appeals-1280.png"), full_page=True)
        page.set_viewport_size(PHONE)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        page.screenshot(path=str(tmp_path / "appeals-390.png"), full_page=True)
        page.focus("textarea")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.locator(".log .problem", has_text="Say why").wait_for()
        page.keyboard.type("keys explained")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("#none:not([hidden])")
        assert acted(page) == [] and problems == []
    assert labeling.paused(workspace) == []
