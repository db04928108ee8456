"""A labeler's day without a mouse, two labelers at once, and what goes wrong on the way: a page that crashes, a network that fails,
an answer that comes late or twice, a tab left open.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from browsers import DESK, log_in, opened_browser, watched
from test_web_browser import kept, press, side_of
from test_web_labeler import add_pair, agreed
from test_web_serving import served

from rlhf import people
from rlhf.store import Workspace

pytestmark = pytest.mark.browser


@dataclass
class Desks:
    """A served workspace with four pairs, and a browser in which people sit down."""

    workspace: Workspace
    address: str
    browser: Any

    def page(self, who: str | None = None) -> Any:
        """A page of who agreed to the texts; None = of a stranger."""
        page = self.browser.new_context(viewport=DESK).new_page()
        if who:
            agreed(self.workspace, who)
            log_in(page, self.address, people.issue_token(self.workspace, who))
        return page


@pytest.fixture
def desks(workspace: Workspace) -> Iterator[Desks]:
    for i in range(4):
        add_pair(workspace, f"question {i}", f"one {i}", f"two {i}")
    people.add(workspace, "eve", ["labeler"])  # somebody is known here: no admin's link is printed
    with served(workspace) as (_, told), opened_browser() as browser:
        yield Desks(workspace, told["address"], browser)


def tab_to(page: Any, selector: str) -> None:
    """Tab until the focus is there; a way that takes more than 30 steps isn't one."""
    for _ in range(30):
        if page.evaluate("(s) => document.activeElement.matches(s)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} can't be reached by Tab")


