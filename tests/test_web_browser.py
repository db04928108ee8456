"""The page in a real Chromium: labeled by keyboard, blind to its texts' markup, honest about what is saved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browsers import DESK, opened_browser, watched
from sqlalchemy import select
from test_web_labeler import XSS, add_pair
from test_web_serving import served

from rlhf.store import Workspace
from rlhf.store.tables import judgements

pytestmark = pytest.mark.browser


@pytest.fixture
def page(workspace: Workspace) -> Iterator[Any]:
    """A browser logged in by the printed link, with four pairs waiting. Errors and foreign requests fail the test."""
    for i in range(4):
        add_pair(workspace, f"question {i}", f"{XSS} one {i}", f"{XSS} two {i}")
    with served(workspace) as (_, told), opened_browser() as browser:
        opened = browser.new_context(viewport=DESK).new_page()
        problems = watched(opened, told["address"])
        opened.goto(told["link"])
        opened.wait_for_selector("#accept:not([hidden])")
        opened.check("#agreed")
        opened.click("#accept button")
        opened.wait_for_selector("#task:not([hidden])")
        yield opened
    assert problems == []


def press(page: Any, key: str, then: str) -> None:
    """A key, once the pair has settled, and what the status says then. (Waits by selector: the page forbids eval.)"""
    page.wait_for_selector("body:not(.busy)")
    page.wait_for_timeout(300)
    page.evaluate("document.getElementById('status').textContent = ''")
    page.keyboard.press(key)
    page.locator("#status", has_text=then).wait_for()
    page.wait_for_selector("body:not(.busy)")


def kept(workspace: Workspace) -> list[Any]:
    with workspace.read() as connection:
        return list(connection.execute(select(judgements).order_by(judgements.c.created_at)))


def side_of(row: Any) -> str:
    return (
        {"a": "left", "b": "right"}.get(row.choice, row.choice)
        if row.shown == "ab"
        else {"b": "left", "a": "right"}.get(row.choice, row.choice)
    )


def test_labels_by_keyboard_until_nothing_is_left(page: Any, workspace: Workspace) -> None:
    assert "token" not in page.url
    for key, then in (("1", "Reply 1"), ("ArrowRight", "Reply 2"), ("t", "Tie"), ("B", "Both bad")):
        press(page, key, f"Saved: {then}")
    page.wait_for_selector("#empty:not([hidden])")
    assert "All done" in page.inner_text("#empty-title") and "Saved" in page.inner_text("#status")
    assert page.locator("#undo").is_visible() and page.locator(".choices").is_hidden()
    assert [side_of(row) for row in kept(workspace)] == ["left", "right", "tie", "both_bad"]
    assert [page.inner_text(f"#{name}") for name in ("today", "done", "left")] == ["4", "4", "0"]


def test_texts_are_shown_as_text(page: Any) -> None:
    assert page.inner_text("#left-text").startswith(XSS) and page.inner_text("#right-text").startswith(XSS)
    assert page.locator("#task script, #task img, #task svg").count() == 0


def test_strength_is_said_before_the_choice_and_is_of_that_pair_alone(page: Any, workspace: Workspace) -> None:
    page.wait_for_timeout(300)
    page.keyboard.press("m")
    assert page.get_attribute("[data-strength='3']", "aria-pressed") == "true"
    press(page, "1", "Saved")
    assert page.get_attribute("[data-strength='3']", "aria-pressed") == "false"
    page.keyboard.press("l")
    press(page, "t", "Tie")
    page.keyboard.press("l")
    page.keyboard.press("l")
    press(page, "2", "Saved")
    assert [row.strength for row in kept(workspace)] == [3, None, None], (
        "a tie has none, and the same key again takes it back"
    )


def test_guidelines_open_by_key_and_consent_is_taken_back_and_given_there(page: Any, workspace: Workspace) -> None:
    press(page, "1", "Saved")
    page.keyboard.press("g")
    page.wait_for_selector("#guide-box[open]")
    assert "rather have got" in page.inner_text("#guide-text") and "pseudonym" in page.inner_text("#guide-consent")
    assert page.locator("#guide-text li").count() == 3 and "- Where" not in page.inner_text("#guide-text"), "rendered"
    page.locator("#withdraw").focus()
    for _ in range(5):
        page.keyboard.down("Enter")  # a key held down is one press
    page.keyboard.up("Enter")
    page.locator("#withdraw-ask[role=status]", has_text="Press once more").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.wait_for_selector("#guide-box[open]")
    assert page.inner_text("#withdraw") == "Take my consent back" and page.inner_text("#withdraw-ask") == "", (
        "asked anew"
    )
    page.locator("#withdraw").dblclick()
    assert page.inner_text("#withdraw") == "Yes, take my consent back", "a double click is one press"
    page.locator("#withdraw").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#wanted:not([hidden])")
    assert page.locator("#wanted-guideline li").count() == 3
    assert "You took your consent back" in page.inner_text("#wanted") and page.locator("#actions").is_hidden()
    page.keyboard.press("1")
    page.click("#agree")
    page.wait_for_selector("#task:not([hidden])")
    press(page, "2", "Saved")
    assert len(kept(workspace)) == 2


def test_markdown_is_built_of_words_and_scrolls_in_itself(page: Any, workspace: Workspace) -> None:
    code = "```python\n" + "x = 1  # " + "wide " * 80 + "\n```"
    add_pair(workspace, "Show **me**, please", f"1. one\n2. two\n\n{code}", "| a | b |\n|---|---|\n| 1 | 2 |")
    for _ in range(5):
        if "please" in page.inner_text("#prompt"):
            break
        press(page, "t", "Tie")
    assert page.inner_text("#prompt strong") == "me" and page.locator("#task pre code, #task td").count() == 3
    assert page.locator("#task ol > li").all_inner_texts()[-2:] == ["one", "two"]
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_undo_brings_the_same_pair_back(page: Any, workspace: Workspace) -> None:
    before = page.inner_text("#task")
    press(page, "1", "Saved")
    assert page.inner_text("#task") != before
    press(page, "u", "Undone")
    assert page.inner_text("#task") == before
    press(page, "2", "Saved")
    _, undone, again = kept(workspace)
    assert undone.choice == "skip" and again.supersedes == undone.id


def test_undo_brings_back_what_was_said_with_the_answer(page: Any, workspace: Workspace) -> None:
    page.wait_for_timeout(300)
    page.keyboard.press("m")
    page.keyboard.press("n")
    page.keyboard.type("so it is")
    page.keyboard.press("Escape")
    press(page, "1", "Saved")
    press(page, "2", "Saved")
    press(page, "u", "Undone")
    assert page.input_value("#note") == "" and page.locator("#note-box").is_hidden()
    assert page.get_attribute("[data-strength='3']", "aria-pressed") == "false"
    press(page, "u", "Undone")
    assert page.input_value("#note") == "so it is" and page.locator("#note-box").is_visible()
    assert page.get_attribute("[data-strength='3']", "aria-pressed") == "true"
    press(page, "2", "Saved")
    again = kept(workspace)[-1]
    assert (again.note, again.strength) == ("so it is", 3)


def test_backspace_held_and_modified_keys_do_nothing(page: Any, workspace: Workspace) -> None:
    before = page.inner_text("#task")
    page.wait_for_timeout(300)
    for key in ("Backspace", "Control+1", "Alt+ArrowLeft", "Escape", "Delete", "x", "3"):
        page.keyboard.press(key)
    page.wait_for_timeout(200)
    assert page.inner_text("#task") == before and kept(workspace) == []
    page.keyboard.down("1")
    for _ in range(20):
        page.keyboard.down("1")  # the repeats of a key held down
    page.wait_for_selector("#status.saved")
    page.wait_for_timeout(500)
    assert len(kept(workspace)) == 1


def test_keys_rest_while_typing_and_a_draft_survives_reload(page: Any, workspace: Workspace) -> None:
    page.wait_for_timeout(300)
    page.keyboard.press("n")
    page.keyboard.type("1 2 t b s u, so")
    page.keyboard.press("Backspace")
    page.reload()
    page.wait_for_selector("#note-box:not([hidden])")
    assert page.input_value("#note") == "1 2 t b s u, s" and kept(workspace) == []
    press(page, "1", "Saved")
    assert kept(workspace)[0].note == "1 2 t b s u, s"
    assert page.input_value("#note") == ""


def test_skip_takes_a_reason_and_escape_leaves_it(page: Any, workspace: Workspace) -> None:
    page.wait_for_timeout(300)
    page.keyboard.press("s")
    page.keyboard.press("Escape")
    assert page.locator("#skip-box").is_hidden() and kept(workspace) == []
    page.keyboard.press("s")
    page.keyboard.type("both the same to me")
    page.keyboard.press("Enter")
    page.wait_for_selector("#status.saved")
    assert [(row.choice, row.reason) for row in kept(workspace)] == [("skip", "both the same to me")]


def test_lost_network_keeps_the_answer_until_it_is_saved(page: Any, workspace: Workspace) -> None:
    """Offline: not saved, and said so. Even a reload later the answer is still there, and lands on its own pair."""
    on_screen = page.inner_text("#left-text")
    page.wait_for_timeout(300)
    page.context.set_offline(True)
    page.keyboard.press("1")
    page.wait_for_selector("#banner:not([hidden])")
    assert "Not saved yet" in page.inner_text("#banner") and page.inner_text("#left-text") == on_screen
    page.keyboard.press("2")  # a second answer to the same pair has no place
    assert kept(workspace) == []
    page.context.set_offline(False)
    page.reload()
    page.wait_for_selector("#status.saved")
    page.wait_for_selector("#task:not([hidden])")
    assert [side_of(row) for row in kept(workspace)] == ["left"]
    assert page.locator("#banner").is_hidden() and page.inner_text("#left-text") != on_screen


def test_help_opens_by_key_and_says_what_saved_means(page: Any, workspace: Workspace) -> None:
    page.wait_for_timeout(300)
    page.keyboard.press("?")
    assert "on the server’s disk" in page.inner_text("#help-box")
    page.keyboard.press("1")
    page.keyboard.press("Escape")
    page.wait_for_timeout(200)
    assert page.locator("#help-box").is_hidden() and kept(workspace) == []


def test_phone_stacks_the_replies_and_its_buttons_are_big_enough(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    left, right = page.locator("#left-card").bounding_box(), page.locator("#right-card").bounding_box()
    assert right["y"] >= left["y"] + left["height"] and right["x"] == left["x"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in page.locator("button:visible").all():
        box = button.bounding_box()
        assert box["width"] >= 44 and box["height"] >= 44, button.inner_text()
    page.wait_for_timeout(300)
    page.locator("[data-answer=right]").click()
    page.wait_for_selector("#status.saved")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_that_eyes_need(page: Any, scheme: str) -> None:
    """WCAG AA: 4.5 to 1 for every text on its ground."""
    page.emulate_media(color_scheme=scheme)
    page.wait_for_timeout(300)
    worst = page.evaluate("""() => {
      const light = (c) => { const v = c.match(/[\\d.]+/g).slice(0, 3).map((x) => Number(x) / 255)
        .map((x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
        return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
      const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
        if (!/, 0\\)$/.test(c)) return c; } return 'rgb(255,255,255)'; };
      let worst = [99, ''];
      for (const e of document.querySelectorAll('body *')) {
        if (!e.checkVisibility() || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
        const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < worst[0]) worst = [ratio, e.tagName + ' ' + e.textContent.trim().slice(0, 40)];
      }
      return worst; }""")
    assert worst[0] >= 4.5, worst


def test_logout_ends_the_visit(page: Any) -> None:
    page.click("#logout")
    page.wait_for_url("**/login")
    page.goto(page.url.replace("/login", "/"))
    assert page.url.endswith("/login")
