"""A calibration's page: how far a reward's probabilities could be believed before it and after it, and when to act on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from rlhf.pages import plots
from rlhf.pages.page import Section, basis, bullets, headline, p_value, page, plot_grid, small, table
from rlhf.pages.run_report import FILE, facts_of, write_page

# figure -> what a reader calls it, and what it means
_ROWS = (
    ("log_loss", "Log-loss", "nats; a coin has 0.693 on undivided votes, lower is better"),
    ("brier", "Brier score", "a coin has 0.250 on undivided votes, lower is better"),
    ("ece", "Calibration error (ECE)", "mean gap between predicted and observed share"),
    (
        "ece_if_perfect",
        "ECE if perfect",
        "what chance alone gives a perfectly calibrated scorer at this n, up to (95 %)",
    ),
    ("calibration_p", "Calibration test, p", "below 0.05: these votes speak against the probabilities"),
    ("spiegelhalter_z", "Too sure, z", "above 1.96 too sure, below −1.96 not sure enough"),
    ("accuracy", "Accuracy", "share of decided pairs; dividing scores changes no order"),
)
_INTERVALS = (
    "In brackets: 95 % intervals; method: bootstrap over opening turns, of the ECE moved down by the bias that resampling adds. "
    "Tests, accuracy and what chance alone gives have none."
)
_SIMULATED = "labelers: these judgements come from a program, not from people."


def write_calibration_report(folder: Path, report: Mapping[str, Any]) -> Path:
    """Write `report.html` into the run's folder and return its path. report: what stands in report.json beside it."""
    return write_page(folder / FILE, render_calibration(report))


def render_calibration(report: Mapping[str, Any]) -> str:
    """The page itself; see `write_calibration_report`."""
    aside, test = report["set_aside"], report["test"]
    sections = [
        Section(
            "On the pairs that were set aside",
            _table(report) + plot_grid(_reliability(report, "aside")),
            f"{report['after']['n']:,} pairs of {report['after']['n_groups']:,} opening turns that the version was not trained on. "
            "After: each pair under the temperature of the other folds, so that none had a say in its own.",
        )
    ]
    if test["n"]:
        sections.append(
            Section(
                "On the test side",
                _table(test) + plot_grid(_reliability(test, "test")),
                f"{test['n']:,} held-out pairs, measured and never fitted on."
                + (f" Left out: {aside['test_seen']:,} that may have been trained on." if aside["test_seen"] else ""),
            )
        )
    else:
        sections.append(Section("On the test side", Markup("<p>Not measured: {}.</p>\n").format(test["why"])))
    sections += [
        Section("When to act on it", _limit(report["threshold"])),
        Section(
            "What this rests on",
            bullets(f"{name.replace('_', ' ')}: {said}" for name, said in report["method"].items()),
        ),
        Section("Identity", facts_of(_identity(report))),
    ]
    warning = _SIMULATED if report["simulated"] else ""
    title = f"{report['version']}: {report['parent']} calibrated"
    return page(title, sections, kicker="Calibration report", lead=_lead(report), simulated=warning)


def _lead(report: Mapping[str, Any]) -> Markup:
    t, after = report["temperature"], report["after"]
    word = "were too sure" if t > 1 else "were not sure enough"
    p = after["calibration_p"]
    verdict = (
        "no test could be made"
        if p is None
        else "these pairs don't speak against it"
        if p >= 0.05
        else "these pairs still speak against it"
    )
    return headline(
        f"{t:.3g}",
        f"is what the scores of {report['parent']} are divided by: they {word}. Afterwards P = sigmoid(score a − score b) is meant "
        f"to be the chance that a labeler prefers a; {verdict} (p: {p_value(p)}).",
    )


