"""The page of the regular review in a real Chromium: read, held, a decision taken back; nothing sticks out, axe finds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from browsers import DESK, PHONE, axe_script, opened_browser, violations, watched
from payloads import PAYLOADS, acted
from test_web_decisions import ALIAS, decided, reported
from test_web_serving import served

from rlhf import people
from rlhf.registry import aliases, decisions, sign
from rlhf.serving import rollouts
from rlhf.serving.settings import RolloutSettings
from rlhf.store import Workspace

pytestmark = pytest.mark.browser


@dataclass
class Place:
    """A served workspace with decisions since the last review, a canary that waits, and the page of an operator."""

    workspace: Workspace
    page: Any
    problems: list[str]


@pytest.fixture
def place(workspace: Workspace, tmp_path: Path) -> Iterator[Place]:
    decided(workspace, tmp_path)
    decisions.hold_review(
        workspace.as_actor("eva"), "No complaints in October; hh@champion stays. Ask for more code prompts."
    )
    report = reported(workspace, hh_2=0.65, hh_3=0.8)
    sign(workspace.as_actor("eva"), "hh@3", report, "evaluator")
    aliases.move(workspace.as_actor("ops"), ALIAS, "hh@3", why="\n".join(PAYLOADS.values())[:900])
    settings = RolloutSettings(kind="canary", arms={"b": {"version": "hh@1"}}, ramp=[{"share": 50}, {"share": 100}])
    rollouts.start(workspace.as_actor("ops"), ALIAS, settings, why="is the old one as good?")
    people.add(workspace, "op", ["operator"])
    token = people.issue_token(workspace, "op", people.ROLES["operator"])
    with served(workspace) as (_, told), opened_browser() as browser:
        page: Any = browser.new_context(viewport=DESK).new_page()
        problems = watched(page, told["address"])
        page.goto(f"{told['address']}/login#token={token}")
        page.wait_for_url(f"{told['address']}/board")
        page.locator("a", has_text="Decisions").click()
        page.wait_for_selector("#parts:not([hidden])")
        yield Place(workspace, page, problems)
    assert problems == []


def test_axe_finds_nothing_and_nothing_sticks_out(place: Place, tmp_path: Path) -> None:
    page = place.page
    page.evaluate(axe_script())
    page.locator("#decided summary").first.click()
    page.locator(".record dt", has_text="Assumptions").wait_for()
    assert acted(page) == []
    for size, scheme in product((DESK, PHONE), ("light", "dark")):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.screenshot(path=str(tmp_path / f"decisions-{size['width']}-{scheme}.png"), full_page=True)
        assert violations(page) == [], f"{scheme}, {size['width']} px"
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], "nothing sticks out"
        for target in page.locator("button:visible, summary:visible, a:visible").all():
            assert target.bounding_box()["height"] >= 44, target.inner_text()
    page.locator("#decided button", has_text="Take it back").click()
    page.wait_for_selector("#back-box[open]")
    page.screenshot(path=str(tmp_path / "decisions-back.png"))
    assert violations(page) == []
    page.click("#back-cancel")
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_a_decision_is_taken_back_and_the_review_is_held(place: Place) -> None:
    page = place.page
    assert page.inner_text("#summary") == "1 decision, 1 to look at"
    assert "when eva held the last review" in page.inner_text("#since")
    row = page.locator("#changed .arms tbody tr")
    assert row.locator("th").inner_text() == "accuracy" and row.locator("td").count() == 2
    page.locator("#decided button", has_text="Take it back").click()
    page.click("#back button[type=submit]")
    page.locator("#back-error", has_text="Say why first").wait_for()
    page.fill("#back-why", "complaints since noon")
    page.click("#back button[type=submit]")
    page.locator("#decided h3", has_text="goes back from hh@3 to hh@2").wait_for()
    assert str(aliases.current(place.workspace, ALIAS)) == "hh@2"
    assert page.locator("#changed", has_text="back where it was").count() == 1
    page.locator("#hold button").click()
    page.locator("#hold-error", has_text="Say what was looked at").wait_for()
    page.fill("#notes", "taken back, and looked into")
    page.locator("#hold button").click()
    page.locator("#held", has_text="Recorded as decision").wait_for()
    last = decisions.list_decisions(place.workspace)[-1].decision
    assert (last.kind, last.who, last.why) == ("review", "op", "taken back, and looked into")
    assert page.inner_text("#last-notes") == "taken back, and looked into"
