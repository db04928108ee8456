"""Figures found in a report by the way to them, with n, interval and method."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf.registry import gate_figures
from rlhf.registry.gate_figures import find

GAP = {"value": 0.08, "low": 0.02, "high": 0.14, "n": 90, "level": 0.95, "method": "bootstrap"}
FIGURES: dict[str, Any] = {
    "n": 200,
    "accuracy": 0.7,
    "accuracy_low": 0.64,
    "length_correlation": -0.3,
    "length_correlation_low": -0.4,
    "empty": None,
    "word": "longer",
    "is_it": True,
    "fairness": {"worst_gap": GAP, "n_cohorts": 3},
    "strata": {"worst": {"name": "code", "n": 40, "accuracy": 0.6, "accuracy_low": 0.5}},
    "by_source": {"shown": {"a.b.jsonl": {"value": 0.9, "low": None, "high": None, "n": 30}}},
    "measures": {
        "accuracy": {"value": 0.7, "low": 0.64, "high": 0.76, "n": 180, "level": 0.95, "method": "bootstrap"},
        "length_correlation": {"value": -0.3, "low": -0.4, "high": 0.1, "n": 170, "level": 0.95, "method": "spearman"},
    },
}


@pytest.mark.parametrize(
    ("way", "value", "n"),
    [
        ("accuracy", 0.7, 180),
        ("accuracy_low", 0.64, 180),
        ("n", 200, 200),
        ("fairness.worst_gap", 0.08, 90),
        ("fairness.worst_gap.high", 0.14, 90),
        ("fairness.worst_gap_low", 0.02, 90),
        ("fairness.n_cohorts", 3, 200),
        ("strata.worst.accuracy_low", 0.5, 40),
        ("length_correlation.abs", 0.3, 170),
        ("by_source.shown.a.b.jsonl", 0.9, 30),
        ("measures.accuracy.high", 0.76, 180),
    ],
)
def test_a_figure_is_found_by_its_way_with_its_own_n(way: str, value: float, n: int) -> None:
    found = find(FIGURES, way)
    assert (found.value, found.n, found.trouble) == (value, n, None)


def test_interval_and_method_come_with_the_figure() -> None:
    assert find(FIGURES, "accuracy_low").as_json() == {
        "value": 0.64, "n": 180, "low": 0.64, "high": 0.76, "level": 0.95, "method": "bootstrap"
    }  # fmt: skip
    gap = find(FIGURES, "fairness.worst_gap")
    assert (gap.low, gap.high, gap.method) == (0.02, 0.14, "bootstrap")


def test_the_size_of_a_figure_has_the_interval_of_its_size() -> None:
    found = find(FIGURES, "length_correlation.abs")
    assert (found.low, found.high) == (0.0, 0.4), "the interval spans zero"
    below = {"c": {"value": -0.3, "low": -0.4, "high": -0.2, "n": 5, "method": "m"}}
    assert (find(below, "c.abs").low, find(below, "c.abs").high) == (0.2, 0.4)


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("empty", "gives no empty"),
        ("empty.abs", "gives no empty"),
        ("word", "has no number under 'word'"),
        ("is_it", "has no number under 'is_it'"),
        ("strata.worst", "has several figures under 'strata.worst'"),
        ("fairness.worst", "has no figure 'fairness.worst'"),
        ("accuracy.worst_gap", "has no figure 'accuracy.worst_gap'"),
        ("nothing.at.all", "has no figure 'nothing.at.all'"),
        ("fairness.", "has no figure"),
        (".", "has no figure"),
    ],
)
def test_what_is_no_figure_says_so_and_has_no_value(way: str, said: str) -> None:
    found = find(FIGURES, way)
    assert found.value is None and found.trouble is not None and said in found.trouble


def test_what_may_have_been_meant_is_named() -> None:
    assert "fairness.worst_gap" in gate_figures.near(FIGURES, "fairness.worstgap")
    assert gate_figures.near(FIGURES, "acuracy") == "the nearest are accuracy, accuracy_low"


def test_where_nothing_is_near_what_there_is_stands_in_a_line_by_groups() -> None:
    said = "accuracy, accuracy_low, empty, length_correlation, length_correlation_low, n, by_source.*, fairness.*, strata.*"
    assert gate_figures.near(FIGURES, "zzz") == f"it has {said}"
    many = dict.fromkeys((f"figure_{n:02}" for n in range(60)), 0.5) | {"fairness": {"worst_gap": GAP}}
    assert gate_figures.grouped(gate_figures.ways(many)) == (
        "figure_00, figure_01, figure_02, figure_03, figure_04, figure_05, 54 more plain ones, fairness.*"
    )


def test_a_judged_share_counts_what_was_judged() -> None:
    figures = {"win_rate": 0.6, "n": 60, "measures": {"win_rate": {"n": 60, "n_judged": 9}}}
    found = find(figures, "win_rate")
    assert (found.n, found.items) == (9, "judged replies")
