"""Proxy and truth against what they cost: two curves with intervals over KL, or over n."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rlhf.pages.svg import BAD, GOOD, INK, MUTED, drawing, inline

_WIDTH, _HEIGHT = 4.3, 3.2


@dataclass(frozen=True, slots=True)
class Curve:
    """low, high: None where a point has no interval."""

    label: str
    y: Sequence[float]
    low: Sequence[float | None]
    high: Sequence[float | None]


def trade_off(
    name: str,
    x: Sequence[float],
    proxy: Curve,
    truth: Curve,
    *,
    x_label: str,
    y_label: str,
    reference: float,
    marked: int | None = None,
) -> Markup:
    """Proxy dashed with squares, truth solid with dots, so that they are told apart without colour. reference: a level dashed
    behind them; marked: the point with a ring around the truth, where it is best before it falls."""
    with drawing(_WIDTH, _HEIGHT) as (figure, (axes,)):
        for curve, colour, style, marker in ((proxy, BAD, (0, (5, 2)), "s"), (truth, GOOD, "solid", "o")):
            for at, low, high in zip(x, curve.low, curve.high, strict=True):
                if low is not None and high is not None:
                    axes.plot([at, at], [low, high], color=colour, linewidth=1.2, alpha=0.6)
            axes.plot(
                x,
                curve.y,
                color=colour,
                linestyle=style,
                marker=marker,
                markersize=3.5,
                linewidth=1.6,
                label=curve.label,
            )
        axes.axhline(reference, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
        if marked is not None:
            axes.plot(
                [x[marked]],
                [truth.y[marked]],
                marker="o",
                markersize=10,
                markerfacecolor="none",
                color=INK,
                linewidth=0,
            )
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.legend(frameon=False, fontsize=8)
        told = "; ".join(
            f"{curve.label} " + ", ".join(f"{y:.3g} at {at:.3g}" for at, y in zip(x, curve.y, strict=True))
            for curve in (proxy, truth)
        )
        return inline(figure, name, f"{y_label} over {x_label}: {told}")
