"""The plots of one version: title, drawing, and how to read it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from rlhf.evaluation.judged_by import as_they_did
from rlhf.evaluation.scored import ScoredPair
from rlhf.evaluation.wording import number, value_of
from rlhf.pages import plots
from rlhf.pages.page import basis, p_value

_POINTS = 800  # more make the page heavy and the cloud no clearer
_AXIS = "accuracy, % (dashed: a coin)"
_SIDES = (
    ("accuracy", "all pairs"),
    ("accuracy_chosen_longer", "chosen is longer"),
    ("accuracy_chosen_shorter", "chosen is shorter"),
    ("length_guess", "guess: {side} wins"),
)
_GROUPS = re.compile(r"over \d+ groups")
_DIVIDED = (
    " Some votes were divided: the observed share counts majorities, so a version that was trained on shares of votes is less sure "
    "than majorities are, which is no fault of its own."
)
Chart = tuple[str, Markup, str]


def charts(f: Mapping[str, Any], scored: Sequence[ScoredPair], slug: str, labelers: Sequence[str]) -> Iterator[Chart]:
    """Every plot that the figures allow. slug: prefix of the plots' names, unique on the page. labelers: see `judged_by`."""
    if f["reliability"]:
        yield _reliability(f, scored, slug)
    if f["margins"]:
        yield _margins(f["margins"], slug, labelers)
    sides = [
        estimate_of(label.format(side=f["length_guess_side"]), f["measures"][key], quiet=key == "length_guess")
        for key, label in _SIDES
        if f["measures"][key]["value"] is not None
    ]
    if sides:
        note = (
            "A score that likes long replies and nothing else is right wherever the chosen reply is the longer, and "
            "wrong wherever it is the shorter; one that likes short replies, the other way round. The guess is the "
            f"better of the two on these pairs. {methods_of(f['measures'][key] for key, _ in _SIDES)}"
        )
        yield "Is it length?", plots.dots(f"{slug}-length", sides, reference=0.5, label=_AXIS), note
    if f["margins"]:
        yield _lengths(f["measures"]["length_correlation"], scored, slug)
    if len(f["risk_coverage"]) > 1:
        yield _risk_coverage(f, slug)
    for key, title in (
        ("by_subset", "By stratum"),
        ("by_source", "By source"),
        ("by_stratum", "By how the votes agreed"),
    ):
        yield from _parts(f[key], title, f"{slug}-{key.replace('_', '-')}")
    yield from _cohorts(f["by_cohort"], f"{slug}-by-cohort")


def estimate_of(label: str, measure: Mapping[str, Any], *, quiet: bool = False) -> plots.Estimate:
    return plots.Estimate(label, measure["value"], measure["low"], measure["high"], measure["n"], quiet)


def methods_of(measures: Iterable[Mapping[str, Any]]) -> str:
    """How the intervals of several rows were made; each row has its own n and its own groups."""
    known = (m["method"] for m in measures if m["n"])
    return f"95 % intervals: {'; '.join(dict.fromkeys(_GROUPS.sub('over its groups', method) for method in known))}."


def _reliability(f: Mapping[str, Any], scored: Sequence[ScoredPair], slug: str) -> Chart:
    bins = [plots.Bin(b["predicted"], b["observed"], b["n"], b["band_low"], b["band_high"]) for b in f["reliability"]]
    perfect, ece = f["ece_if_perfect"], f["measures"]["ece"]
    made = ece["method"].replace("bias-shifted", "moved down as the table says")
    verdict = "no sign of miscalibration" if f["ece"] <= perfect["p95"] else "more than chance explains"
    p = p_value(f["calibration_p"])
    equals = "" if p.startswith("below") else "= "
    said = "" if f["calibration_p"] is None else f" Calibration test (Kolmogorov-Smirnov): p {equals}{p}."
    said += _DIVIDED if any(0.5 < pair.target < 1 for pair in scored) else ""
    (left, right), _ = plots.reliability_axes(bins)
    zoomed = "" if right - left == 1 else f"The axes show predictions of {left:.2f} to {right:.2f} only. "
    note = (
        f"{zoomed}Dashed: perfect calibration. Bars behind the dots: where 95 of 100 perfectly calibrated scores would "
        f"lie. ECE {f['ece']:.3f}; chance alone gives {perfect['mean']:.3f} on average and up to {perfect['p95']:.3f}: "
        f"{verdict}.{said} {basis(ece['n'], 'scored and decided pairs', method=made)}"
    )
    return "Do its probabilities mean what they say?", plots.reliability(f"{slug}-reliability", bins), note


