"""Every figure of every kind of page says of how many it is, its interval or why there is none, and the method."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_evaluation_comparison import run as compare_two
from test_evaluation_page import content as evaluation_content
from test_evaluation_page import voted
from test_pages_policy_report import page as policy_page
from test_pages_run_report import METRICS
from written_replies import two_policies

from rlhf.evaluation import difference, figures
from rlhf.evaluation.page import render
from rlhf.pages.calibration_report import render_calibration
from rlhf.pages.run_report import render_run
from rlhf.reward import fitting, trust
from rlhf.reward.settings import CalibrationSettings
from rlhf.store import Workspace

_N = re.compile(r"\bn\s=\s[\d,]+")
_COUNTS = {"pairs", "n", "replies", "prompts"}


def plots_of(html: str) -> Iterator[tuple[str, str]]:
    """Title and all words of each plot, those of the drawing too."""
    for found in re.findall(r"<figure>.*?</figure>", html, re.DOTALL):
        title = re.search(r"<strong>(.*?)</strong>", found)
        assert title
        yield title[1], re.sub(r"<[^>]+>", " ", found)


def tables_of(html: str) -> Iterator[tuple[list[str], list[list[str]], str]]:
    """Head, rows and the words of the section of each table that holds figures."""
    for section in re.findall(r"<section>.*?</section>", html, re.DOTALL):
        words = re.sub(r"<[^>]+>", " ", section)
        for table in re.findall(r"<table.*?</table>", section, re.DOTALL):
            head = re.findall(r"<th[^>]*>(.*?)</th>", table, re.DOTALL)
            rows = [
                [re.sub(r"<[^>]+>", " ", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)]
                for row in re.findall(r"<tr>(?:(?!<th).)*?</tr>", table, re.DOTALL)
            ]
            yield head, [row for row in rows if row], words


def evaluation() -> str:
    scored = [voted(i, "north", 6) for i in range(60)]
    made = evaluation_content(scored)
    made["versions"]["hh@2"] = {**made["versions"]["hh@1"], "figures": figures(scored[::-1])}
    made["differences"] = [{"a": "hh@2", "b": "hh@1", **difference(scored, scored)}]
    return render(made, {"hh@1": scored, "hh@2": scored})


def calibration() -> str:
    draw = np.random.default_rng(0)
    margins = draw.normal(0.5, 1.0, 80)
    votes = trust.Votes(margins, (draw.random(80) < 0.7).astype(float), np.array([f"g{i}" for i in range(80)]))
    made: dict[str, Any] = fitting.fit(votes, "hh@1", 0)
    settings = CalibrationSettings(version="hh@1", snapshot="s")
    return render_calibration(
        {
            **made,
            "version": "hh@2",
            "digest": "d" * 64,
            "parent": "hh@1",
            "snapshot": "s@1",
            "run": "r",
            "seed": 0,
            "set_aside": {"share": 0.1, "pairs": 80, "seen_by_ancestors": 0, "test_seen": 0},
            "test": fitting.on_test(made["temperature"], votes, "", 0),
            "threshold": fitting.limit(made["temperature"], votes, votes, settings),
            "method": trust.METHOD,
            "simulated": False,
        }
    )


def reward_run() -> str:
    measured = {
        "n_test": 50,
        "accuracy": 0.6,
        "accuracy_low": 0.5,
        "accuracy_high": 0.7,
        "log_loss": 0.66,
        "n_train": 80,
    }
    return render_run(
        title="hh", facts={}, metrics=METRICS, figures={**measured, "baseline_accuracy": 0.55, "steps": 9}
    )


PAGES: dict[str, Callable[[], str]] = {
    "evaluation": evaluation,
    "calibration": calibration,
    "policy run": policy_page,
    "reward run": reward_run,
}


def check(html: str) -> None:
    plots = list(plots_of(html))
    assert plots
    for title, words in plots:
        assert _N.search(words), f"'{title}' says of how many in no place"
        assert re.search(r"95 % interval\w*: |no interval: ", words), (
            f"'{title}' says nothing of its interval and method"
        )
    measured = [(head, rows, words) for head, rows, words in tables_of(html) if _is_of_figures(head, rows)]
    assert measured
    for head, rows, words in measured:
        assert _COUNTS & set(head), f"the table {head} has no column of counts"
        assert "method" in words.lower(), f"the table {head} says no method"
        place = next(i for i, name in enumerate(head) if name in _COUNTS)
        for row in rows:
            has_interval = any(re.search(r"\d to [+−\d]", cell) for cell in row)
            assert re.match(r"\s*[\d,]+", row[place]) or not has_interval, f"{row[0]} has an interval and no n"


def _is_of_figures(head: list[str], rows: list[list[str]]) -> bool:
    return (
        "95 % interval" in head
        or any("step" in name for name in head)
        or any(re.search(r"\([+−\d.]+ to [+−\d.]+\)", cell) for row in rows for cell in row)
    )


@pytest.mark.parametrize("kind", list(PAGES))
def test_each_figure_says_n_interval_and_method(kind: str) -> None:
    check(PAGES[kind]())


def test_each_figure_of_a_comparison_says_n_interval_and_method(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    check(compare_two(workspace).path.read_text("utf-8"))
    check(compare_two(workspace, judge="demo").path.read_text("utf-8"))


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda html: re.sub(r"\bn\s=\s", "N: ", html),
        lambda html: html.replace("95 % interval:", "").replace("no interval:", "").replace("95 % intervals:", ""),
        lambda html: html.replace('<th class="num">pairs</th>', "<th>x</th>").replace("<th>pairs</th>", "<th>x</th>"),
        lambda html: re.sub("(?i)method", "way", html),
    ],
    ids=["n", "interval", "count", "method"],
)
def test_a_page_that_leaves_one_out_would_be_found(spoilt: Callable[[str], str]) -> None:
    html = evaluation()
    check(html)
    with pytest.raises(AssertionError):
        check(spoilt(html))
