"""The plots that reports are made of, each a pure function from numbers to inline SVG.

Every plot has a slug `name`, unique on its page, and a description for readers who can't see it. Numbers are finite;
what could not be measured is left out by the caller. Widths are chosen so that the labels stay legible on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from rlhf.pages.svg import BAD, BAND, GOOD, INK, LINE, MUTED, drawing, inline

_WIDTH, _HEIGHT = 4.3, 3.0  # inches at 9 points: 9 pixels on a 390 pixel phone, 13 on a desk
_LABEL_LENGTH = 26
_NARROW = 0.5


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a reliability diagram: mean predicted probability, share observed, count, and the band in which a
    perfectly calibrated score's observed share falls 95 times of 100 at this count."""

    predicted: float
    observed: float
    n: int
    band_low: float
    band_high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval (None = none could be formed), for `dots`. quiet: a baseline, drawn in grey."""

    label: str
    value: float
    low: float | None
    high: float | None
    n: int
    quiet: bool = False


def reliability(name: str, bins: Sequence[Bin]) -> Markup:
    """Observed against predicted share, the perfect-calibration band behind, the count of each bin below."""
    with drawing(_WIDTH, 3.9, (3.2, 1)) as (figure, (top, below)):
        predicted = [b.predicted for b in bins]
        top.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        top.vlines(predicted, [b.band_low for b in bins], [b.band_high for b in bins], color=BAND, linewidth=7)
        top.plot(predicted, [b.observed for b in bins], color=GOOD, linestyle="none", marker="o", markersize=4)
        (left, right), (bottom, up) = reliability_axes(bins)
        top.set(xlim=(left, right), ylim=(bottom, up), ylabel="observed share")
        top.locator_params(axis="y", nbins=5)
        top.grid(axis="y")
        below.bar(predicted, [b.n for b in bins], width=0.025 * (right - left), color=GOOD)
        below.set(xlabel="predicted probability that the reply is preferred", ylabel="pairs")
        below.locator_params(axis="y", nbins=3)
        told = ", ".join(f"{b.predicted:.2f} predicted {b.observed:.2f} observed of {b.n}" for b in bins)
        return inline(figure, name, f"Reliability diagram: {told}")


def reliability_axes(bins: Sequence[Bin]) -> tuple[tuple[float, float], tuple[float, float]]:
    """What a reliability diagram's axes span, predicted and observed: 0 to 1, or the dots and their bands with a margin
    where the predictions fill less than half of it and would be one blot."""
    predicted = [b.predicted for b in bins]
    if not bins or max(predicted) - min(predicted) >= _NARROW:
        return (0.0, 1.0), (-0.02, 1.02)
    seen = [*predicted, *(v for b in bins for v in (b.observed, b.band_low, b.band_high))]
    margin = max(0.02, 0.1 * (max(predicted) - min(predicted)))
    return (min(predicted) - margin, max(predicted) + margin), (min(seen) - 0.02, max(seen) + 0.02)


def histogram(name: str, edges: Sequence[float], counts: Sequence[int]) -> Markup:
    """Counts of score differences (chosen - rejected); what lies left of zero is ranked wrongly and coloured so."""
    with drawing(_WIDTH, _HEIGHT) as (figure, (axes,)):
        widths = [high - low for low, high in pairwise(edges)]
        colours = [GOOD if low + high > 0 else BAD for low, high in pairwise(edges)]
        axes.bar(edges[:-1], counts, width=[w * 0.92 for w in widths], align="edge", color=colours)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set(xlabel="score of chosen − score of rejected", ylabel="pairs")
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        right = sum(c for c, colour in zip(counts, colours, strict=True) if colour == GOOD)
        return inline(figure, name, f"Histogram of score differences: {right} of {sum(counts)} pairs lie right of zero")


def dots(
    name: str, estimates: Sequence[Estimate], *, reference: float | None, label: str, percent: bool = True
) -> Markup:
    """One line an estimate: dot and interval. reference: a dashed line, for instance 0.5 = a coin, or None."""
    scale = 100.0 if percent else 1.0
    with drawing(_WIDTH, 0.72 + 0.36 * len(estimates)) as (figure, (axes,)):
        for row, e in enumerate(estimates):
            colour = MUTED if e.quiet else GOOD
            if e.low is not None and e.high is not None:
                axes.plot(
                    [e.low * scale, e.high * scale], [row, row], color=colour, linewidth=2, solid_capstyle="round"
                )
            axes.plot([e.value * scale], [row], color=colour, marker="o", markersize=6)
        if reference is not None:
            axes.axvline(reference * scale, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        axes.set_yticks(range(len(estimates)), [f"{_short(e.label)}\nn = {e.n:,}" for e in estimates])
        axes.tick_params(axis="y", labelsize=8, labelcolor=INK)
        axes.set(ylim=(len(estimates) - 0.5, -0.5), xlabel=label)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        told = "; ".join(f"{e.label} {e.value * scale:.1f} ({_interval(e, scale)}, n = {e.n})" for e in estimates)
        return inline(figure, name, f"{label}: {told}")


def forest(name: str, estimates: Sequence[Estimate], *, reference: float, label: str) -> Markup:
    """Shares in percent, one a row as in a meta-analysis: square (its area grows with n) and interval, value, interval and n in
    words at the right."""
    most = max(e.n for e in estimates)
    with drawing(_WIDTH, 0.72 + 0.36 * len(estimates)) as (figure, (axes,)):
        for row, e in enumerate(estimates):
            if e.low is not None and e.high is not None:
                axes.plot([e.low * 100, e.high * 100], [row, row], color=GOOD, linewidth=1.4, solid_capstyle="butt")
            size = 3 + 5 * (e.n / most) ** 0.5
            axes.plot([e.value * 100], [row], color=GOOD, marker="s", markersize=size, markeredgewidth=0)
        axes.axvline(reference * 100, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        axes.set_yticks(range(len(estimates)), [_short(e.label) for e in estimates])
        axes.tick_params(axis="y", labelsize=8, labelcolor=INK)
        axes.set(ylim=(len(estimates) - 0.5, -0.5), xlabel=label)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        beside = axes.twinx()
        beside.set_ylim(axes.get_ylim())
        said = [f"{e.value * 100:.1f} ({_interval(e, 100)})\nn = {e.n:,}" for e in estimates]
        beside.set_yticks(range(len(estimates)), said)
        beside.tick_params(axis="y", labelsize=8, labelcolor=INK, length=0)
        beside.spines["left"].set_visible(False)
        told = "; ".join(f"{e.label} {e.value * 100:.1f} ({_interval(e, 100)}, n = {e.n})" for e in estimates)
        return inline(figure, name, f"Forest plot, {label}: {told}")


def scatter(name: str, x: Sequence[float], y: Sequence[float], *, x_label: str, y_label: str) -> Markup:
    """Points around two zero lines; those with y below zero (ranked wrongly) in the second colour."""
    with drawing(_WIDTH, _HEIGHT) as (figure, (axes,)):
        for colour, keep in ((GOOD, lambda v: v > 0), (BAD, lambda v: v <= 0)):
            shown = [(a, b) for a, b in zip(x, y, strict=True) if keep(b)]
            if shown:
                xs, ys = zip(*shown, strict=True)
                axes.plot(
                    xs, ys, linestyle="none", marker="o", markersize=2.4, markeredgewidth=0, color=colour, alpha=0.55
                )
        axes.axhline(0, color=LINE, linewidth=0.8, zorder=0)
        axes.axvline(0, color=LINE, linewidth=0.8, zorder=0)
        axes.set(xlabel=x_label, ylabel=y_label)
        return inline(figure, name, f"Scatter of {y_label} against {x_label}, {len(x)} points")


@dataclass(frozen=True, slots=True)
class Line:
    """One curve of `curves`: its points, and whether it is the measured one (drawn strong) or raw noise behind it."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False
    second: bool = False


