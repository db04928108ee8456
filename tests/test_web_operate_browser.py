"""The operator's page in a real Chromium: a rollback by keyboard that a router follows, a refresh that disturbs nobody, texts that
stay texts, axe in every look."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from browsers import DESK, PHONE, axe_script, opened_browser, violations, watched
from operated import operated
from payloads import PAYLOADS, acted
from served import ALIAS
from test_web_serving import served

from rlhf import people
from rlhf.registry import aliases
from rlhf.serving import Router, rollouts
from rlhf.store import Workspace

pytestmark = pytest.mark.browser
_ACTIVE = "document.activeElement.id || document.activeElement.textContent"


@dataclass
class Place:
    """A served workspace with a canary, and the page of who is logged in as `op`."""

    workspace: Workspace
    address: str
    page: Any
    problems: list[str]

    def section(self, alias: str = ALIAS) -> Any:
        return self.page.locator(".alias", has=self.page.locator("h2", has_text=alias))


@pytest.fixture
def place(workspace: Workspace, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    why = getattr(request, "param", "wins on held-out prompts")
    operated(workspace, tmp_path, why=why)
    people.add(workspace, "op", ["operator"])
    token = people.issue_token(workspace, "op", people.ROLES["operator"])
    with served(workspace) as (_, told), opened_browser() as browser:
        page: Any = browser.new_context(viewport=DESK, bypass_csp=why != "wins on held-out prompts").new_page()
        problems = watched(page, told["address"])
        page.goto(f"{told['address']}/login#token={token}")
        page.wait_for_url(f"{told['address']}/board")
        page.locator("a", has_text="Operate").click()
        page.wait_for_selector(".arms td")
        yield Place(workspace, told["address"], page, problems)
    assert problems == []


def test_a_rollback_by_keyboard_is_followed_within_a_second(place: Place, tmp_path: Path) -> None:
    page, router = place.page, Router(place.workspace)
    assert page.inner_text("#summary") == "2 aliases, 1 rollout, 1 to look at"
    back = place.section().locator(".alias-head button")
    back.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#deed-box[open]")
    assert place.section().locator(".guards .harm", has_text="Latency of b: harm is shown").count() == 1
    said = page.inner_text("#deed-line")
    assert "points at hh@2 and would return to hh@1" in said and "The rollout beside it ends" in said
    assert page.evaluate(_ACTIVE) == "deed-why", "the reason is what is wanted next"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#deed-error", has_text="Say why").wait_for()
    assert str(aliases.current(place.workspace, ALIAS)) == "hh@2"
    page.keyboard.type("complaints since noon")
    page.screenshot(path=str(tmp_path / "rollback-1280.png"))
    page.keyboard.press("Tab")
    began = time.monotonic()
    page.keyboard.press("Enter")
    while router.resolve(ALIAS).version != "hh@1":
        assert time.monotonic() - began < 1.0, "a second has passed"
        time.sleep(0.005)
    router.close()
    page.locator("#deed-said", has_text="hh@champion went from hh@2 back to hh@1 in").wait_for()
    assert page.inner_text("#deed-said").endswith("\u00a0ms.") and page.evaluate(_ACTIVE) == "deed-close"
    page.screenshot(path=str(tmp_path / "rolled-back-1280.png"))
    page.keyboard.press("Enter")
    place.section().locator(".to", has_text="hh@1").wait_for()
    assert place.section().locator(".rollout").is_hidden() and back.is_hidden()
    page.locator("main:focus").wait_for()  # the button is gone: the focus is on the page, not nowhere
    last = aliases.history(place.workspace, ALIAS)[-1]
    assert (last.action, last.who, last.why) == ("rollback", "op", "complaints since noon")
    place.section().locator("summary").click()
    steps = place.section().locator(".steps li", has_text="complaints since noon")
    steps.filter(has_text="Rolled back from hh@2 to hh@1").wait_for()
    steps.filter(has_text="Ended, since its alias was rolled back").wait_for()


def test_a_refresh_moves_no_focus_and_keeps_what_is_typed(place: Place) -> None:
    page = place.page
    place.section().locator("summary").click()
    place.section().locator(".steps .eyebrow", has_text="2. Set from hh@1 to hh@2").wait_for()
    advance = place.section().locator("button", has_text="Advance")
    advance.click()
    page.keyboard.type("half of a thou")
    rollout = rollouts.status(place.workspace, ALIAS)
    rollouts.pause(place.workspace, rollout.id, why="lunch", expect=rollout.seq)
    page.locator("#deed-news", has_text="changed meanwhile").wait_for(timeout=9_000)
    page.keyboard.type("ght")
    assert page.input_value("#deed-why") == "half of a thought"
    page.click("#deed-do")
    page.locator("#deed-error", has_text="changed meanwhile").wait_for()
    assert rollouts.status(place.workspace, ALIAS).status == "paused" and page.input_value("#deed-why")
    page.keyboard.press("Escape")
    place.section().locator("h3", has_text="Canary, paused, stage 1 of 2").first.wait_for()
    place.section().locator(".steps li", has_text="lunch").wait_for()
    place.section().locator("button", has_text="Go on").focus()
    node = place.section().locator(".arms tbody tr").first.element_handle()
    with page.expect_response("**/api/operate"):
        pass
    page.wait_for_timeout(100)
    assert page.evaluate(_ACTIVE) == "Go on…" and place.section().locator("details").get_attribute("open") is not None
    assert page.evaluate("(row) => row.isConnected", node), "what reads as before isn't made anew"


def test_a_hidden_page_asks_for_nothing(place: Place) -> None:
    page = place.page
    hide = """(hidden) => { Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange")); }"""
    page.evaluate(hide, True)
    page.wait_for_timeout(500)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(6_000)
    assert asked == []
    with page.expect_response("**/api/operate"):
        page.evaluate(hide, False)
    assert len(asked) == 1, "and at once when it is looked at again"


def test_steps_are_taken_and_what_is_refused_is_said(place: Place) -> None:
    page, section = place.page, place.section()

    def act(words: str, why: str, chosen: str | None = None) -> None:
        section.locator(".rollout button", has_text=words).click()
        if chosen:
            page.select_option("#deed-choice", chosen)
        page.fill("#deed-why", why)
        page.click("#deed-do")

    act("Complete", "impatient", "b")
    page.locator("#deed-error", has_text="at 50 %, wanted 100").wait_for()
    page.click("#deed-cancel")
    act("Advance", "looks good")
    page.locator("#deed-said", has_text="running, control 0 %, b 100 %").wait_for()
    page.click("#deed-close")
    section.locator("h3", has_text="stage 2 of 2").wait_for()
    assert section.locator("button", has_text="Advance").is_hidden()
    act("Complete", "proved", "b")
    page.locator("#deed-said", has_text="completed").wait_for()
    page.click("#deed-close")
    section.locator(".to", has_text="hh@3").wait_for()
    assert str(aliases.current(place.workspace, ALIAS)) == "hh@3"


def test_a_server_that_is_gone_is_said_and_what_stood_there_stays(place: Place) -> None:
    page = place.page
    page.context.set_offline(True)
    page.locator("#problem", has_text="can’t be reached").wait_for(timeout=9_000)
    assert place.section().locator(".to").inner_text() == "hh@2"
    page.context.set_offline(False)
    page.locator("#problem:empty").wait_for(state="attached", timeout=9_000)


@pytest.mark.parametrize("place", ["\n".join(PAYLOADS.values())[:2000]], indirect=True, ids=["payloads"])
def test_texts_of_people_stay_texts(place: Place) -> None:
    rollouts.pause(place.workspace, ALIAS, why="\n".join(PAYLOADS.values())[-2000:])
    page = place.page
    place.section().locator("summary").click()
    place.section().locator(".steps li", has_text="Paused").wait_for()
    place.section().locator(".alias-head button").click()
    page.wait_for_selector("#deed-box[open]")
    assert acted(page) == [] and "<script>" in place.section().locator(".said").first.inner_text()
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_axe_finds_nothing_on_the_page_and_in_its_dialog(place: Place, tmp_path: Path) -> None:
    page, section = place.page, place.section()
    page.evaluate(axe_script())
    section.locator("summary").click()
    section.locator(".steps li").first.wait_for()
    for size, scheme in product((DESK, PHONE), ("light", "dark")):
        name = f"{size['width']}-{scheme}.png"
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert violations(page) == [], name
        page.screenshot(path=str(tmp_path / f"operate-{name}"), full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], "nothing sticks out"
        section.locator("button", has_text="Complete").click()
        assert violations(page) == [], name
        page.screenshot(path=str(tmp_path / f"complete-{name}"))
        for target in page.locator("button:visible, summary:visible, select:visible, a:visible").all():
            assert target.bounding_box()["height"] >= 44, target.inner_text()
        page.click("#deed-cancel")
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    people.add(place.workspace, "root", ["admin"])
    token = people.issue_token(place.workspace, "root", people.ROLES["admin"])
    page.goto(f"{place.address}/login#token={token}")
    page.wait_for_url(f"{place.address}/")
    for path in ("/board", "/operate"):
        page.goto(place.address + path)
        page.locator("#summary", has_text="0 of 0" if path == "/board" else "2 aliases").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, "nor does the header with every link"


def test_the_dashboard_shows_versions_beside_each_other(place: Place, tmp_path: Path) -> None:
    page = place.page
    page.locator("a", has_text="Dashboard").click()
    page.wait_for_selector(".plots svg")
    assert page.inner_text("#summary") == "400 requests, 1 alias"
    assert page.locator(".arms tbody th").count() == 2 and page.locator(".plots figure").count() == 4
    begins = page.locator(".plots text").first.text_content()
    assert re.fullmatch(r"\d\d-\d\d \d\d:\d\d", begins), "a day ago is yesterday, and its date is said"
    page.evaluate(axe_script())
    for size, scheme in product((DESK, PHONE), ("light", "dark")):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert violations(page) == [], f"{scheme}, {size['width']} px"
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        page.screenshot(path=str(tmp_path / f"dashboard-{scheme}-{size['width']}.png"))
    page.select_option("#by", "audience")
    page.locator("td", has_text="no cohort said").first.wait_for()
    page.select_option("#window", "hour")
    page.locator("#seen-at", has_text="From").wait_for()
