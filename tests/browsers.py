"""A real Chromium for tests: one browser, contexts in it, and a list of what must not happen on a page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_RUN = "(tags) => axe.run({runOnly: {type: 'tag', values: tags}, rules: {'target-size': {enabled: true}}})"
DESK, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}


def chromium() -> str:
    """Where Chromium is; skips the test where it is not."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium on PATH")
    return found


@contextmanager
def opened_browser() -> Iterator[Any]:
    """A running Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra 'dev': playwright")
    path = chromium()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def watched(page: Any, own: str) -> list[str]:
    """What may not happen on this page, as it happens: an error, a dialog, a broken policy, a request to anything but `own`."""
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(f"error {error}"))
    page.on("dialog", lambda dialog: (problems.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("console", lambda m: problems.append(m.text) if "Content Security Policy" in m.text else None)
    page.on("request", lambda r: None if r.url.startswith((own, "data:")) else problems.append(f"request {r.url}"))
    page.on("popup", lambda popup: problems.append(f"window {popup.url}"))
    return problems


def log_in(page: Any, address: str, token: str) -> None:
    """Come in by a token's link, and wait until the page knows what to show."""
    page.goto(f"{address}/login#token={token}")
    page.wait_for_url(f"{address}/")
    page.wait_for_selector("#waiting[hidden]", state="attached")


@cache
def axe_script() -> str:
    """axe-core, as its package brings it. A page gets it by `page.evaluate`: by the debugger, which no page's policy binds."""
    package = pytest.importorskip("axe_playwright_python", reason="needs the extra 'dev': axe-playwright-python")
    (script,) = Path(package.__file__).parent.rglob("axe.min.js")
    return script.read_text("utf-8")


def violations(page: Any) -> list[tuple[str, list[str]]]:
    """Rules of WCAG 2.2 A and AA and of good practice that the page breaks, and where. The page has axe's script."""
    page.wait_for_timeout(50)
    found = page.evaluate(_RUN, _TAGS)
    assert len(found["passes"]) >= 8, "axe has looked at the page"
    return [(broken["id"], [node["html"][:150] for node in broken["nodes"]]) for broken in found["violations"]]
