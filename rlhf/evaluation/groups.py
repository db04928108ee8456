"""Groups of scored pairs, by cohort of labelers, by tag, by two attributes crossed: who is shown, and what is measured of each.

A cohort's group has its own votes for a verdict. A cell below MIN_SHOWN pairs, MIN_OPENINGS opening turns or, of cohorts,
MIN_PEOPLE known people is hidden, and is nobody's "others".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from rlhf.evaluation.estimates import MIN_SHOWN, Floats
from rlhf.evaluation.scored import ScoredPair
from rlhf.labeling.cohorts import MIN_PEOPLE
from rlhf.measures import ranking
from rlhf.measures.between_groups import Sums, sums_of

COHORT, STRATUM = "cohort", "stratum"
MIN_OPENINGS = 5
SHARES = ("accuracy", "prefers_longer")
FIGURES = ("accuracy", "log_loss", "brier", "margin", "overconfidence", "prefers_longer")


@dataclass(frozen=True, slots=True)
class Unit:
    """A decided pair as one verdict sees it: all labelers', or a cohort's. margin, longer: of the reply that the verdict prefers
    minus the other's, in nats and characters; an unscored pair's margin is 0. people: of the cohort, those that are known."""

    pair: ScoredPair
    margin: float
    longer: int
    people: tuple[str, ...] = ()


Cells = Mapping[str, Sequence[Unit]]


def attributes(pairs: Sequence[ScoredPair]) -> dict[str, Cells]:
    """Attribute → group → its units, hidden ones too; cohorts first, two attributes crossed last."""
    decided = [Unit(p, p.margin or 0.0, p.length_difference) for p in pairs if not p.is_tie]
    found: dict[str, dict[str, list[Unit]]] = defaultdict(lambda: defaultdict(list))
    for pair in pairs:
        for vote in pair.cohorts:
            if vote.target != 0.5:
                way = 1 if vote.target > 0.5 else -1
                unit = Unit(pair, way * (pair.margin or 0.0), way * pair.length_difference, vote.people)
                found[COHORT][vote.cohort].append(unit)
    has_tags = any(p.tags for p in pairs)
    for unit in decided:
        named = unit.pair.tags if has_tags else [(STRATUM, name) for name in _strata(unit.pair)]
        for attribute, value in named:
            found[attribute][value].append(unit)
    if len(found.get(STRATUM, ())) == 1:
        del found[STRATUM]  # all pairs, which is no group
    ordered = sorted(found, key=lambda name: (name != COHORT, name))  # a cohort's votes count where it is crossed
    cells: dict[str, Cells] = {name: dict(sorted(found[name].items())) for name in ordered}
    return cells | _crossed(cells)


def _strata(pair: ScoredPair) -> Iterator[str]:
    """Without a style matrix's levels, which are of replies and not of prompts."""
    return (name for name in pair.strata if not pair.styles or name not in ("easy", "normal", "hard"))


def shown(cells: Cells) -> dict[str, Sequence[Unit]]:
    """The groups that are large enough to be told of."""
    return {name: units for name, units in cells.items() if _is_shown(units)}


def _is_shown(units: Sequence[Unit]) -> bool:
    people = {one for unit in units for one in unit.people}
    openings = {unit.pair.group for unit in units}
    is_named = not people or len(people) >= MIN_PEOPLE
    return len(units) >= MIN_SHOWN and len(openings) >= MIN_OPENINGS and is_named


def _crossed(cells: Mapping[str, Cells]) -> dict[str, Cells]:
    """Every two attributes whose shown groups cross in shown cells alone. What a cohort says is crossed with the pairs' tags."""
    found: dict[str, Cells] = {}
    for one, other in combinations(cells, 2):
        sides = [shown(cells[name]) for name in (one, other)]
        if min(map(len, sides)) < 2:
            continue
        theirs = {name: {unit.pair.pair_id for unit in units} for name, units in sides[1].items()}
        crossed = {
            f"{a} × {b}": [unit for unit in sides[0][a] if unit.pair.pair_id in theirs[b]] for a, b in product(*sides)
        }
        if all(map(_is_shown, crossed.values())):
            found[f"{one} × {other}"] = crossed
    return found


def values_of(figure: str, margins_N: Floats, longer_N: Floats) -> Floats:
    """(N,) whose mean is the figure. overconfidence: how much surer the version is than it is right."""
    if figure == "accuracy":
        return ranking.hits(margins_N)
    if figure == "log_loss":
        return ranking.log_losses(margins_N)
    if figure == "brier":
        return ranking.squared_errors(margins_N)
    if figure == "overconfidence":
        return ranking.sigmoid(np.abs(margins_N)) - ranking.hits(margins_N)
    if figure == "prefers_longer":
        return ranking.hits(margins_N * np.sign(longer_N))
    return margins_N


@dataclass(frozen=True, slots=True)
class Layout:
    """The shown groups' units, each once. members_NG: columns are the groups, then each group's others where there are any."""

    margins_N: Floats
    longer_N: Floats
    members_NG: NDArray[np.bool_]
    clusters_N: NDArray[np.intp]
    n_clusters: int

    @classmethod
    def of(cls, groups: Cells, openings: Mapping[str, int]) -> Layout:
        """openings: opening turn's digest → number, from 0 without gaps."""
        units = list({id(unit): unit for own in groups.values() for unit in own}.values())
        owned = [{id(unit) for unit in own} for own in groups.values()]
        members = np.array([[id(unit) in own for own in owned] for unit in units], dtype=bool)
        if len(groups) > 1 and not members.all(axis=0).any():
            members = np.hstack([members, ~members])
        clusters = np.array([openings[unit.pair.group] for unit in units])
        return cls(*columns(units), members, clusters, len(openings))

    @property
    def n_columns(self) -> int:
        return int(self.members_NG.shape[1])

    def sums(self, figure: str) -> Sums:
        values = values_of(figure, self.margins_N, self.longer_N)
        return sums_of(values, self.members_NG, self.clusters_N, self.n_clusters, share=figure in SHARES)


def columns(units: Sequence[Unit]) -> tuple[Floats, Floats]:
    """margins_N and longer_N."""
    return np.array([u.margin for u in units]), np.array([float(u.longer) for u in units])
