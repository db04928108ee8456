"""matplotlib figures as inline SVG: the same bytes for the same numbers, in the page's own colours and font.

A plot is drawn in stand-in colours, each of which becomes a CSS variable of the page, so that one drawing serves light
paper, dark screens and print. Ids are prefixed with the plot's name: two inline plots on a page must not share any.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-in colour -> CSS variable. Only these may be drawn with; anything else would not follow the theme.
INK, MUTED, LINE, GOOD, BAD, BAND, PAPER = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606", "#070707"
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", GOOD: "good", BAD: "bad", BAND: "band", PAPER: "card"}

_STYLE = {
    "svg.hashsalt": "rlhf",
    "svg.fonttype": "none",  # text stays text: it can be searched, read aloud and takes the page's font
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,  # a source's name may hold dollar signs
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "axes.grid": False,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
}


@contextmanager
def drawing(width: float, height: float, rows: tuple[float, ...] = (1,)) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of width x height (inches) with stacked axes of the given height shares, in the page's style."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(len(rows), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": rows})
        yield figure, [axes for (axes,) in grid]


def inline(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an `<svg>` element. name: a slug, unique on its page. description: what a reader who can't see it
    hears."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    found = re.search(r'<svg[^>]*viewBox="([\d. ]+)"[^>]*>(.*)</svg>', out.getvalue(), re.DOTALL)
    assert found, "matplotlib writes one <svg> with a viewBox"
    inside = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", found[2], flags=re.DOTALL)
    # Inside tags alone: a label may hold anything, and is escaped text between them.
    inside = re.sub(r"<[^>]*>", lambda tag: _themed(tag[0], name), inside)
    inside = re.sub(r"\n\s*", "\n", inside)
    return Markup('<svg role="img" aria-label="{}" viewBox="{}">{}</svg>').format(description, found[1], Markup(inside))


def _themed(tag: str, name: str) -> str:
    """One tag with the page's colours and font, no namespaces, and ids of this plot's own."""
    tag = tag.replace("xlink:href=", "href=")
    tag = re.sub(r"font-family: [^;\"]*;?\s*", "", tag)
    tag = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    return re.sub("|".join(_VARIABLES), lambda c: f"var(--{_VARIABLES[c[0]]})", tag)
