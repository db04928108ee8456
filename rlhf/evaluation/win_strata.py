"""Win rates by a suite's strata, and all of a comparison's win rates as one forest plot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlhf.evaluation.charts import Chart, estimate_of, methods_of
from rlhf.evaluation.estimates import MIN_SHOWN, mean, rounded
from rlhf.evaluation.judges import Verdict
from rlhf.evaluation.reply_pairs import ReplyPair
from rlhf.pages import plots
from rlhf.store import Workspace
from rlhf.suites import open_suite

Figures = dict[str, Any]
_ROWS = (
    ("win_rate", "all pairs"),
    ("length_controlled_win_rate", "at equal length"),
    ("win_rate_longer", "its reply is longer"),
    ("win_rate_shorter", "its reply is shorter"),
)


def with_strata(
    workspace: Workspace,
    asked: tuple[str, str] | None,
    pairs: Sequence[ReplyPair],
    verdicts: Sequence[Verdict],
    both: tuple[Figures, Figures],
    *,
    seed: int,
) -> tuple[Figures, Figures]:
    """Both sides' figures, with `by_stratum` where the prompts are a suite's that has several strata. asked: name and digest of
    where the prompts are from, a suite's name as `suite:NAME@1`."""
    if asked is None or not asked[0].startswith("suite:"):
        return both
    strata: dict[Any, set[str]] = defaultdict(set)
    for row in open_suite(workspace, asked[0].removeprefix("suite:")).rows():
        strata[row.pair.prompt] |= set(row.strata)
    if len(set().union(*strata.values())) < 2:
        return both
    of_a = by_stratum(pairs, verdicts, [sorted(strata[pair.prompt.messages]) for pair in pairs], seed)
    return {**both[0], "by_stratum": of_a}, {**both[1], "by_stratum": _turned(of_a)}


def by_stratum(
    pairs: Sequence[ReplyPair], verdicts: Sequence[Verdict], strata: Sequence[Sequence[str]], seed: int
) -> Figures:
    """Side a's win rate in each stratum with at least MIN_SHOWN judged pairs; strata: of each pair, it may be in several."""
    parts: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for pair, verdict, names in zip(pairs, verdicts, strata, strict=True):
        if verdict.win is not None:
            for name in names:
                parts[name].append((verdict.win, pair.group))
    shown = {}
    for name, own in sorted(parts.items()):
        if len(own) >= MIN_SHOWN:
            wins, groups = zip(*own, strict=True)
            shown[name] = mean(np.array(wins, dtype=np.float64), groups, seed, share=True)
    hidden = [own for own in parts.values() if len(own) < MIN_SHOWN]
    found: Figures = rounded(
        {"shown": shown, "hidden": {"parts": len(hidden), "pairs": sum(map(len, hidden)), "below": MIN_SHOWN}}
    )
    return found


def forest(name: str, figures: Mapping[str, Any]) -> Chart | None:
    """Every win rate of one side: of all pairs, at equal length, by whose reply is longer, by stratum. None where nothing was
    judged. name: the side's, for the title."""
    measures = figures["measures"]
    rows = [estimate_of(label, measures[key]) for key, label in _ROWS if measures[key]["value"] is not None]
    if not rows:
        return None
    strata = figures.get("by_stratum") or {"shown": {}, "hidden": {"parts": 0}}
    rows += [estimate_of(stratum, measure) for stratum, measure in strata["shown"].items()]
    note = (
        "Each row: win rate in percent, 95 % interval, pairs; a larger square has more of them. Were it length alone that wins, "
        "the square at equal length would lie on the dashed line, and the two below it on either side. "
        f"{methods_of([*(measures[key] for key, _ in _ROWS), *strata['shown'].values()])}"
    )
    if strata["shown"]:
        note += " Strata are not tested against each other: of many, some differ by chance."
    if strata["hidden"]["parts"]:
        hidden = strata["hidden"]
        note += (
            f" Not shown: {hidden['parts']} strata of fewer than {hidden['below']} pairs ({hidden['pairs']} in all)."
        )
    brief = name if len(name) <= 18 else f"{name[:17]}…"  # a long name would push the rest off the axis
    label = f"pairs won by {brief}, % (dashed: a coin)"
    return f"Win rate of {name}", plots.forest("wins", rows, reference=0.5, label=label), note


def _turned(of_a: Figures) -> Figures:
    """The other side's, to the last digit."""

    def mirror(m: Mapping[str, Any]) -> Figures:
        low, high = m["low"], m["high"]
        return {
            **m,
            "value": 1 - m["value"],
            "low": None if high is None else 1 - high,
            "high": None if low is None else 1 - low,
        }

    turned: Figures = rounded({**of_a, "shown": {name: mirror(m) for name, m in of_a["shown"].items()}})
    return turned
