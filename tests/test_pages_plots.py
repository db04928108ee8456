"""Plots: the same bytes for the same numbers, nothing fetched, labels that stay text."""

from __future__ import annotations

import re
from functools import cache
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from rlhf.pages import plots

BINS = [plots.Bin(0.2, 0.25, 40, 0.1, 0.35), plots.Bin(0.8, 0.7, 40, 0.65, 0.9)]


def dots(label: str = "hh@1") -> Markup:
    estimates = [plots.Estimate(label, 0.6, 0.5, 0.7, 90), plots.Estimate("b", 0.4, None, None, 1, True)]
    return plots.dots("c", estimates, reference=0.5, label="accuracy")


FOREST = [plots.Estimate("all", 0.6, 0.5, 0.7, 90), plots.Estimate("few", 0.4, None, None, 3)]
LINES = [plots.Line("training", [1, 2], [0.7, 0.6]), plots.Line("held out", [2], [0.65])]
DRAW = {
    "reliability": lambda: plots.reliability("a", BINS),
    "histogram": lambda: plots.histogram("b", [-1, 0, 1], [3, 9]),
    "dots": dots,
    "forest": lambda: plots.forest("f", FOREST, reference=0.5, label="wins"),
    "scatter": lambda: plots.scatter("d", [-5, 3], [0.5, -0.5], x_label="x", y_label="y"),
    "curves": lambda: plots.curves("e", LINES, x_label="step", y_label="loss"),
}


@cache
def every() -> dict[str, Markup]:
    return {kind: draw() for kind, draw in DRAW.items()}


@pytest.mark.parametrize("kind", list(DRAW))
def test_a_plot_is_one_described_svg_that_fetches_nothing(kind: str) -> None:
    drawn = every()[kind]
    ElementTree.fromstring(drawn)
    assert re.match(r'<svg role="img" aria-label="[^"]{10,}" viewBox="0 0 [\d.]+ [\d.]+">', drawn)
    assert "http" not in drawn and "src=" not in drawn
    assert all(found.startswith('href="#') for found in re.findall(r'href="[^"]*', drawn))


def test_the_same_numbers_draw_the_same_bytes() -> None:
    assert every() == {kind: draw() for kind, draw in DRAW.items()}


def test_colours_follow_the_page() -> None:
    for kind, drawn in every().items():
        assert "var(--good)" in drawn, kind
        assert not re.findall(r"#[0-9a-fA-F]{6}\b", drawn), kind


def test_two_plots_share_no_id() -> None:
    ids = [re.findall(r'\sid="([^"]+)"', drawn) for drawn in every().values()]
    assert all(ids) and len(set().union(*ids)) == sum(len(set(one)) for one in ids)
    for drawn in every().values():
        assert set(re.findall(r'href="#([^"]+)', drawn)) <= set(re.findall(r'\sid="([^"]+)"', drawn))


def test_a_label_is_text_whatever_it_holds() -> None:
    drawn = dots('<b onclick="x">$x_1$')
    texts = "".join(ElementTree.fromstring(drawn).itertext())
    assert '<b onclick="x">$x_1$' in texts and "<b" not in drawn
    assert '#010101 & id="z"' in "".join(ElementTree.fromstring(dots('#010101 & id="z"')).itertext())


def test_a_reliability_diagram_of_near_predictions_is_drawn_near() -> None:
    assert plots.reliability_axes(BINS) == ((0.0, 1.0), (-0.02, 1.02))
    near = [plots.Bin(0.48, 0.40, 40, 0.32, 0.65), plots.Bin(0.52, 0.61, 40, 0.35, 0.68)]
    (left, right), (bottom, top) = plots.reliability_axes(near)
    assert 0.44 < left < 0.48 and 0.52 < right < 0.56
    assert bottom < 0.32 and top > 0.68 and top - bottom < 0.5


def test_smoothing_never_looks_ahead() -> None:
    assert plots.smoothed([1, 3, 5, 100], 2) == [1, 2, 4, 52.5]