def test_a_labelers_day_by_keyboard_alone(desks: Desks) -> None:
    """From the invitation to the log-out, with a note, a skip, an undo, the help and the guidelines; no mouse anywhere."""
    page = desks.page()
    problems = watched(page, desks.address)
    page.goto(f"{desks.address}/invite#code={people.invite(desks.workspace)}")
    page.wait_for_selector("#accept:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "agreed"
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.wait_for_selector("#task:not([hidden])")
    page.keyboard.press("?")
    page.keyboard.press("Enter")  # its one button has the focus
    page.wait_for_selector("#help-box:not([open])", state="attached")
    page.keyboard.press("g")
    page.wait_for_selector("#guide-box[open]")
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    page.keyboard.type("2 is shorter")
    page.keyboard.press("Escape")
    page.keyboard.press("m")
    press(page, "2", "Saved: Reply 2")
    page.wait_for_timeout(300)
    page.keyboard.press("s")
    page.keyboard.type("not my field")
    page.keyboard.press("Enter")
    page.locator("#status", has_text="Skipped").wait_for()
    press(page, "u", "Undone")
    press(page, "ArrowLeft", "Saved: Reply 1")
    press(page, "t", "Saved: Tie")
    tab_to(page, "[data-answer=both_bad]")
    page.wait_for_timeout(300)
    page.keyboard.press("Enter")
    page.wait_for_selector("#empty:not([hidden])")
    assert page.evaluate("document.activeElement.id") in ("main", ""), (
        "a focus that went with its button is not left in the dark"
    )
    assert [page.inner_text(f"#{name}") for name in ("today", "done", "left")] == ["4", "4", "0"]
    tab_to(page, "#logout")
    page.keyboard.press("Enter")
    page.wait_for_url("**/login")
    in_force = [row for row in kept(desks.workspace) if row.choice != "skip"]
    assert [side_of(row) for row in in_force] == ["right", "left", "tie", "both_bad"]
    assert (in_force[0].note, in_force[0].strength) == ("2 is shorter", 3)
    assert problems == []


def test_two_labelers_at_once_never_see_the_same_pair(desks: Desks) -> None:
    ada, bob = desks.page("ada"), desks.page("bob")
    seen: dict[str, list[str]] = {"ada": [], "bob": []}
    for _ in range(2):
        for who, page in (("ada", ada), ("bob", bob)):
            seen[who].append(page.inner_text("#prompt"))
            press(page, "1", "Saved")
    assert len({*seen["ada"], *seen["bob"]}) == 4
    for page in (ada, bob):
        page.wait_for_selector("#empty:not([hidden])")
    rows = kept(desks.workspace)
    assert (
        sorted(row.labeler for row in rows) == ["ada", "ada", "bob", "bob"] and len({row.pair_id for row in rows}) == 4
    )


def test_a_draft_survives_a_crash_of_the_page(desks: Desks) -> None:
    page = desks.page("ada")
    shown = page.inner_text("#task")
    page.wait_for_timeout(300)
    page.keyboard.press("n")
    page.keyboard.type("half a thought")
    with pytest.raises(Exception, match=r"(?i)crash"):
        page.goto("chrome://crash")
    again = page.context.new_page()
    again.goto(desks.address)
    again.wait_for_selector("#note-box:not([hidden])")
    assert again.input_value("#note") == "half a thought" and again.inner_text("#task") == shown
    press(again, "1", "Saved")
    assert [row.note for row in kept(desks.workspace)] == ["half a thought"]


def test_an_answer_that_was_not_sent_survives_a_crash_and_lands_on_its_own_pair(desks: Desks) -> None:
    page = desks.page("ada")
    prompt = page.inner_text("#prompt")
    page.wait_for_timeout(300)
    is_lost = True
    page.context.route("**/api/*", lambda route: route.abort() if is_lost else route.continue_())
    page.keyboard.press("2")
    page.wait_for_selector("#banner:not([hidden])")
    with pytest.raises(Exception, match=r"(?i)crash"):
        page.goto("chrome://crash")
    is_lost = False
    again = page.context.new_page()
    again.goto(desks.address)
    again.wait_for_selector("#status.saved")
    (row,) = kept(desks.workspace)
    assert side_of(row) == "right" and again.inner_text("#prompt") != prompt


def test_a_lost_acknowledgement_is_asked_for_again_and_counts_once(desks: Desks) -> None:
    """The server has the answer, the page doesn't know: it sends it again, and the next pair stays unjudged."""
    page = desks.page("ada")
    lost = []

    def lose(route: Any) -> None:
        if lost:
            route.continue_()
            return
        lost.append(route.fetch().status)
        route.abort()

    page.route("**/api/judgements", lose)
    page.wait_for_timeout(300)
    page.keyboard.press("1")
    page.wait_for_selector("#banner:not([hidden])")
    assert lost == [200] and len(kept(desks.workspace)) == 1
    page.locator("#status", has_text="Saved: Reply 1").wait_for()
    page.wait_for_selector("#banner", state="hidden")
    assert len(kept(desks.workspace)) == 1 and page.inner_text("#left") == "3"


def test_a_late_answer_is_its_own_pairs_and_no_others(desks: Desks) -> None:
    """An answer on its way for long, with keys pressed meanwhile: they do nothing, and it lands where it was meant."""
    page = desks.page("ada")
    first, held = page.inner_text("#prompt"), []
    page.route("**/api/judgements", lambda route: held.append(route) if not held else route.continue_())
    page.wait_for_timeout(300)
    page.keyboard.press("1")
    page.wait_for_selector("body.busy")
    for key in ("2", "t", "u", "s", "1"):
        page.keyboard.press(key)
    page.locator("[data-answer=right]").dispatch_event("click")
    page.wait_for_timeout(200)
    assert kept(desks.workspace) == [] and page.inner_text("#prompt") == first
    held[0].continue_()
    page.locator("#status", has_text="Saved: Reply 1").wait_for()
    page.keyboard.press("2")  # at once: the next pair isn't yet to be judged
    page.wait_for_timeout(500)
    (row,) = kept(desks.workspace)
    assert side_of(row) == "left" and page.inner_text("#prompt") != first


def test_a_tab_left_open_cannot_judge_another_pair(desks: Desks) -> None:
    """Two tabs on one pair: what the first said stands, the second is told so and goes on to a pair of its own."""
    page = desks.page("ada")
    stale = page.context.new_page()
    stale.goto(desks.address)
    stale.wait_for_selector("#task:not([hidden])")
    assert stale.inner_text("#task") == page.inner_text("#task")
    press(page, "1", "Saved")
    stale.wait_for_timeout(300)
    stale.keyboard.press("2")
    stale.wait_for_selector("#status.problem")
    stale.wait_for_selector("body:not(.busy)")
    (row,) = kept(desks.workspace)
    assert side_of(row) == "left" and stale.inner_text("#task") == page.inner_text("#task")
    press(stale, "t", "Tie")
    assert [row.choice for row in kept(desks.workspace)][1:] == ["tie"]


def test_bare_backspace_neither_leaves_nor_judges_nor_takes_back(desks: Desks) -> None:
    page = desks.page("ada")
    press(page, "1", "Saved")
    page.wait_for_timeout(300)
    before = page.inner_text("#task")
    for _ in range(5):
        page.keyboard.press("Backspace")
    page.wait_for_timeout(300)
    assert page.url == f"{desks.address}/" and page.inner_text("#task") == before and len(kept(desks.workspace)) == 1


@pytest.mark.parametrize(("key", "field"), [("n", "#note"), ("s", "#reason")])
def test_keys_rest_while_typing(desks: Desks, key: str, field: str) -> None:
    page = desks.page("ada")
    page.wait_for_timeout(300)
    page.keyboard.press(key)
    page.keyboard.type("12tbsunglm?")
    for other in ("ArrowLeft", "ArrowRight", "Backspace", "Delete"):
        page.keyboard.press(other)
    page.wait_for_timeout(200)
    assert page.input_value(field) == "12tbsunglm" and kept(desks.workspace) == []
    assert page.locator("dialog[open]").count() == 0 and page.locator("[aria-pressed=true]").count() == 0


def test_too_many_requests_are_waited_for_and_nothing_is_lost(desks: Desks) -> None:
    page = desks.page("ada")
    said: list[int] = []

    def busy(route: Any) -> None:
        said.append(429)
        if len(said) > 1:
            route.continue_()
        else:
            body = '{"error": {"message": "too often", "fix": "wait", "code": "too_often"}}'
            route.fulfill(status=429, content_type="application/json", body=body)

    page.route("**/api/judgements", busy)
    page.wait_for_timeout(300)
    page.keyboard.press("1")
    page.wait_for_selector("#banner:not([hidden])")
    assert "too often" in page.inner_text("#banner")
    page.locator("#status", has_text="Saved: Reply 1").wait_for()
    assert len(said) == 2 and len(kept(desks.workspace)) == 1


def test_who_logs_in_next_at_the_same_browser_sees_and_sends_nothing_of_who_was_there(desks: Desks) -> None:
    """A note and an answer not yet sent stay hers: neither is shown, nor given in another's name; going back shows nothing."""
    page = desks.page("ada")
    page.wait_for_timeout(300)
    page.keyboard.press("n")
    page.keyboard.type("adas own words")
    page.keyboard.press("Escape")
    is_lost = True
    page.route("**/api/judgements", lambda route: route.abort() if is_lost else route.continue_())
    page.keyboard.press("1")
    page.wait_for_selector("#banner:not([hidden])")
    shown = page.inner_text("#prompt")
    page.click("#logout")
    page.wait_for_url("**/login")
    is_lost = False
    page.go_back()
    page.wait_for_url("**/login")
    agreed(desks.workspace, "bob")
    log_in(page, desks.address, people.issue_token(desks.workspace, "bob"))
    assert page.inner_text("#prompt") != shown and page.inner_text(".who .name") == "bob"
    assert page.input_value("#note") == "" and "adas" not in page.content()
    press(page, "2", "Saved: Reply 2")
    assert [(row.labeler, row.note) for row in kept(desks.workspace)] == [("bob", None)]
    page.click("#logout")
    page.wait_for_url("**/login")
    log_in(page, desks.address, people.issue_token(desks.workspace, "ada"))
    page.locator("#status", has_text="Saved: Reply 1").wait_for()
    assert [(row.labeler, row.note) for row in kept(desks.workspace)][1:] == [("ada", "adas own words")]
