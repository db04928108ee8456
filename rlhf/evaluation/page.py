"""The report as a page that an evaluator reads, prints and signs: `render(content, scored)`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from rlhf.evaluation.charts import charts, estimate_of, methods_of
from rlhf.evaluation.examples import examples
from rlhf.evaluation.fairness_page import fairness
from rlhf.evaluation.judged_by import as_each_did, as_they_did, judged_by
from rlhf.evaluation.scored import ScoredPair
from rlhf.evaluation.tables import tables
from rlhf.evaluation.wording import (
    against_length,
    assumptions,
    better_or_not,
    lettered,
    n_of,
    number,
    percent,
    range_of,
    value_of,
)
from rlhf.pages import Section, facts, page, plot_grid, plots, table
from rlhf.pages.page import bullets, digest, folded, headline, headline_text, small

_SIMULATED = (
    "labelers: these judgements come from a program, not from people. The figures show that the method works; "
    "they say nothing about human preferences."
)
_TRAINED_ON_SIMULATED = "training: a version here was trained on judgements that come from a program, not from people."
# figure -> what a reader calls it, how it is written, what it means; {side}: of the length guess, {as_they_did}: see `judged_by`
ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("accuracy", "Accuracy", "%", "percent of the decided pairs ranked {as_they_did}"),
    ("longer_wins", "Longer reply wins", "%", "percent that guessing the longer reply reaches on the same pairs"),
    ("length_guess", "Length guess: {side} wins", "%", "percent, the better of longer wins and shorter wins"),
    ("accuracy_minus_length_guess", "Accuracy above the length guess", "+%", "points, paired on the same pairs"),
    ("accuracy_chosen_longer", "Accuracy, chosen is longer", "%", "percent; high where long replies are preferred"),
    ("accuracy_chosen_shorter", "Accuracy, chosen is shorter", "%", "percent; high where short replies are preferred"),
    ("log_loss", "Log-loss", "3", "nats; a coin has 0.693, lower is better"),
    ("soft_log_loss", "Log-loss against the votes", "3", "nats, against each pair's share of votes, ties included"),
    ("brier", "Brier score", "3", "a coin has 0.250, lower is better"),
    ("ece", "Calibration error (ECE)", "3", "mean gap between predicted and observed share"),
    ("length_correlation", "Length correlation", "+3", "rank correlation of score and length differences within pairs"),
    ("worst_stratum", "Accuracy, worst stratum", "%", "percent; of the stratum with the lowest"),
    (
        "aurc",
        "Area under the risk-coverage curve",
        "3",
        "mean error over all coverages, surest pairs first; lower is better",
    ),
    ("chosen_is_a", "Preferred reply is a", "%", "percent; about 50, since sides are given by digests"),
    ("accuracy_chosen_a", "Accuracy, preferred is a", "%", "percent; a side should mean nothing"),
    ("accuracy_chosen_b", "Accuracy, preferred is b", "%", "percent"),
    (
        "length_correlation_linear",
        "Length correlation, linear",
        "+3",
        "the same on the differences themselves (Pearson)",
    ),
)


def render(
    content: Mapping[str, Any], scored: Mapping[str, Sequence[ScoredPair]], training: Sequence[Section] = ()
) -> str:
    """The whole HTML page. content: what report.json holds. scored: version name -> its scored pairs, for plots and examples.
    training: how they were trained."""
    versions, labelers = content["versions"], content["labelers"]
    lead = headline_text(better_or_not(d, labelers) for d in content["differences"])
    lead += Markup("").join(_headline(name, versions[name], content) for name in versions)
    sections = list(_comparison(content)) if len(versions) > 1 else []
    for place, name in enumerate(versions):
        f, slug = versions[name]["figures"], f"v{place}"
        sections += _of_version(name, f, scored[name], slug, labelers, several=len(versions) > 1)
    sections += [
        *training,
        Section("What this rests on", bullets(assumptions(content))),
        Section("Identity", _identity(content)),
        signature(content),
    ]
    warning = (
        _SIMULATED if "simulated" in content["labelers"] else _TRAINED_ON_SIMULATED if content["simulated"] else ""
    )
    return page(content["title"], sections, kicker="Evaluation report", lead=lead, simulated=warning)


def _headline(name: str, version: Mapping[str, Any], content: Mapping[str, Any]) -> Markup:
    f = version["figures"]
    held_out = content["snapshot"]["split"] == "test" and not version["seen_openings"]
    which = "held-out pairs" if held_out else "pairs, which it may have been trained on"
    if f["accuracy"] is None:
        return headline("–", f"{name} can't be given an accuracy: all {f['n']:,} pairs are ties.")
    if f["accuracy_low"] is None:
        interval = "no interval can be formed, as all pairs share one opening turn"
    else:
        interval = f"95 % interval {percent(f['accuracy_low'])} to {percent(f['accuracy_high'])}"
    words = (
        f"{name} ranks the two replies as {as_each_did(content['labelers'])} in {percent(f['accuracy'])} % of "
        f"{f['n_decided']:,} {which} ({interval})."
    )
    return headline(f"{percent(f['accuracy'])} %", words, small=against_length(f))


def _comparison(content: Mapping[str, Any]) -> Iterator[Section]:
    versions = content["versions"]
    estimates = [
        estimate_of(name, v["figures"]["measures"]["accuracy"])
        for name, v in versions.items()
        if v["figures"]["accuracy"] is not None
    ]
    first = next(iter(versions.values()))["figures"]
    if not estimates:
        return
    guess = f"guess: {first['length_guess_side']} wins"
    estimates.append(estimate_of(guess, first["measures"]["length_guess"], quiet=True))
    grid = plot_grid(
        [
            (
                "Accuracy of each",
                plots.dots("compare", estimates, reference=0.5, label="accuracy, % (dashed: a coin)"),
                "Overlapping intervals don't mean that two versions are alike: the table holds the paired differences. "
                + methods_of([v["figures"]["measures"]["accuracy"] for v in versions.values()]),
            )
        ]
    )
    rows = [
        (
            f"{d['a']} − {d['b']}",
            value_of(d["accuracy"], "+%"),
            value_of(d["log_loss"], "+3"),
            value_of(d["same_side"], "%"),
            f"{d['accuracy']['n']:,}",
        )
        for d in content["differences"]
    ]
    head = ("difference", "accuracy, points", "log-loss, nats", "ranked alike, %", "pairs")
    made = small(methods_of([d[key] for d in content["differences"] for key in ("accuracy", "log_loss", "same_side")]))
    yield Section(
        "Side by side",
        grid + table(head, rows, numeric=(1, 2, 3, 4), wide=True) + made + _beside(versions),
        "Paired differences on the same pairs, with 95 % intervals. An interval that holds 0 doesn't show one.",
    )


def _beside(versions: Mapping[str, Any]) -> Markup:
    """Each figure of every version in one row."""
    measures = [v["figures"]["measures"] for v in versions.values()]
    side = next(iter(versions.values()))["figures"]["length_guess_side"]  # of the pairs, which all versions share
    rows = [
        (label.format(side=side), *(value_of(m[key], form) for m in measures), n_of(m[key] for m in measures))
        for key, label, form, _ in ROWS
        if all(key in m for m in measures)
    ]
    head = ("figure", *versions, "pairs")
    return table(head, rows, numeric=range(1, len(head)), wide=True) + small(
        "95 % intervals in brackets; each version's own table says by which method."
    )


def _of_version(
    name: str,
    f: Mapping[str, Any],
    scored: Sequence[ScoredPair],
    slug: str,
    labelers: Sequence[str],
    *,
    several: bool,
) -> list[Section]:
    of = f" of {name}" if several else ""
    return [
        Section(f"Figures{of}", _figures(f, labelers), _counts(f)),
        *tables(f, of),
        *(fairness(f["fairness"], of, slug) if "fairness" in f else ()),
        Section(f"Plots{of}", plot_grid(charts(f, scored, slug, labelers))),
        Section(
            f"Examples{of}",
            folded(
                "Show examples (they quote labeled texts, which may be offensive or harmful)",
                examples(scored, labelers),
            ),
            "The pairs that the version is surest of, on either side. They are extremes, not a sample.",
        ),
    ]


def _counts(f: Mapping[str, Any]) -> str:
    parts = [
        f"{f['n']:,} pairs with a verdict: {f['n_decided']:,} decided, {f['n_ties']:,} ties (left out of accuracy)"
    ]
    if f["n_too_long"]:
        parts.append(f"{f['n_too_long']:,} too long to be scored (each counts as a coin)")
    if f["n_truncated"]:
        parts.append(f"{f['n_truncated']:,} scored with their oldest turns left out")
    cohorts = f["by_cohort"]
    if cohorts["hidden"]["cohorts"] and not cohorts["shown"]:
        below = f"fewer than {cohorts['hidden']['below_people']} people or {cohorts['hidden']['below_pairs']} pairs"
        parts.append(f"agreement by cohort is hidden: {cohorts['hidden']['cohorts']:,} of {below}")
    return (
        "; ".join(parts)
        + f". They come from {f['n_groups']:,} different opening turns"
        + (" or templates" if f.get("fairness", {}).get("counterfactual") else "")
        + ", which are what is resampled."
    )


def _figures(f: Mapping[str, Any], labelers: Sequence[str]) -> Markup:
    rows: list[tuple[str | Markup, ...]] = []
    marks = lettered(m["method"] for key, *_ in ROWS if (m := f["measures"].get(key)))
    for key, label, form, meaning in ROWS:
        if measure := f["measures"].get(key):
            label = label.format(side=f["length_guess_side"])
            said = Markup('{}<br><span class="unit">{}</span>').format(
                label, meaning.format(as_they_did=as_they_did(labelers))
            )
            rows.append(
                (
                    said,
                    number(measure["value"], form),
                    range_of(measure, form),
                    f"{measure['n']:,}",
                    marks[measure["method"]],
                )
            )
    notes = Markup("<br>").join(f"{mark}: {_explained(method)}" for method, mark in marks.items())
    head = ("figure", "value", "95 % interval", "pairs", "method")
    return table(head, rows, numeric=(1, 2, 3), wide=True) + small(notes)


def _explained(method: str) -> str:
    """A method's words with what a reader can't be expected to know."""
    if not method.endswith("bias-shifted"):
        return method
    return f"{method}: resampling alone raises the ECE, so the interval is moved down by as much"


def _identity(content: Mapping[str, Any]) -> Markup:
    snapshot = content["snapshot"]
    rows: list[tuple[str, str | Markup]] = [("Report", digest(content["digest"]))]
    for name, v in content["versions"].items():
        rows += [
            ("Version", Markup("<strong>{}</strong> {}").format(name, digest(v["digest"]))),
            ("Kind, base", Markup("{} on {} {}").format(v["kind"], v["base"], digest(v["base_digest"]))),
        ]
    rows += [
        (
            snapshot["kind"].title(),
            Markup("<strong>{}</strong> {}").format(snapshot["name"], digest(snapshot["digest"])),
        ),
        ("Split", f"{snapshot['split']}, {snapshot['pairs']:,} judged pairs"),
        ("Judged by", judged_by(content["labelers"])),
        ("Seed", str(content["seed"])),
    ]
    return facts(rows)


def signature(content: Mapping[str, Any]) -> Section:
    lines = Markup("").join(
        Markup("<p><code>rlhf adapter sign {} --report {} --as ROLE</code></p>").format(name, content["digest"][:12])
        for name in content["versions"]
    )
    fields = Markup("").join(Markup("<p>{}</p>").format(what) for what in ("Name and role", "Decision", "Date"))
    return Section(
        "Sign-off",
        lines + Markup('<div class="sign">{}</div>').format(fields),
        "A sign-off names the digests of a version and of this report.",
    )
