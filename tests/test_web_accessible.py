"""Every page and state of the labeler's held against axe's rules for WCAG 2.2 A and AA and its best practices, light and dark, on a
desk and on a phone; and what axe can't see: the order of the focus, what is said aloud, which way a text runs, what moves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from browsers import DESK, PHONE, axe_script, log_in, opened_browser, violations, watched
from test_web_labeler import agreed
from test_web_serving import served

from rlhf import ids, labeling, people
from rlhf.records import Message, Pair
from rlhf.store import Workspace
from rlhf.store.tables import pair_sources, pairs

pytestmark = pytest.mark.browser
CODE = "```python\ndef long(name):\n    return name  # " + "a line that is wider than any phone " * 6 + "\n```"
RICH = (
    f"# A heading\n\nSome *words*, `code` and a list:\n\n1. one\n2. two\n\n{CODE}\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> said\n\n"
    + "A long paragraph that goes on. " * 40
)
ARABIC = "كيف أقرأ الملف؟ استعمل `open()` هكذا:\n\n```python\nopen('x.txt')\n```\n\n- أولا\n- ثانيا"
HEBREW = "שלום! כך קוראים קובץ עם `open`.\n\nAnd one paragraph in English.\n\nועוד פסקה בעברית."


@dataclass
class Place:
    """A served workspace in which ada holds the only pair, bob has none, and cyd has agreed to nothing."""

    workspace: Workspace
    address: str
    browser: Any
    tokens: dict[str, str]

    def page(self, who: str | None = None) -> Any:
        """A fresh page, of somebody who is logged in."""
        page = self.browser.new_context(viewport=DESK).new_page()
        page.problems = watched(page, self.address)
        if who:
            log_in(page, self.address, self.tokens[who])
        return page


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    workspace = Workspace.create(tmp_path_factory.mktemp("accessible") / "ws", actor="tester")
    tokens = {name: people.issue_token(workspace, name) for name in ("ada", "bob", "cyd", "dan")}
    people.add(workspace, "eva", ["reviewer"])
    tokens["eva"] = people.issue_token(workspace, "eva", people.ROLES["reviewer"])
    people.add(workspace, "ops", ["operator"])
    tokens["ops"] = people.issue_token(workspace, "ops", people.ROLES["operator"])
    for name in ("ada", "bob", "dan", "eva"):
        agreed(workspace, name)
    turns = [
        Message("system", "Be brief."),
        Message("user", "Earlier?"),
        Message("assistant", RICH),
        Message("user", HEBREW),
    ]
    pair = Pair.of(turns, RICH, ARABIC)
    row = {
        "id": pair.id, "prompt": json.dumps([turn.as_json() for turn in pair.prompt]), "reply_a": pair.reply_a,
        "reply_b": pair.reply_b, "group_digest": pair.group, "created_at": ids.now_text(),
    }  # fmt: skip
    with workspace.write() as write:
        write.insert_new(pairs, [row])
        write.insert_new(pair_sources, [{"pair_id": pair.id, "source": "s", "details": "{}"}])
    labeling.pause(workspace, "dan", "of 40 pairs with a known answer, 12 were answered as known")
    people.issue_token(workspace, "fay")
    labeling.pause(workspace, "fay", "by hand")
    labeling.appeal(workspace, "fay", ARABIC)
    with served(workspace) as (_, told), opened_browser() as browser:
        made = Place(workspace, told["address"], browser, tokens)
        made.page("ada").context.close()  # the pair is hers from now on
        yield made
    workspace.close()


def pair_of(place: Place) -> Any:
    page = place.page("ada")
    page.wait_for_selector("#task:not([hidden])")
    page.wait_for_timeout(300)
    return page


def opened(place: Place, key: str, shown: str) -> Any:
    page = pair_of(place)
    page.keyboard.press(key)
    page.wait_for_selector(shown)
    return page


def withdrawal_asked(place: Place) -> Any:
    page = opened(place, "g", "#guide-box[open]")
    page.click("#withdraw")
    page.locator("#withdraw-ask[role=status]", has_text="Press once more").wait_for()
    return page


def login_refused(place: Place) -> Any:
    page = place.page()
    page.goto(f"{place.address}/login")
    page.fill("#token", "rlhf_" + "x" * 32)
    page.press("#token", "Enter")
    page.locator("#login-error", has_text="known").wait_for()
    return page


def at(path: str, shown: str) -> Callable[[Place], Any]:
    def there(place: Place) -> Any:
        page = place.page()
        page.goto(place.address + path)
        page.wait_for_selector(shown)
        return page

    return there


def invited(place: Place) -> Any:
    return at(f"/invite#code={people.invite(place.workspace)}", "#accept:not([hidden])")(place)


def shown_to(who: str, shown: str) -> Callable[[Place], Any]:
    def there(place: Place) -> Any:
        page = place.page(who)
        page.wait_for_selector(shown)
        return page

    return there


def offline(place: Place) -> Any:
    page = pair_of(place)
    page.context.set_offline(True)
    page.keyboard.press("1")
    page.wait_for_selector("#banner:not([hidden])")
    return page


def appeals(place: Place) -> Any:
    page = place.page("eva")
    page.goto(f"{place.address}/appeals")
    page.locator(".log").nth(1).wait_for()
    page.locator(".log button").first.click()
    page.locator(".log .problem", has_text="Say why").wait_for()
    return page


def nothing_served(path: str) -> Callable[[Place], Any]:
    """A page of the operator's where no alias is set; what they show else is in `test_web_operate_browser.py`."""

    def there(place: Place) -> Any:
        page = place.page()
        page.goto(f"{place.address}/login#token={place.tokens['ops']}")
        page.wait_for_url(f"{place.address}/board")
        page.goto(place.address + path)
        page.wait_for_selector("#none:not([hidden])")
        return page

    return there


