"""A policy training's page: what it learnt from, and reward, fluency and drift side by side over the steps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from rlhf.pages import plots
from rlhf.pages.page import Section, basis, headline, page, plot_grid, small, table
from rlhf.pages.run_report import FILE, finite, series, write_page
from rlhf.pages.run_report import facts_of as listed

# Figure of the watch: title, axis, what it says. In this order.
_WATCHED = {
    "reward": ("Reward", "points", "What the training raises. It is the learnt reward's opinion, not people's."),
    "true_win_rate": (
        "True win rate",
        "share of replies",
        "Against the replies at step 0 to the same prompts, by the demo's known rule, which neither reward nor policy has seen.",
    ),
    "logp_base": (
        "Fluency",
        "nats a token",
        "Mean log-probability of the replies under the base. A fall below where it began: stranger text.",
    ),
    "kl_token": ("KL to the reference", "nats a token", "How far the policy has moved. Measured also at beta = 0."),
    "tokens": ("Length", "tokens a reply", "A reward that likes length shows here first."),
    "cut_off": ("Cut off", "share of replies", "Replies that did not end within max_new_tokens."),
    "repetition": ("Repetition", "share of 4-grams", "4-grams of words that stood in the same reply before."),
    "doubt": (
        "Doubt",
        "chance of an error",
        "The reward's own chance to rank two replies to one prompt wrongly; 0.5 = a coin.",
    ),
}
_STEPS = {
    "loss": ("Loss", "as TRL reports it"),
    "margin": ("Margin of the pairs", "beta × log-ratio difference"),
    "accuracy": ("Pairs ranked rightly", "share"),
    "reward": ("Reward of the rollouts", "points"),
    "kl_token": ("KL of the rollouts", "nats a token"),
    "groups_alike": ("Prompts without a lesson", "share whose replies score alike"),
    "entropy": ("Entropy", "nats a token"),
    "grad_norm": ("Gradient norm", "before clipping"),
    "learning_rate": ("Learning rate", "as it was run"),
}
_SIMULATED = "labelers: the judgements behind the reward come from a program, not from people."


def write_policy_report(folder: Path, *, title: str, report: Mapping[str, Any], simulated: bool = False) -> Path:
    """Write `report.html` into the run's folder and return its path. report: what stands in report.json beside it."""
    return write_page(folder / FILE, render_policy(title=title, report=report, simulated=simulated))


def render_policy(*, title: str, report: Mapping[str, Any], simulated: bool = False) -> str:
    """The page itself; see `write_policy_report`."""
    watch, steps = report["watch"], report["steps"]
    sections = []
    if report["stopped"]:
        sections.append(
            Section(
                "Stopped by the guard",
                Markup("<p>{}.</p>").format(report["stopped"]),
                "The version is the last good one.",
            )
        )
    if watch:
        note = f"{watch[0]['replies']:.0f} replies to the same prompts with the same chance each time. Step 0 is where it began."
        sections.append(Section("Over the steps", plot_grid(watched(watch)), note))
        sections.append(Section("Figures", _table(watch)))
    if steps:
        sections.append(Section("The training", plot_grid(stepped(steps))))
    sections.append(Section("The run", listed(report["facts"])))
    return page(title, sections, kicker="Training report", lead=_lead(watch), simulated=_SIMULATED if simulated else "")


def _lead(watch: Sequence[Mapping[str, Any]]) -> Markup:
    known = [row["reward"] for row in watch if finite(row.get("reward"))]
    if len(known) < 2:
        return Markup()
    return headline(
        f"{round(known[-1] - known[0], 2) + 0.0:+.2f}",
        f"points of the reward that trained it, from {known[0]:.2f} to {known[-1]:.2f} on held-out prompts. Whether people "
        "would agree is for a comparison to say.",
    )


def watched(
    watch: Sequence[Mapping[str, Any]], *, only: Collection[str] = tuple(_WATCHED), slug: str = "watch"
) -> Iterator[tuple[str, Markup, str]]:
    """A plot of each figure of the watch. only: some of them. slug: prefix of the plots' names."""
    for key, (title, axis, note) in ((key, _WATCHED[key]) for key in _WATCHED if key in only):
        x, y = series(watch, key)
        if x:
            lines = [plots.Line(title.lower(), x, y)]
            yield (
                title,
                plots.curves(f"{slug}-{key.replace('_', '-')}", lines, x_label="step", y_label=axis, reference=y[0]),
                f"{note} {_basis(watch)}",
            )


def stepped(
    steps: Sequence[Mapping[str, Any]], *, only: Collection[str] = tuple(_STEPS), slug: str = "step"
) -> Iterator[tuple[str, Markup, str]]:
    """A plot of each figure of the training's own steps."""
    for key, (title, axis) in ((key, _STEPS[key]) for key in _STEPS if key in only):
        x, y = series(steps, key)
        window = max(1, len(y) // 15)
        if x and window > 1 and key != "learning_rate":
            lines = [plots.Line("each step", x, y, faint=True), plots.Line("mean", x, plots.smoothed(y, window))]
        else:
            lines = [plots.Line(title.lower(), x, y)]
        if x:
            drawn = plots.curves(f"{slug}-{key.replace('_', '-')}", lines, x_label="step", y_label=axis)
            yield title, drawn, basis(len(y), "logged steps", without="means over one run")


def _basis(watch: Sequence[Mapping[str, Any]]) -> str:
    """Each point is a mean over the replies of its measurement, which are of the same prompts and the same chance."""
    return basis(
        int(watch[-1].get("replies", 0)), "replies a point", without="single replies are not kept with the curve"
    )


def _table(watch: Sequence[Mapping[str, Any]]) -> Markup:
    """First and last measurement of each figure."""
    rows = []
    for key, (title, axis, _) in _WATCHED.items():
        _, y = series(watch, key)
        if y:
            n = f"{watch[-1].get('replies', 0):,.0f}"
            rows.append((title, axis, f"{y[0]:.3f}", f"{y[-1]:.3f}", n))
    head = ("figure", "unit", "step 0", f"step {watch[-1]['step']:,}", "replies")
    remark = (
        "Method: means over the replies, without intervals; rlhf compare and rlhf evaluate give figures with intervals."
    )
    return table(head, rows, numeric=(2, 3, 4), wide=True) + small(remark)
