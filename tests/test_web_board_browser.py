"""A report's way in a real Chromium: by key from the pair, over the board to the one who clears it, and back in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browsers import DESK, PHONE, axe_script, log_in, opened_browser, violations, watched
from test_web_labeler import XSS, add_pair, agreed
from test_web_serving import served

from rlhf import board, people
from rlhf.store import Workspace

pytestmark = pytest.mark.browser


@pytest.fixture
def pages(workspace: Workspace) -> Iterator[dict[str, Any]]:
    """ada's page with a pair on it, and eva's board, where three items wait."""
    add_pair(workspace, "q?", f"{XSS} one", f"{XSS} two")
    people.add(workspace, "eva", ["reviewer"])
    tokens = {
        "ada": people.issue_token(workspace, "ada"),
        "eva": people.issue_token(workspace, "eva", ["label", "review"]),
    }
    for who in tokens:
        agreed(workspace, who)
    for i, text in enumerate((XSS, "אני רוצה כפתור", "a long word " + "x" * 300)):
        item = board.add(workspace, kind="bug", text=text, channel=XSS)
        if i:
            board.change(workspace, item.id, {"impact": 5, "effort": i}, why=XSS)
    opened: dict[str, Any] = {}
    problems: list[list[str]] = []
    with served(workspace) as (_, told), opened_browser() as browser:
        for who, token in tokens.items():
            page = browser.new_context(viewport=DESK).new_page()
            problems.append(watched(page, told["address"]))
            log_in(page, told["address"], token)
            opened[who] = page
        opened["eva"].goto(f"{told['address']}/board")
        opened["eva"].wait_for_selector(".card")
        yield opened
    assert problems == [[], []]


def test_a_report_goes_by_keys_to_the_board_and_comes_back_cleared(pages: dict[str, Any], workspace: Workspace) -> None:
    ada, eva = pages["ada"], pages["eva"]
    ada.wait_for_selector("#task:not([hidden])")
    ada.keyboard.press("r")
    ada.wait_for_selector("#report-box[open]")
    ada.keyboard.press("Tab")
    ada.keyboard.type("1 2 t b s: this tells how to hurt")
    ada.keyboard.press("Tab")
    ada.keyboard.press("Enter")
    ada.locator("#status", has_text="Reported: an expert looks at it").wait_for()
    (item,) = board.list_items(workspace, kind="safety")
    assert item.text == "1 2 t b s: this tells how to hurt" and item.is_held
    eva.select_option("#stands", "held")
    eva.wait_for_selector(f"[data-item='{item.id}']")
    eva.locator(".card").focus()
    eva.keyboard.press("Enter")
    eva.wait_for_selector("#card-box[open]")
    eva.click("#clear")
    assert "Say why" in eva.inner_text("#move-error"), "a clearing without a reason isn't sent"
    eva.keyboard.type("fiction, and said so")
    eva.click("#clear")
    eva.wait_for_selector("#card-box:not([open])", state="attached")
    eva.locator("#summary", has_text="0 of 4 items").wait_for()
    assert not board.get(workspace, item.id).is_held
    ada.keyboard.press("r")
    ada.locator("#reports", has_text="fiction, and said so").wait_for()
    assert "Cleared by an expert" in ada.inner_text("#reports") and "eva" not in ada.inner_text("#reports")


def test_a_card_is_moved_by_its_form_and_stands_in_its_cell(pages: dict[str, Any], workspace: Workspace) -> None:
    eva = pages["eva"]
    card = eva.locator("#tray .card")
    assert XSS[:20] in card.inner_text() and eva.locator("#main script, #main img, #main svg").count() == 0
    card.focus()
    eva.keyboard.press("Enter")
    eva.wait_for_selector("#card-box[open]")
    eva.click("#move button[type=submit]")
    assert "Nothing is changed" in eva.inner_text("#move-error")
    eva.select_option("#m-status", "done")
    eva.click("#move button[type=submit]")
    assert "Say why it is done" in eva.inner_text("#move-error"), "not sent without a reason"
    assert eva.evaluate("document.activeElement.id") == "m-why"
    for field, value in (("impact", "4"), ("effort", "3"), ("status", "triaged"), ("owner", "eva")):
        eva.select_option(f"#m-{field}", value)
    eva.click("#move button[type=submit]")
    eva.wait_for_selector("#card-box:not([open])", state="attached")
    eva.locator(".cell", has_text="Impact 4, effort 3").locator(".card", has_text="Triaged").wait_for()
    assert eva.evaluate("document.activeElement.classList.contains('card')"), "the focus is on the card that was moved"
    assert board.list_items(workspace, statuses=["triaged"])[0].owner == "eva"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_on_the_board_and_in_its_dialogs(pages: dict[str, Any], scheme: Any, size: Any) -> None:
    eva, ada = pages["eva"], pages["ada"]
    ada.wait_for_selector("#task:not([hidden])")
    ada.keyboard.press("r")
    ada.wait_for_selector("#report-box[open]")
    for page in (eva, ada):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.evaluate(axe_script())
        assert violations(page) == [] and page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    eva.locator(".card").first.click()
    eva.wait_for_selector("#card-box[open]")
    assert violations(eva) == []
    for button in eva.locator("button:visible, select:visible").all():
        assert button.bounding_box()["height"] >= 44, button.inner_text()