def nothing_decided(place: Place) -> Any:
    """The page of the regular review where nothing was decided; what it shows else is in `test_web_decisions_browser.py`."""
    page = place.page()
    page.goto(f"{place.address}/login#token={place.tokens['ops']}")
    page.wait_for_url(f"{place.address}/board")
    page.goto(f"{place.address}/decisions")
    page.wait_for_selector("#parts:not([hidden])")
    return page


def unreachable(place: Place) -> Any:
    page = place.page("bob")
    page.wait_for_selector("#empty:not([hidden])")
    page.context.set_offline(True)
    page.click("#again")
    page.wait_for_selector("#failed:not([hidden])")
    return page


def no_such_page(place: Place) -> Any:
    page = place.page("ada")
    page.goto(f"{place.address}/nothing")
    page.wait_for_selector("h1")
    return page


STATES: dict[str, Callable[[Place], Any]] = {
    "login": at("/login", "#token"),
    "login refused": login_refused,
    "invitation": invited,
    "invitation refused": at("/invite", "[role=alert]"),
    "texts to agree to": shown_to("cyd", "#wanted:not([hidden])"),
    "pair": pair_of,
    "help": lambda place: opened(place, "?", "#help-box[open]"),
    "guidelines": lambda place: opened(place, "g", "#guide-box[open]"),
    "consent about to be taken back": withdrawal_asked,
    "skip": lambda place: opened(place, "s", "#skip-box:not([hidden])"),
    "note": lambda place: opened(place, "n", "#note-box:not([hidden])"),
    "offline": offline,
    "server unreachable": unreachable,
    "paused": shown_to("dan", "#paused:not([hidden])"),
    "appeals": appeals,
    "nothing served": nothing_served("/operate"),
    "an empty dashboard": nothing_served("/dashboard"),
    "nothing decided": nothing_decided,
    "a reviewer without a pair": shown_to("eva", "#empty:not([hidden])"),
    "nothing left": shown_to("bob", "#empty:not([hidden])"),
    "error page": no_such_page,
}


@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing(place: Place, state: str) -> None:
    page = STATES[state](place)
    page.evaluate(axe_script())
    for size in (DESK, PHONE):
        for scheme in ("light", "dark"):
            page.set_viewport_size(size)
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            assert violations(page) == [], f"{scheme}, {size['width']} px"
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], "nothing sticks out"
    assert page.problems == []
    page.context.close()


def test_axe_would_find_something(place: Place) -> None:
    """The rules are in force: a page spoilt on purpose is told off for its contrast, its name and its small target."""
    page = pair_of(place)
    page.evaluate(axe_script())
    page.evaluate("""() => {
      document.getElementById("question").style.color = "#ddd";
      const small = '<div><button id=x></button><button id=y>y</button></div>';
      document.getElementById("main").insertAdjacentHTML("afterbegin", small);
      for (const id of ["x", "y"])
        document.getElementById(id).style.cssText = "min-width:0;min-height:0;width:9px;height:9px;padding:0;border:0";
    }""")
    found = page.evaluate("axe.run({rules: {'target-size': {enabled: true}}})")
    assert {"color-contrast", "button-name", "target-size"} <= {v["id"] for v in found["violations"]}
    page.context.close()


