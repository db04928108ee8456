"""Reports held against axe's rules, light and dark, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import test_pages_payloads as reports
from browsers import DESK, PHONE, axe_script, opened_browser, violations
from test_evaluation_held_out import Scorer
from test_evaluation_model_card import learnt
from test_pages_policy_report import report as policy_report
from test_pages_run_report import FIGURES, METRICS

from rlhf.evaluation import evaluate
from rlhf.evaluation.model_card import model_card
from rlhf.evaluation.model_card_page import as_html
from rlhf.pages.policy_report import render_policy
from rlhf.pages.run_report import render_run
from rlhf.store import Workspace

pytestmark = pytest.mark.browser
A4 = {"width": 688, "height": 1004}  # 210 x 297 mm less the margins of page.css, at 96 dots an inch
_CUT = """[...document.querySelectorAll('.scroll, figure, .facts')]
    .filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.innerText)"""
_TALLEST = """Math.max(0, ...[...document.querySelectorAll('figure, tr, .headline, .sign')]
    .map((e) => e.getBoundingClientRect().height))"""
compared = reports.compared


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with opened_browser() as browser:
        yield browser.new_context(viewport=DESK).new_page()


@pytest.mark.parametrize("kind", ["training", "policy", "calibration", "evaluation", "comparison", "decision", "card"])
def test_axe_finds_nothing_in_a_report(
    page: Any, tmp_path: Path, workspace: Workspace, compared: dict[str, Any], kind: str
) -> None:
    html = {
        "training": lambda: render_run(
            title="hh", facts={"base": "tiny"}, metrics=METRICS, figures=FIGURES, simulated=True
        ),
        "policy": lambda: render_policy(title="p", report=policy_report(stopped="guard at step 20"), simulated=True),
        "calibration": lambda: reports.calibration_page(""),
        "evaluation": lambda: reports.evaluated_page("a word "),
        "comparison": lambda: reports.comparison("a word ", compared),
        "decision": lambda: reports.decision(""),
        "card": lambda: card_of(workspace, tmp_path),
    }[kind]()
    file = tmp_path / "report.html"
    file.write_text(html, "utf-8")
    page.goto(file.as_uri())
    page.evaluate(axe_script())
    page.evaluate("document.querySelectorAll('details').forEach((folded) => { folded.open = true; })")
    for size in (DESK, PHONE):
        for scheme in ("light", "dark"):
            page.set_viewport_size(size)
            page.emulate_media(color_scheme=scheme)
            assert violations(page) == [], f"{scheme}, {size['width']} px"
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], "nothing sticks out"
    require_printable(page)


def card_of(workspace: Workspace, scratch: Path) -> str:
    learnt(workspace, scratch)
    evaluate(workspace, ["hh@1"], "s", score=Scorer())
    return as_html(model_card(workspace, "hh@1"))


def require_printable(page: Any) -> None:
    """On A4 with the page's own margins, also for a reader whose screen is dark: nothing is cut at the side, no plot and no row is
    taller than a page, ink is black on white."""
    page.set_viewport_size(A4)
    page.emulate_media(media="print", color_scheme="dark")
    try:
        assert page.evaluate("document.documentElement.scrollWidth") <= A4["width"], "nothing is cut at the side"
        assert page.evaluate(_CUT) == [], "nothing is wider than the box that it stands in"
        assert page.evaluate(_TALLEST) < A4["height"], "what is kept together fits on a page"
        colours = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        assert colours == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
        assert page.pdf(prefer_css_page_size=True, print_background=True).startswith(b"%PDF")
    finally:
        page.emulate_media(media="screen", color_scheme="light")