def _margins(m: Mapping[str, Any], slug: str, labelers: Sequence[str]) -> Chart:
    note = (
        f"Right of zero is ranked {as_they_did(labelers)}. Mean {number(m['mean'], '2')}, standard deviation "
        f"{m['sd']:.2f}; half of the pairs lie between {number(m['p25'], '2')} and {number(m['p75'], '2')}. "
        f"The outermost bars hold what lies beyond them. {basis(m['n'], 'scored and decided pairs')}"
    )
    return "How sure it is", plots.histogram(f"{slug}-margins", m["edges"], m["counts"]), note


def _risk_coverage(f: Mapping[str, Any], slug: str) -> Chart:
    points = f["risk_coverage"]
    line = plots.Line("risk", [p["coverage"] * 100 for p in points], [p["risk"] * 100 for p in points])
    drawn = plots.curves(f"{slug}-risk", [line], x_label="coverage, %, surest pairs first", y_label="wrong, %")
    aurc = f["measures"]["aurc"]
    note = (
        f"Falling to the left: it is right where it is sure. Area under it {value_of(aurc, '3')}; the error rate where sureness "
        f"tells nothing. {basis(aurc['n'], 'decided pairs', method=aurc['method'])}"
    )
    return "If it might abstain", drawn, note


def _lengths(correlation: Mapping[str, Any], scored: Sequence[ScoredPair], slug: str) -> Chart:
    every = sorted((p for p in scored if p.margin is not None), key=lambda p: p.pair_id)
    points = every[:_POINTS]  # ids are digests: the first ones are a random sample
    drawn = plots.scatter(
        f"{slug}-scatter",
        [p.length_difference for p in points],
        [p.margin or 0.0 for p in points],
        x_label="chosen − rejected, characters",
        y_label="score difference",
    )
    note = (
        f"{len(points):,} of {len(every):,} scored pairs are drawn. Rank correlation {value_of(correlation, '+3')}. "
        f"{basis(correlation['n'], 'scored pairs', method=correlation['method'])}"
    )
    return "Score against length", drawn, note


def _parts(by: Mapping[str, Any], title: str, slug: str) -> Iterator[Chart]:
    """Nothing where there is one part only."""
    shown, hidden = by["shown"], by["hidden"]
    if len(shown) + hidden["parts"] < 2 or not shown:
        return
    estimates = [estimate_of(name or "not named", measure) for name, measure in shown.items()]
    note = "Differences between parts are not tested; with many parts some differ by chance. " + methods_of(
        shown.values()
    )
    if hidden["parts"]:
        note += f" Not shown: {hidden['parts']} with fewer than {hidden['below']} pairs ({hidden['pairs']} in all)."
    yield title, plots.dots(slug, estimates, reference=0.5, label=_AXIS), note


def _cohorts(by: Mapping[str, Any], slug: str) -> Iterator[Chart]:
    """Agreement with each cohort; nothing where none is large enough to be shown."""
    if not by["shown"]:
        return
    hidden, measures = by["hidden"], by["shown"].values()
    note = (
        "How often the version prefers what most of a cohort prefer, each by its own votes, with 95 % intervals. They judged "
        "different pairs, so two dots differ for that too; differences are not tested here. " + methods_of(measures)
    )
    if hidden["cohorts"]:
        note += f" Not shown: {hidden['cohorts']} of fewer than {hidden['below_people']} people or {hidden['below_pairs']} pairs."
    estimates = [estimate_of(cohort, measure) for cohort, measure in zip(by["shown"], measures, strict=True)]
    yield (
        "By cohort of labelers",
        plots.dots(slug, estimates, reference=0.5, label="agreement, % (dashed: a coin)"),
        note,
    )
