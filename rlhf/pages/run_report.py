"""A training's page: what was trained on what, how it went, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from markupsafe import Markup

from rlhf.pages import plots
from rlhf.pages.page import Section, facts, headline, page, plot_grid, table

FILE = "report.html"
# title, measured on training pairs, measured on held-out pairs, axis, reference, what it says
_CURVES: tuple[tuple[str, str, str, str, float | None, str], ...] = (
    (
        "Loss",
        "loss",
        "eval_loss",
        "nats a pair",
        math.log(2),
        "Dashed: a coin's loss, 0.693. A training loss that keeps falling while the "
        "held-out one rises has begun to learn its pairs by heart.",
    ),
    ("Accuracy", "accuracy", "eval_accuracy", "share ranked rightly", 0.5, "Dashed: a coin."),
    (
        "Margin",
        "margin",
        "eval_margin",
        "chosen − rejected",
        0.0,
        "Mean score difference: grows as the scores get surer.",
    ),
    ("Learning rate", "learning_rate", "", "learning rate", None, "Warm-up and decay as they were run."),
    (
        "Speed",
        "pairs_per_s",
        "",
        "pairs a second",
        None,
        "Falls where replies are long, or where the machine had other work.",
    ),
    ("Memory", "peak_memory_mb", "", "MiB", None, "Peak of the process so far."),
)
_SIMULATED = "labelers: the judgements that this was trained on come from a program, not from people."
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
    loss, accuracy, margin, learning_rate, pairs_per_s, peak_memory_mb, eval_loss, eval_accuracy, eval_margin; absent
    and non-finite ones are passed over. figures: the held-out figures (keys as in `rlhf evaluate`), None = not
    measured.
    """
    html = render_run(title=title, facts=facts, metrics=metrics, figures=figures, simulated=simulated)
    path = folder / FILE
    staged = folder / f"{FILE}.new"
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
    grid = list(_curves(metrics))
    if grid:
        sections.append(
            Section(
                "Learning curves", plot_grid(grid), "Faint: each logged step. Strong: the mean of the steps before it."
            )
        )
    if figures:
        sections.append(Section("Held-out figures", _figures(figures)))
    sections.append(Section("The run", _facts(facts)))
    return page(
        title,
        sections,
        kicker="Training report",
        lead=_lead(figures, metrics),
        simulated=_SIMULATED if simulated else "",
    )


def _lead(figures: Mapping[str, Any] | None, metrics: Sequence[Mapping[str, Any]]) -> Markup:
    if figures and _finite(figures.get("accuracy")):
        low, high = figures.get("accuracy_low"), figures.get("accuracy_high")
        bounds = f" (95 % interval {low * 100:.1f} to {high * 100:.1f})" if _finite(low) and _finite(high) else ""
        n = figures.get("n_decided", figures.get("n"))
        return headline(
            f"{figures['accuracy'] * 100:.1f} %", f"of {n:,} held-out pairs are ranked as the labelers did{bounds}."
        )
    _, losses = _series(metrics, "loss")
    if losses:
        return headline(
            f"{losses[-1]:.3f}",
            f"training loss at the last of {len(losses):,} logged steps; nothing was measured on held-out pairs.",
        )
    return Markup()


def _curves(metrics: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Markup, str]]:
    for title, key, held_out, axis, reference, note in _CURVES:
        steps, values = _series(metrics, key)
        lines = []
        window = max(1, len(values) // _SMOOTH_SHARE)
        if len(values) > 1 and window > 1 and reference is not None:
            lines.append(plots.Line("each step", steps, values, faint=True))
            lines.append(plots.Line("training", steps, plots.smoothed(values, window)))
        elif values:
            lines.append(plots.Line("training", steps, values))
        held_steps, held_values = _series(metrics, held_out) if held_out else ([], [])
        if held_values:
            lines.append(plots.Line("held out", held_steps, held_values, second=True))
        if lines:
            name = "curve-" + title.lower().replace(" ", "-")
            yield title, plots.curves(name, lines, x_label="step", y_label=axis, reference=reference), note


def _series(metrics: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    rows = [(row["step"], row[key]) for row in metrics if _finite(row.get("step")) and _finite(row.get(key))]
    return [float(step) for step, _ in rows], [float(value) for _, value in rows]


def _figures(figures: Mapping[str, Any]) -> Markup:
    rows = []
    for key, value in figures.items():
        if _finite(value) and not key.endswith(("_low", "_high")) and key != "seed":
            low, high = figures.get(f"{key}_low"), figures.get(f"{key}_high")
            interval = f"{low:.3f} to {high:.3f}" if _finite(low) and _finite(high) else ""
            rows.append((key.replace("_", " "), f"{value:,}" if isinstance(value, int) else f"{value:.3f}", interval))
    return table(("figure", "value", "95 % interval"), rows, numeric=(1, 2))


def _facts(values: Mapping[str, Any]) -> Markup:
    return facts((name, value if isinstance(value, Markup) else _text(value)) for name, value in values.items())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_text(v)}" for k, v in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
