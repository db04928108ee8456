"""Accuracy by parts of the pairs: strata and the worst of them, the style matrix, and each cohort of labelers by its own votes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rlhf.evaluation.estimates import LEVEL, MIN_SHOWN, coined, mean, nothing
from rlhf.evaluation.scored import ScoredPair
from rlhf.labeling.cohorts import MIN_PEOPLE
from rlhf.measures import ranking
from rlhf.suites.formats import STYLES

Part = Mapping[str, Sequence[ScoredPair]]


def by(parts: Part, seed: int) -> dict[str, Any]:
    """Accuracy of each part with at least MIN_SHOWN pairs: a smaller one's interval says nothing, and invites stories."""
    shown = {name: _accuracy(part, seed) for name, part in sorted(parts.items()) if len(part) >= MIN_SHOWN}
    hidden = [part for part in parts.values() if len(part) < MIN_SHOWN]
    return {"shown": shown, "hidden": {"parts": len(hidden), "pairs": sum(map(len, hidden)), "below": MIN_SHOWN}}


def split(pairs: Iterable[ScoredPair], key: Any) -> Part:
    """The pairs under each of the names that key gives: one, or several."""
    parts: dict[str, list[ScoredPair]] = defaultdict(list)
    for pair in pairs:
        names = key(pair)
        for name in (names,) if isinstance(names, str) else names:
            parts[name].append(pair)
    return parts


def strata(decided: Sequence[ScoredPair]) -> Part:
    """By a suite's strata, or where there are none by source."""
    return split(decided, (lambda p: p.strata) if any(p.strata for p in decided) else (lambda p: p.source))


def worst(decided: Sequence[ScoredPair], seed: int) -> tuple[str | None, dict[str, Any]]:
    """Name and accuracy of the stratum of lowest accuracy among those with MIN_SHOWN pairs.

    Its interval is one of k that hold together at LEVEL (Bonferroni), since it was looked for.
    """
    parts = {name: part for name, part in strata(decided).items() if len(part) >= MIN_SHOWN}
    if not parts:
        return None, nothing()
    name = min(parts, key=lambda name: (float(np.mean(ranking.hits(coined(parts[name])))), name))
    measure = _accuracy(parts[name], seed, level=1 - (1 - LEVEL) / len(parts))
    if len(parts) > 1 and measure["low"] is not None:
        measure["method"] += f", Bonferroni over {len(parts)} strata"
    return name, measure


def style_matrix(decided: Sequence[ScoredPair], seed: int) -> dict[str, Any] | None:
    """RM-Bench's matrix: cells[i][j] is the accuracy where the chosen reply is of style i and the rejected one of style j; easy is
    the mean of the cells below the diagonal, normal of those on it, hard of those above. None where no pair has a style."""
    parts = split(decided, lambda p: p.styles)
    if not parts:
        return None
    n = len(STYLES)
    cells = [[_accuracy(parts.get(f"{i}>{j}", ()), seed) for j in range(n)] for i in range(n)]
    values = np.array([[np.nan if c["value"] is None else c["value"] for c in row] for row in cells])
    below = np.tril(np.ones((n, n), dtype=bool), -1)
    levels = {"easy": values[below], "normal": np.diag(values), "hard": values[below.T]}
    return {
        "styles": list(STYLES),
        "cells": cells,
        **{name: None if np.isnan(of).any() else float(of.mean()) for name, of in levels.items()},
    }


def by_cohort(pairs: Sequence[ScoredPair], seed: int) -> dict[str, Any]:
    """How often the version prefers what most of a cohort prefer, on the pairs that the cohort judged and decided.

    Cohorts of fewer than MIN_PEOPLE known people are hidden, unless nobody in them is known by a name.
    """
    votes: dict[str, list[tuple[ScoredPair, float]]] = defaultdict(list)
    people: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        for vote in pair.cohorts:
            if vote.target != 0.5:
                people[vote.cohort] |= set(vote.people)
                votes[vote.cohort].append((pair, vote.target))
    shown, hidden = {}, 0
    for cohort, own in sorted(votes.items()):
        if len(own) < MIN_SHOWN or 0 < len(people[cohort]) < MIN_PEOPLE:
            hidden += 1
            continue
        turned = coined([p for p, _ in own]) * np.array([1.0 if target > 0.5 else -1.0 for _, target in own])
        measure = mean(ranking.hits(turned), [p.group for p, _ in own], seed, share=True)
        shown[cohort] = {**measure, "people": len(people[cohort])}
    return {"shown": shown, "hidden": {"cohorts": hidden, "below_pairs": MIN_SHOWN, "below_people": MIN_PEOPLE}}


def _accuracy(part: Sequence[ScoredPair], seed: int, level: float = LEVEL) -> dict[str, Any]:
    return mean(ranking.hits(coined(part)), [p.group for p in part], seed, share=True, level=level)
