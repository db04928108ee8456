"""A version's figures by parts, as the page's tables: styles, cohorts, where it is sure, and what small changes flip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from rlhf.evaluation.wording import number, percent, range_of, value_of
from rlhf.pages import Section, table


def tables(f: Mapping[str, Any], of: str) -> Iterator[Section]:
    """of: what the titles end in where a page holds several versions."""
    if f["precision"]:
        yield Section(f"Where it is sure{of}", _precision(f), _PRECISION)
    if f["style_matrix"]:
        yield Section(f"Style matrix{of}", _styles(f["style_matrix"]), _styles_said(f["style_matrix"]))
    if f["by_cohort"]["shown"]:
        rows = [
            (name, value_of(m, "%"), f"{m['n']:,}", f"{m['people']:,}" if m["people"] else "not named", m["method"])
            for name, m in f["by_cohort"]["shown"].items()
        ]
        head = ("cohort", "agreement, % (95 % interval)", "pairs", "people", "method")
        hidden = f["by_cohort"]["hidden"]
        note = "How often the version prefers what most of the cohort prefer, on the pairs that they judged."
        if hidden["cohorts"]:
            note += (
                f" Not shown: {hidden['cohorts']} cohorts of fewer than {hidden['below_people']} people or "
                f"{hidden['below_pairs']} pairs."
            )
        yield Section(f"Agreement by cohort{of}", table(head, rows, numeric=(1, 2, 3)), note)
    if f.get("stability"):
        yield Section(f"When nothing that matters changes{of}", _stability(f["stability"]), _STABILITY)


_PRECISION = "The confidence is max(P(a), P(b)). Coverage: the share of all decided pairs on which it is so sure."
_STABILITY = (
    "Pairs drawn by hash and scored again. A flip is a preference that turned; the change is of the score difference, in nats. "
    "Swapped sides are a check of the scorer: nothing may change but the last bits. In brackets: 95 % intervals; method: bootstrap "
    "over opening turns."
)


def _precision(f: Mapping[str, Any]) -> Markup:
    rows = [
        (
            f"{at['confidence']:g}",
            number(at["value"], "%"),
            range_of(at, "%"),
            f"{at['n']:,}",
            percent(at["coverage"]),
            at["method"],
        )
        for at in f["precision"]
    ]
    head = ("confidence", "precision, %", "95 % interval", "pairs", "coverage, %", "method")
    return table(head, rows, numeric=(0, 1, 2, 3, 4), wide=True)


def _styles(matrix: Mapping[str, Any]) -> Markup:
    head = ("chosen ↓ rejected →", *matrix["styles"])
    rows = [
        (style, *(f"{value_of(cell, '%')}, {cell['n']:,} pairs" for cell in cells))
        for style, cells in zip(matrix["styles"], matrix["cells"], strict=True)
    ]
    return table(head, rows, numeric=range(1, len(head)), wide=True)


def _styles_said(matrix: Mapping[str, Any]) -> str:
    easy, normal, hard = (number(matrix[level], "%") for level in ("easy", "normal", "hard"))
    return (
        f"Accuracy in percent. Easy (the chosen reply has the fancier style) {easy}, normal (both have one) {normal}, hard (the "
        f"rejected one has) {hard}: means of cells, no interval. In brackets: 95 % intervals; method: bootstrap over opening turns."
    )


def _stability(found: Mapping[str, Any]) -> Markup:
    named = [(m["what"], m) for m in found["variants"].values()] + [("sides swapped", found["position"])]
    rows = [
        (
            what,
            value_of(m["flipped"], "%"),
            value_of(m["moved"], "3"),
            number(m["largest"], "3"),
            f"{m['flipped']['n']:,}",
        )
        for what, m in named
    ]
    head = ("change", "flipped, %", "mean change", "largest", "pairs")
    return table(head, rows, numeric=(1, 2, 3, 4), wide=True)
