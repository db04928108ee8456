"""Fairness on the report's page: groups as dots and a table each, the widest differences and ratios, and what a swap moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from rlhf.evaluation.charts import estimate_of
from rlhf.evaluation.wording import number, value_of
from rlhf.pages import Section, plot_grid, plots, table
from rlhf.pages.page import p_value

_AXIS = "accuracy, % (dashed: a coin)"
_RULE = (
    "The four-fifths rule (a rate of one group under 80 % of another's) is a prompt to look, not a verdict: it knows neither how "
    "many pairs there are nor why the groups differ."
)
_NO_GROUPS = (
    "Nothing can be said: no cohorts of labelers, no tags and no two strata are recorded for these pairs. Tags come with a suite's "
    "rows (rlhf suite import), cohorts with the labelers (rlhf label cohorts)."
)
_HEAD = ("group", "pairs", "accuracy, %", "against all others, points", "p, Holm")
_MORE = (
    ("log_loss", "log-loss", "3"),
    ("brier", "Brier score", "3"),
    ("margin", "score difference, nats", "+2"),
    ("overconfidence", "overconfidence, points", "+%"),
    ("prefers_longer", "picks longer, %", "%"),
)


def fairness(f: Mapping[str, Any], of: str, slug: str) -> Iterator[Section]:
    """of, slug: what titles end in and plots' names begin with."""
    shown = {name: one for name, one in f["attributes"].items() if one["groups"]}
    if f["attributes"]:
        content = plot_grid(_dots(name, one, f"{slug}-fair{i}") for i, (name, one) in enumerate(shown.items()))
        content += Markup("").join(_by_group(name, one) for name, one in shown.items()) + _apart(f)
        yield Section(f"Fairness: by group{of}", content, " ".join(_said(f)))
    else:
        yield Section(f"Fairness: by group{of}", Markup(""), _NO_GROUPS)
    if f["counterfactual"]:
        content = Markup("").join(_swap(name, one) for name, one in f["counterfactual"].items())
        yield Section(f"Fairness: the same text but for the swap{of}", content, " ".join(_swaps_said(f)))


def _said(f: Mapping[str, Any]) -> Iterator[str]:
    worst = f["measures"]["worst_gap"]
    if worst["value"] is None:
        yield f"No gap between groups can be told: {worst['method']}."
    else:
        yield (
            f"Widest gap in accuracy: {value_of(worst, '%')} points, {f['worst_gap_of']}. It is the largest of all, so chance "
            "alone makes one; the interval allows for the search."
        )
    yield (
        f"p-values are corrected over the {f['comparisons']:,} comparisons of this report (Holm); above 0.05 nothing is shown to "
        "differ, which is not to say that nothing does."
    )
    hidden = sum(one["hidden"]["groups"] for one in f["attributes"].values())
    if hidden:
        limits = next(iter(f["attributes"].values()))["hidden"]
        yield (
            f"Hidden: {hidden:,} groups of fewer than {limits['below_pairs']} pairs, {limits['below_openings']} opening turns, or "
            f"as cohorts {limits['below_people']} people."
        )


def _dots(name: str, one: Mapping[str, Any], slug: str) -> tuple[str, Markup, str]:
    estimates = [estimate_of(group, m["accuracy"]) for group, m in one["groups"].items()]
    note = "95 % intervals, each by itself: the table holds the comparisons."
    return f"By {name}", plots.dots(slug, estimates, reference=0.5, label=_AXIS), note


def _by_group(name: str, one: Mapping[str, Any]) -> Markup:
    """Two tables: all figures beside each other are wider than the page."""
    rows, more = [], []
    for group, m in one["groups"].items():
        others = m.get("against_others")
        people = f", {m['people']:,} people" if m["people"] else ""
        against = value_of(others, "+%") if others else "–"
        rows.append((f"{group}{people}", f"{m['n']:,}", value_of(m["accuracy"], "%"), against, _p(others)))
        more.append((group, *(value_of(m[figure], form) for figure, _, form in _MORE)))
    title = Markup("<h3>By {}</h3>\n").format(name)
    head = ("group", *(label for _, label, _ in _MORE))
    first = table(_HEAD, rows, numeric=range(1, len(_HEAD)), wide=True)
    return title + first + table(head, more, numeric=range(1, len(head)), wide=True)


def _apart(f: Mapping[str, Any]) -> Markup:
    """Largest difference and smallest ratio of every attribute."""
    rows, more = [], []
    for name, one in f["attributes"].items():
        if not one["differences"]:
            continue
        accuracy, ratio = one["differences"]["accuracy"], one["ratios"].get("accuracy")
        look = "look: under four fifths" if one["below_four_fifths"] else "four fifths or more"
        widest = " and ".join(accuracy["of"])
        rows.append((name, widest, value_of(accuracy, "%"), value_of(ratio, "2") if ratio else "–", look))
        more.append(
            (name, *(value_of(one["differences"][figure], form.removeprefix("+")) for figure, _, form in _MORE))
        )
    if not rows:
        return Markup("")
    head = ("attribute", "furthest apart", "accuracy, points", "smallest ratio", "rule of thumb")
    others = ("attribute", *(label for _, label, _ in _MORE))
    note = Markup('<p class="small">{}</p>\n').format(_RULE)
    first = table(head, rows, numeric=(2, 3), wide=True) + note
    return Markup("<h3>How far apart</h3>\n") + first + table(others, more, numeric=range(1, len(others)), wide=True)


def _swaps_said(f: Mapping[str, Any]) -> Iterator[str]:
    gap = f["measures"]["reward_gap"]
    if gap["value"] is None:
        yield f"No gap in score can be told: {gap['method']}."
    else:
        yield (
            f"Largest gap in score: {value_of(gap, '3')} nats, {f['reward_gap_of']}, over {gap['n']:,} rows a group; the interval "
            "allows for the search, and asks of other templates like these."
        )
    yield (
        "The score is the mean of a row's two replies: what a policy trained on this would be paid for whom. Where the slot is in "
        "the prompt, scores of different prompts are compared; the score difference (chosen minus rejected) doesn't depend on that."
    )


def _swap(name: str, one: Mapping[str, Any]) -> Markup:
    title = Markup("<h3>{}: {} templates, {} rows a group</h3>\n").format(name, one["templates"], one["n"])
    if not one["comparisons"]:
        return title + Markup("<p>Too few to tell anything.</p>\n")
    rows = [
        (
            f"{c['a']} − {c['b']}",
            value_of(c["score"], "+3"),
            _p(c),
            value_of(c["margin"], "+3"),
            value_of(c["flipped"], "%"),
        )
        for c in one["comparisons"]
    ]
    head = ("swap", "score, nats", "p, Holm", "score difference, nats", "preference flips, %")
    left_out = (
        f" {one['unscored']:,} rows that were not scored for every group are left out." if one["unscored"] else ""
    )
    note = Markup('<p class="small">For size: half of the score differences of these rows are beyond {} nats.{}</p>\n')
    return (
        title
        + table(head, rows, numeric=(1, 2, 3, 4), wide=True)
        + note.format(number(one["typical_margin"], "3"), left_out)
    )


def _p(test: Mapping[str, Any] | None) -> str:
    return p_value(None if test is None else test["p_holm"])
