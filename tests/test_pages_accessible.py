"""Reports held against axe's rules, light and dark, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import test_pages_payloads as reports
from browsers import DESK, PHONE, axe_script, opened_browser, violations
from test_pages_policy_report import report as policy_report
from test_pages_run_report import FIGURES, METRICS

from rlhf.pages.policy_report import render_policy
from rlhf.pages.run_report import render_run

pytestmark = pytest.mark.browser
compared = reports.compared


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with opened_browser() as browser:
        yield browser.new_context(viewport=DESK).new_page()


@pytest.mark.parametrize("kind", ["training", "policy", "calibration", "evaluation", "comparison", "decision"])
def test_axe_finds_nothing_in_a_report(page: Any, tmp_path: Path, compared: dict[str, Any], kind: str) -> None:
    html = {
        "training": lambda: render_run(
            title="hh", facts={"base": "tiny"}, metrics=METRICS, figures=FIGURES, simulated=True
        ),
        "policy": lambda: render_policy(title="p", report=policy_report(stopped="guard at step 20"), simulated=True),
        "calibration": lambda: reports.calibration_page(""),
        "evaluation": lambda: reports.evaluated_page("a word "),
        "comparison": lambda: reports.comparison("a word ", compared),
        "decision": lambda: reports.decision(""),
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
