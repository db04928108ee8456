"""A training's page: what was trained on what, how it went, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from markupsafe import Markup

from rlhf.pages import plots
from rlhf.pages.page import Section, basis, facts, headline, page, plot_grid, small, table

FILE = "report.html"


@dataclass(frozen=True, slots=True)
class _Curve:
    """A plot: its keys in metrics.jsonl on training and on held-out pairs, axis, dashed level, what it says."""

    title: str
    key: str
    held_out: str | None
    axis: str
    reference: float | None
    note: str


_CURVES = (
    _Curve(
        "Loss",
        "loss",
        "eval_loss",
        "nats a pair",
        math.log(2),
        "Dashed: a coin's loss, 0.693. A training loss "
        "that keeps falling while the held-out one rises has begun to learn its pairs by heart.",
    ),
    _Curve("Accuracy", "accuracy", "eval_accuracy", "share ranked rightly", 0.5, "Dashed: a coin."),
    _Curve("Margin", "margin", "eval_margin", "chosen − rejected", 0.0, "Mean score difference."),
    _Curve("Mean score", "mean_reward", None, "mean of both replies", 0.0, "Centring keeps it near 0."),
    _Curve("Gradient norm", "grad_norm", None, "before clipping", None, "Spikes: odd batches."),
    _Curve("Learning rate", "learning_rate", None, "learning rate", None, "As it was run."),
    _Curve("Speed", "pairs_per_s", None, "pairs a second", None, "Falls where replies are long."),
)
_SIMULATED = "labelers: the judgements that this was trained on come from a program, not from people."
_AS_IT_IS = ("learning_rate", "pairs_per_s")  # no noise, or a mean already
_SMOOTH_SHARE = 15  # the strong line is the mean of the last fifteenth of the steps


def write_run_report(
    folder: Path,
    *,
    title: str,
    facts: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    figures: Mapping[str, Any] | None = None,
    simulated: bool = False,
) -> Path:
    """Write `report.html` into the run's folder and return its path.

    facts: name -> value, as they shall stand on the page. metrics: rows of metrics.jsonl, each with `step` and any of
    loss, accuracy, margin, mean_reward, grad_norm, learning_rate, pairs_per_s, eval_loss, eval_accuracy, eval_margin;
    absent and non-finite ones are passed over. figures: what was measured (held-out keys as in `rlhf evaluate`), None =
    nothing was.
    """
    html = render_run(title=title, facts=facts, metrics=metrics, figures=figures, simulated=simulated)
    return write_page(folder / FILE, html)


def write_page(path: Path, html: str) -> Path:
    """Write a page whole or not at all."""
    staged = path.with_name(f"{path.name}.new")
    staged.write_text(html, "utf-8")
    staged.replace(path)
    return path


def render_run(
    *,
    title: str,
    facts: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    figures: Mapping[str, Any] | None,
    simulated: bool = False,
) -> str:
    """The page itself; see `write_run_report`."""
    sections = []
    grid = list(learning_curves(metrics))
    if grid:
        sections.append(
            Section(
                "Learning curves", plot_grid(grid), "Faint: each logged step. Strong: the mean of the steps before it."
            )
        )
    if len(metrics) == 1:  # fitted at once, or a run of one step: a point is no curve
        only = {f"training_{key}": metrics[0][key] for key in ("loss", "accuracy") if key in metrics[0]}
        figures = {**(figures or {}), **only}
    if figures:
        sections.append(Section("Figures", _figures(figures)))
    sections.append(Section("The run", facts_of(facts)))
    return page(
        title,
        sections,
        kicker="Training report",
        lead=_lead(figures, metrics),
        simulated=_SIMULATED if simulated else "",
    )


def _lead(figures: Mapping[str, Any] | None, metrics: Sequence[Mapping[str, Any]]) -> Markup:
    if figures and finite(figures.get("accuracy")):
        low, high = figures.get("accuracy_low"), figures.get("accuracy_high")
        bounds = f" (95 % interval {low * 100:.1f} to {high * 100:.1f})" if finite(low) and finite(high) else ""
        n = next((figures[key] for key in ("n_decided", "n_test", "n") if finite(figures.get(key))), None)
        pairs = "of the held-out pairs" if n is None else f"of {n:,} held-out pairs"
        return headline(f"{figures['accuracy'] * 100:.1f} %", f"{pairs} are ranked as the labelers did{bounds}.")
    if figures and finite(figures.get("left_out_log_loss")):
        return headline(
            f"{figures['left_out_log_loss']:.3f}",
            "nats a pair on opening turns left out of the fit, one at a time (a coin: 0.693); nothing was measured on held-out "
            "pairs.",
        )
    _, losses = series(metrics, "loss")
    if losses:
        return headline(
            f"{losses[-1]:.3f}",
            f"training loss at the last of {len(losses):,} logged steps; nothing was measured on held-out pairs.",
        )
    return Markup()


def learning_curves(
    metrics: Sequence[Mapping[str, Any]], *, only: Collection[str] = (), slug: str = "curve"
) -> Iterator[tuple[str, Markup, str]]:
    """A plot of each figure that has two steps or more. only: some of them. slug: prefix of the plots' names."""
    for curve in (one for one in _CURVES if not only or one.key in only):
        steps, values = series(metrics, curve.key)
        lines = []
        window = max(1, len(values) // _SMOOTH_SHARE)
        if window > 1 and curve.key not in _AS_IT_IS:
            lines.append(plots.Line("each step", steps, values, faint=True))
            lines.append(plots.Line("training", steps, plots.smoothed(values, window)))
        elif values:
            lines.append(plots.Line("training", steps, values))
        held_steps, held_values = series(metrics, curve.held_out) if curve.held_out else ([], [])
        if held_values:
            lines.append(plots.Line("held out", held_steps, held_values, second=True))
        if lines and len({*steps, *held_steps}) > 1:
            name = f"{slug}-{curve.key.replace('_', '-')}"
            drawn = plots.curves(name, lines, x_label="step", y_label=curve.axis, reference=curve.reference)
            note = (
                f"{curve.note} {basis(len(values) or len(held_values), 'logged steps', without='means over one run')}"
            )
            yield curve.title, drawn, note


def series(metrics: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    rows = [(row["step"], row[key]) for row in metrics if finite(row.get("step")) and finite(row.get(key))]
    return [float(step) for step, _ in rows], [float(value) for _, value in rows]


# What a training measures, by the beginning of a figure's name, the longest first: which count is its n, and how it was made.
_MADE = {
    "left_out_": ("n_train", "each opening turn left out of the fit once; no interval"),
    "training_": ("n_train", "on the pairs that it was trained on; no interval"),
    "set_aside_": ("n_set_aside", "on pairs that were set aside, cross-fitted; the calibration report has intervals"),
    "baseline_": ("n_test", "the instant head on the same pairs; no interval"),
    "accuracy": ("n_test", "share of decided held-out pairs; interval: cluster bootstrap over opening turns"),
    "log_loss": ("n_test", "mean over the same pairs; an evaluation report gives its interval"),
}


def _figures(figures: Mapping[str, Any]) -> Markup:
    rows = []
    for key, value in figures.items():
        if finite(value) and not key.endswith(("_low", "_high")) and key != "seed":
            low, high = figures.get(f"{key}_low"), figures.get(f"{key}_high")
            interval = f"{low:.3f} to {high:.3f}" if finite(low) and finite(high) else ""
            count, method = next((made for start, made in _MADE.items() if key.startswith(start)), ("", ""))
            n = next((figures[name] for name in (count, "n_decided", "n") if count and finite(figures.get(name))), None)
            shown = f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
            rows.append((key.replace("_", " "), shown, interval, "" if n is None else f"{n:,}", method))
    head = ("figure", "value", "95 % interval", "pairs", "method")
    return table(head, rows, numeric=(1, 2, 3), wide=True) + small(
        "Without a method: a count, or what the training took."
    )


def facts_of(values: Mapping[str, Any]) -> Markup:
    return facts((name, value if isinstance(value, Markup) else _text(value)) for name, value in values.items())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_text(v)}" for k, v in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
