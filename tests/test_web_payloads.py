"""The labeler's page in a real Chromium, its policy switched off: no text that a person or a model wrote acts there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from browsers import DESK, log_in, opened_browser, watched
from payloads import PAYLOADS, acted
from sqlalchemy import select
from test_web_labeler import agreed
from test_web_serving import served

from rlhf import ids, people
from rlhf.errors import BadInput, BadUsage
from rlhf.records import Message, Pair
from rlhf.store import Workspace
from rlhf.store.tables import judgements, pair_sources, pairs

pytestmark = pytest.mark.browser
MARKED = ("fence", "table", "template")  # begin with what Markdown takes for marks


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, Any, list[str], str]]:
    """A served workspace, ada's page in a browser that forbids nothing, and what must not happen there."""
    workspace = Workspace.create(tmp_path_factory.mktemp("payloads") / "ws", actor="tester")
    token = people.issue_token(workspace, "ada")
    agreed(workspace)
    with served(workspace) as (_, told), opened_browser() as browser:
        page = browser.new_context(viewport=DESK, bypass_csp=True).new_page()
        problems = watched(page, told["address"])
        log_in(page, told["address"], token)
        yield workspace, page, problems, told["address"]
    workspace.close()


def add(workspace: Workspace, payload: str) -> None:
    """One pair whose every text is the payload: the system's turn, the user's, an earlier reply, both replies, the source."""
    turns = [
        Message("system", payload),
        Message("user", payload),
        Message("assistant", payload),
        Message("user", payload),
    ]
    pair = Pair.of(turns, f"{payload} one", f"{payload}\n\n- two {payload}")
    row = {
        "id": pair.id, "prompt": json.dumps([turn.as_json() for turn in pair.prompt]), "reply_a": pair.reply_a,
        "reply_b": pair.reply_b, "group_digest": pair.group, "created_at": ids.now_text(),
    }  # fmt: skip
    with workspace.write() as write:
        write.insert_new(pairs, [row])
        write.insert_new(pair_sources, [{"pair_id": pair.id, "source": payload[:200], "details": "{}"}])


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_text_acts_on_the_labelers_page(place: tuple[Workspace, Any, list[str], str], name: str) -> None:
    """Prompt, system turn, replies, guidelines, consent, note, reason and source, one after the other."""
    workspace, page, problems, address = place
    payload = PAYLOADS[name]
    begin = " ".join(payload.split())[:12]
    add(workspace, payload)
    people.publish_text(workspace, "guideline", f"{payload}\n{name}")
    people.publish_text(workspace, "consent", f"{payload}\n{name}")
    page.goto(address)
    page.wait_for_selector("#wanted:not([hidden])")
    said = " ".join(page.inner_text("#wanted").split())
    assert said.count(name) >= 2 and (begin in said or name in MARKED) and acted(page) == [], "rendered, not run"
    page.click("#agree")
    page.wait_for_selector("#task:not([hidden])")
    assert acted(page) == []
    page.wait_for_timeout(300)
    page.keyboard.press("n")
    page.fill("#note", payload)
    page.reload()  # the draft comes back
    page.wait_for_selector("#note-box:not([hidden])")
    page.keyboard.press("g")
    page.wait_for_selector("#guide-box[open]")
    page.keyboard.press("Escape")
    page.wait_for_timeout(300)
    page.click("#skip")
    page.fill("#reason", payload)
    assert acted(page) == [] and problems == []
    page.press("#reason", "Enter")
    page.wait_for_selector("#status.saved")
    page.keyboard.press("u")  # the same pair again
    page.wait_for_selector("#task:not([hidden])")
    page.locator("#status", has_text="Undone").wait_for()
    page.wait_for_timeout(300)
    page.keyboard.press("t")
    page.locator("#status", has_text="Tie").wait_for()
    assert acted(page) == [] and problems == []
    with workspace.read() as connection:
        given = select(judgements.c.reason).where(judgements.c.reason != "undo").order_by(judgements.c.id.desc())
        reason = connection.execute(given).scalars().first()
    assert reason == payload.replace("\n", " ").strip(), "kept as it was written"


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_payload_names_a_person(workspace: Workspace, name: str) -> None:
    """A pseudonym stands in the page and in every export: it is letters, digits and a few signs."""
    for take in (
        lambda: people.add(workspace, PAYLOADS[name], ["labeler"]),
        lambda: people.invite(workspace, name=PAYLOADS[name]),
        lambda: people.issue_token(workspace, PAYLOADS[name]),
    ):
        with pytest.raises((BadInput, BadUsage)):
            take()
    assert people.list_accounts(workspace) == []


def test_an_invitation_shows_the_texts_as_texts(place: tuple[Workspace, Any, list[str], str]) -> None:
    workspace, page, _, address = place
    payload = PAYLOADS["closed"] + PAYLOADS["outside"]
    people.publish_text(workspace, "guideline", payload)
    guest = page.context.browser.new_context(bypass_csp=True).new_page()
    problems = watched(guest, address)
    guest.goto(f"{address}/invite#code={people.invite(workspace)}")
    guest.wait_for_selector("#accept:not([hidden])")
    assert "</textarea>" in guest.inner_text("#guideline") and acted(guest) == [] and problems == []


def test_an_error_page_shows_what_was_asked_as_text(place: tuple[Workspace, Any, list[str], str]) -> None:
    _, page, problems, address = place
    for path in ("/<svg onload=alert(1)>", '/"><img src=x onerror=alert(1)>', "/login?x=<script>alert(1)</script>"):
        page.goto(address + path)
        assert acted(page) == [] and problems == []