def test_each_text_runs_its_own_way_and_code_runs_left_to_right(place: Place) -> None:
    page = pair_of(place)
    directions = page.evaluate("""() => [...document.querySelectorAll("#left-text > *, #right-text > *, .turn.last .text > *")].map(
      (e) => [e.tagName, e.textContent.trim().slice(0, 6), getComputedStyle(e).direction, e.getBoundingClientRect().width > 0])""")
    by_text = {text: direction for _, text, direction, _ in directions}
    assert (
        by_text["كيف أق"] == "rtl"
        and by_text["שלום! "] == "rtl"
        and by_text["And on"] == "ltr"
        and by_text["ועוד פ"] == "rtl"
    )
    assert {direction for tag, _, direction, _ in directions if tag == "PRE"} == {"ltr"}
    bullet = page.evaluate(
        "getComputedStyle([...document.querySelectorAll('#task li')].find((e) => e.textContent.includes('أولا'))).direction"
    )
    assert bullet == "rtl", "a list's marks stand where its reading begins"
    inline = page.evaluate("[...document.querySelectorAll('#task p code')].map((e) => getComputedStyle(e).direction)")
    assert inline and set(inline) == {"ltr"}
    page.context.close()


def test_the_focus_goes_round_in_reading_order_and_is_seen(place: Place) -> None:
    """Header, then what scrolls in prompt and replies, then the choices as they stand; each with an outline of its own."""
    page = pair_of(place)
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        told = page.evaluate("""() => { const e = document.activeElement, b = e.getBoundingClientRect(), s = getComputedStyle(e);
          return [e.id || e.dataset.answer || e.dataset.strength || e.tagName,
            s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2, b.bottom > 0 && b.top < innerHeight]; }""")
        if told[0] == "BODY":
            break
        seen.append(told)
    names = [name for name, *_ in seen]
    assert names[:4] == ["PRE", "TABLE", "PRE", "TABLE"] or names[0] in ("logout", "PRE")
    order = [name for name in names if name not in ("PRE", "TABLE", "logout", "guide", "help")]
    assert order == ["left", "tie", "both_bad", "right", "1", "3", "skip", "note-toggle", "report", "undo"]
    assert all(outlined and on_screen for _, outlined, on_screen in seen), seen
    page.context.close()


def test_a_dialog_keeps_the_focus_and_gives_it_back(place: Place) -> None:
    page = pair_of(place)
    page.focus("#help")
    page.keyboard.press("Enter")
    page.wait_for_selector("#help-box[open]")
    for _ in range(3):
        assert page.evaluate(
            "document.activeElement === document.body || document.activeElement.closest('dialog') !== null"
        )
        page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "help"
    page.context.close()


def test_what_happens_is_said_aloud(place: Place) -> None:
    """The status is a polite live region that is there before it speaks; what can't wait is an alert; the pair has its names."""
    page = offline(place)
    assert page.get_by_role("status").count() == 1 and "Not saved yet" in page.get_by_role("status").inner_text()
    assert "Not saved yet" in page.get_by_role("alert").inner_text()
    for role, name in (
        ("main", None),
        ("banner", None),
        ("contentinfo", None),
        ("article", "Reply 1"),
        ("article", "Reply 2"),
    ):
        assert page.get_by_role(role, name=name).count() == 1 if name else page.get_by_role(role).count() == 1, (
            role,
            name,
        )
    assert page.get_by_role("group", name="Which reply is better?").get_by_role("button").count() == 4
    page.context.close()


def test_nothing_moves_for_who_asked_for_that(place: Place) -> None:
    page = pair_of(place)
    moving = """() => [...document.querySelectorAll("*")].filter((e) => { const s = getComputedStyle(e);
      return s.transitionDuration.split(", ").some((t) => parseFloat(t) > 0) || s.animationName !== "none"; }).length"""
    assert page.evaluate(moving) > 0
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving) == 0
    page.context.close()


def test_text_twice_as_large_still_fits(place: Place) -> None:
    """WCAG 1.4.4 and 1.4.10: a desk at 400 % is 320 px wide; everything can be reached by scrolling down alone."""
    page = pair_of(place)
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    bar = page.locator("#actions").bounding_box()
    assert bar["height"] <= 0.5 * 640, "the bar of choices leaves more than half of the screen to the texts"
    page.context.close()