def curves(name: str, lines: Sequence[Line], *, x_label: str, y_label: str, reference: float | None = None) -> Markup:
    """Learning curves over steps. reference: a dashed level such as ln 2, a coin's loss."""
    with drawing(_WIDTH, 2.7) as (figure, (axes,)):
        for line in lines:
            axes.plot(
                line.x,
                line.y,
                color=BAD if line.second else GOOD,
                alpha=0.35 if line.faint else 1.0,
                label=line.label,
                linewidth=0.9 if line.faint else 1.8,
                marker="o" if len(line.x) < 12 else None,
                markersize=3.5,
            )
        if reference is not None:
            axes.axhline(reference, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.ticklabel_format(axis="y", scilimits=(-3, 5), useOffset=False)
        axes.locator_params(axis="x", integer=True)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=8)
        told = "; ".join(f"{line.label} from {line.y[0]:.4g} to {line.y[-1]:.4g}" for line in lines)
        return inline(figure, name, f"{y_label} over {x_label}: {told}")


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Mean of each value and the `window - 1` before it: never looks ahead, so the last point is what was known
    then."""
    return [sum(values[max(0, i - window + 1) : i + 1]) / min(i + 1, window) for i in range(len(values))]


def _short(label: str) -> str:
    return label if len(label) <= _LABEL_LENGTH else label[: _LABEL_LENGTH - 1] + "…"


def _interval(e: Estimate, scale: float) -> str:
    if e.low is None or e.high is None:
        return "no interval"
    return f"{e.low * scale:.1f} to {e.high * scale:.1f}"