def _table(part: Mapping[str, Any]) -> Markup:
    before, after, gain = part["before"], part["after"], part["gain"]
    rows = []
    for key, label, meaning in _ROWS:
        said = Markup('{}<br><span class="unit">{}</span>').format(label, meaning)
        change = _with_range(gain, key, "+") if key in gain else ""
        rows.append((said, _cell(before, key), _cell(after, key), change, f"{after['n']:,}"))
    head = ("figure", "before", "after", "change, paired", "pairs")
    return table(head, rows, numeric=(1, 2, 3, 4), wide=True) + small(_INTERVALS)


def _cell(figures: Mapping[str, Any], key: str) -> str:
    if key == "ece_if_perfect":
        return f"{_number(figures[key]['mean'])}, up to {_number(figures[key]['p95'])}"
    return _with_range(figures, key)


def _with_range(figures: Mapping[str, Any], key: str, sign: str = "") -> str:
    low, high = figures.get(f"{key}_low"), figures.get(f"{key}_high")
    value = p_value(figures[key]) if key.endswith("_p") else _number(figures[key], sign)
    return value if low is None else f"{value} ({_number(low, sign)} to {_number(high, sign)})"


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.3f}".replace("-", "−")


def _reliability(part: Mapping[str, Any], slug: str) -> Iterator[tuple[str, Markup, str]]:
    for when in ("before", "after"):
        bins = [
            plots.Bin(b["predicted"], b["observed"], b["n"], b["band_low"], b["band_high"])
            for b in part[when]["reliability"]
        ]
        (left, right), _ = plots.reliability_axes(bins)
        zoomed = "" if right - left == 1 else f"The axes show predictions of {left:.2f} to {right:.2f} only. "
        note = f"{zoomed}Dashed: perfect. Bars behind the dots: where 95 of 100 perfectly calibrated scores would lie. "
        note += basis(
            sum(b.n for b in bins), "pairs, one vote drawn of each", method="bootstrap over opening turns, in the table"
        )
        yield when.capitalize(), plots.reliability(f"{slug}-{when}", bins), note


def _limit(limit: Mapping[str, Any]) -> Markup:
    target, sure = f"{limit['target']:.0%}", f"{limit['confidence']:.0%}"
    if not limit["exists"]:
        said = (
            f"No threshold is guaranteed: at no coverage do {limit['n']:,} pairs (one of each opening turn) show with {sure} "
            f"confidence that the choice is what a labeler chooses in {target} of cases. More set-aside pairs, a better reward or "
            "a lower target may give one."
        )
        return Markup('<p>{}</p>\n<p class="small">{}.</p>\n').format(said, limit["method"])
    said = (
        f"Where P is {limit['p']:.3f} or more for one of the replies (score difference {limit['score_difference']:.3f}), "
        f"the choice is what a labeler chooses in {target} of cases or more, with {sure} confidence. "
        f"That covers {limit['coverage']:.0%} of pairs; of {limit['n']:,} drawn, {limit['precision']:.1%} were right there."
    )
    found = Markup("<p>{}</p>\n").format(said)
    if test := limit.get("test"):
        right = "–" if test["precision"] is None else f"{test['precision']:.1%}"
        found += Markup("<p>{}</p>\n").format(
            f"On the test side it covers {test['coverage']:.0%} of {test['n']:,} pairs and is right in {right} "
            f"({test['precision_low']:.1%} to {test['precision_high']:.1%}) of these {test['n_above']:,}."
        )
    return found + Markup('<p class="small">{}.</p>\n').format(limit["method"])


def _identity(report: Mapping[str, Any]) -> dict[str, Any]:
    aside = report["set_aside"]
    return {
        "version": report["version"],
        "digest": report["digest"],
        "calibrates": report["parent"],
        "snapshot": report["snapshot"],
        "share set aside": aside["share"],
        "pairs set aside": aside["pairs"],
        "left out, as an ancestor saw them": aside["seen_by_ancestors"],
        "temperatures of the folds": ", ".join(f"{t:.3g}" for t in report["fold_temperatures"]),
        "run": report["run"],
        "seed": str(report["seed"]),
    }
