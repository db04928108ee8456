"""Win rates by a suite's strata, the same for both sides turned round, and a forest plot that hides no row in silence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from suite_files import bench_row, write
from test_evaluation_comparison import run
from written_replies import GOOD, POOR, pairs_of, two_policies, verdicts_of

from rlhf import suites
from rlhf.evaluation import open_report
from rlhf.evaluation.win_rates import figures
from rlhf.evaluation.win_strata import by_stratum, forest
from rlhf.store import Workspace


def test_each_stratum_has_its_own_rate_and_small_ones_are_counted() -> None:
    pairs = pairs_of([(" ".join(GOOD), " ".join(POOR))] * 100)
    strata = [["chat"] if i < 60 else ["code", "hard"] if i < 95 else ["rare"] for i in range(100)]
    found = by_stratum(pairs, verdicts_of([1.0 if i < 60 else 0.0 for i in range(99)] + [None]), strata, 0)
    assert {name: (m["value"], m["n"]) for name, m in found["shown"].items()} == {
        "chat": (1.0, 60), "code": (0.0, 35), "hard": (0.0, 35),
    }  # fmt: skip
    assert found["hidden"] == {"parts": 1, "pairs": 4, "below": 30}, "what nobody judged is in no stratum"


def test_a_comparison_on_a_suite_shows_its_strata_in_the_forest(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    rows = [bench_row(i, "chat" if i % 2 else "code" if i < 80 else "rare") for i in range(90)]
    suites.import_files(workspace, "bench", [write(tmp_path / "b.jsonl", rows)])
    report = run(workspace, suite="bench")
    a, b = (f["by_stratum"] for f in report.figures.values())
    assert set(a["shown"]) == {"chat", "code"} == set(b["shown"]) and a["hidden"]["parts"] == 1
    for name, measure in a["shown"].items():
        turned = b["shown"][name]
        assert turned["value"] == pytest.approx(1 - measure["value"]) and turned["low"] == pytest.approx(
            1 - measure["high"]
        )
    html = report.path.read_text("utf-8")
    told = re.search(r'aria-label="(Forest plot[^"]+)"', html)
    assert told and all(word in told[1] for word in ("all pairs", "chat", "code", "n = 45"))
    assert "Not shown: 1 strata of fewer than 30 pairs" in html
    assert open_report(workspace, report.digest).content == report.content


def test_a_snapshots_prompts_have_no_strata(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    assert all("by_stratum" not in f for f in run(workspace).figures.values())


def test_nothing_judged_is_no_forest() -> None:
    one, _ = figures(pairs_of([("x", "y")] * 3), verdicts_of([None] * 3))
    assert forest("demo@1", one) is None


def test_the_forest_says_value_interval_and_pairs_of_every_row() -> None:
    one, _ = figures(pairs_of([("x" * (5 + i % 3), "y" * 6) for i in range(60)]), verdicts_of([1.0, 0.0, 1.0] * 20))
    chart = forest("demo@1", one)
    assert chart is not None
    title, drawn, note = chart
    assert title == "Win rate of demo@1" and drawn.count("n = 60") >= 2 and "66.7 (" in drawn
    assert "95 % intervals: wilson" in note, "each opening turn once, and nothing is even"
