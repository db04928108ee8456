"""Fairness: every figure by group, how far groups lie apart, each group against all the others, and the widest gap of all.

Groups are the cohorts of labelers, each by its own votes; the tags of a suite's rows (`dialect`, `topic`), or in a suite without
tags its strata; and two attributes crossed where every cell is large enough (`groups.py`).

Largest difference and smallest ratio between groups are fairlearn's (`MetricFrame`). Its bootstrap draws rows singly, so the
intervals and p-values are `measures.between_groups`', which draws opening turns and pays for the search.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.evaluation import counterfactual, groups
from rlhf.evaluation.estimates import LEVEL, MIN_SHOWN, N_BOOT, N_BOOT_SLOW, mean, nothing, rounded
from rlhf.evaluation.groups import Cells, Layout, Unit
from rlhf.evaluation.scored import ScoredPair
from rlhf.labeling.cohorts import MIN_PEOPLE
from rlhf.measures.between_groups import Sums, compare
from rlhf.measures.holm import holm

FOUR_FIFTHS = 0.8
RATIOS = ("accuracy", "log_loss", "brier")
NONE = "fewer than two groups are large enough"


def measured(scored: Mapping[str, Sequence[ScoredPair]], seed: int = 0) -> dict[str, dict[str, Any]]:
    """Of each version: `attributes`, `worst_gap` (the largest difference of accuracy between two shown groups of one attribute, its
    interval simultaneous over all such pairs), `counterfactual` and its `reward_gap`. p-values are Holm-corrected over all that
    are here. Figures that can't be told are None."""
    found = {name: _of_version(sorted(pairs, key=lambda p: p.pair_id), seed) for name, pairs in scored.items()}
    tests = [test for one in found.values() for test in _tests(one)]
    for test, p_holm in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = float(p_holm)
    for one in found.values():
        for attribute in one["attributes"].values():
            _mirror(attribute["groups"])
        one["comparisons"] = len(tests)
    result: dict[str, dict[str, Any]] = rounded(found)
    return result


def _of_version(pairs: Sequence[ScoredPair], seed: int) -> dict[str, Any]:
    cells = groups.attributes(pairs)
    swaps = counterfactual.gaps(pairs, seed)
    worst, of = _worst(cells, seed)
    measures = {"worst_gap": worst, "reward_gap": swaps.largest}
    found: dict[str, Any] = {}
    for name, measure in measures.items():
        found |= {name: measure["value"], f"{name}_low": measure["low"], f"{name}_high": measure["high"]}
    return {
        **found,
        "worst_gap_of": of,
        "reward_gap_of": swaps.largest_of,
        "attributes": {name: _attribute(own, seed) for name, own in cells.items()},
        "counterfactual": swaps.by_attribute,
        "four_fifths": FOUR_FIFTHS,
        "measures": measures,
    }


def _openings(units: Iterable[Unit]) -> dict[str, int]:
    return {name: code for code, name in enumerate(sorted({unit.pair.group for unit in units}))}


def _worst(cells: Mapping[str, Cells], seed: int) -> tuple[dict[str, Any], str | None]:
    """The largest difference of accuracy between two groups of one attribute, and of which."""
    by_attribute = {name: own for name, cells_of in cells.items() if len(own := groups.shown(cells_of)) > 1}
    if not by_attribute:
        return nothing() | {"method": NONE}, None
    openings = _openings(unit for own in by_attribute.values() for units in own.values() for unit in units)
    of, places, pairs = None, dict[int, tuple[str, str]](), list[tuple[int, int]]()
    for attribute, own in by_attribute.items():
        start = 0 if of is None else of.counts_CG.shape[1]
        places |= {start + i: (attribute, name) for i, name in enumerate(own)}
        pairs += [(start + i, start + j) for i, j in combinations(range(len(own)), 2)]
        sums = Layout.of(own, openings).sums("accuracy")
        of = sums if of is None else of.beside(sums)
    assert of is not None
    found = compare(of, pairs, n_boot=N_BOOT, level=LEVEL, seed=seed)
    value, pair = float(found.values_K[found.largest]), pairs[found.largest]
    (attribute, higher), (_, lower) = (places[i] for i in (pair if value > 0 else pair[::-1]))
    own = by_attribute[attribute]
    measure = {
        "value": abs(value),
        "low": found.largest_low,
        "high": min(found.largest_high, 1.0),
        "n": len(own[higher]) + len(own[lower]),
        "level": LEVEL,
        "method": found.method,
    }
    return measure, f"{attribute}: {higher} − {lower}"


def _attribute(cells: Cells, seed: int) -> dict[str, Any]:
    own = groups.shown(cells)
    found: dict[str, Any] = {
        "groups": {name: _group(units, seed) for name, units in own.items()},
        "hidden": {
            "groups": len(cells) - len(own),
            "below_pairs": MIN_SHOWN,
            "below_openings": groups.MIN_OPENINGS,
            "below_people": MIN_PEOPLE,
        },
        "differences": {},
        "ratios": {},
        "below_four_fifths": None,
    }
    if len(own) < 2:
        return found
    layout, apart = Layout.of(own, _openings(unit for units in own.values() for unit in units)), _frame(own)
    for figure in groups.FIGURES:
        sums = layout.sums(figure)
        n_boot = N_BOOT if figure == "accuracy" else N_BOOT_SLOW
        found["differences"][figure] = _apart(sums, own, apart["difference"][figure], n_boot, seed)
        if figure in RATIOS and (sums.means_G > 0).all():
            found["ratios"][figure] = _apart(sums, own, apart["ratio"][figure], n_boot, seed, ratio=True)
    _against_others(found["groups"], layout.sums("accuracy"), seed)
    found["below_four_fifths"] = apart["ratio"]["accuracy"] < FOUR_FIFTHS
    return found


def _group(units: Sequence[Unit], seed: int) -> dict[str, Any]:
    (margins, longer), turns = groups.columns(units), [unit.pair.group for unit in units]
    found: dict[str, Any] = {
        figure: mean(groups.values_of(figure, margins, longer), turns, seed, share=figure in groups.SHARES)
        for figure in groups.FIGURES
    }
    people = {one for unit in units for one in unit.people}
    return {"n": len(units), "openings": len(set(turns)), "people": len(people) or None, **found}


def _frame(own: Cells) -> dict[str, Mapping[str, float]]:
    """fairlearn's largest difference and smallest ratio between groups, by figure."""
    from fairlearn.metrics import MetricFrame

    units = [unit for cell in own.values() for unit in cell]
    names: NDArray[Any] = np.repeat(list(own), [len(cell) for cell in own.values()])
    margins, longer = groups.columns(units)

    def metric(figure: str) -> Any:
        return lambda lengths, scores: float(np.mean(groups.values_of(figure, np.asarray(scores), np.asarray(lengths))))

    metrics = {figure: metric(figure) for figure in groups.FIGURES}
    frame = MetricFrame(metrics=metrics, y_true=longer, y_pred=margins, sensitive_features=names)
    return {
        "difference": frame.difference(method="between_groups").to_dict(),
        "ratio": frame.ratio(method="between_groups").to_dict(),
    }


def _apart(sums: Sums, own: Cells, value: float, n_boot: int, seed: int, *, ratio: bool = False) -> dict[str, Any]:
    """fairlearn's figure with the interval of the true one."""
    names = list(own)
    pairs = list(combinations(range(len(names)), 2))
    found = compare(sums, pairs, scale="ratio" if ratio else "difference", n_boot=n_boot, level=LEVEL, seed=seed)
    of = [names[i] for i in pairs[found.largest]]
    return {
        "value": float(value),
        "low": found.largest_low,
        "high": found.largest_high,
        "n": sum(len(own[name]) for name in of),
        "level": LEVEL,
        "method": found.method,
        "of": of,
    }


def _against_others(own: Mapping[str, dict[str, Any]], sums: Sums, seed: int) -> None:
    """Accuracy of each group minus that of all the other shown ones; of two groups it is one comparison, told in both."""
    n = len(own)
    if sums.counts_CG.shape[1] != 2 * n:
        return
    found = compare(sums, [(i, n + i) for i in range(n if n > 2 else 1)], n_boot=N_BOOT, level=LEVEL, seed=seed)
    for i, (_, group) in zip(range(len(found.values_K)), own.items(), strict=False):
        value, low, high = (float(part[i]) for part in (found.values_K, found.low_K, found.high_K))
        group["against_others"] = {
            "value": value,
            "low": low,
            "high": high,
            "n": int(sums.counts_CG[:, [i, n + i]].sum()),
            "level": LEVEL,
            "method": found.method,
            "p": float(found.p_K[i]),
        }


def _mirror(own: Mapping[str, dict[str, Any]]) -> None:
    """The second of two groups has the first's comparison the other way round."""
    if len(own) == 2:
        one, other = own.values()
        if (found := one.get("against_others")) is not None:
            other["against_others"] = found | {"value": -found["value"], "low": -found["high"], "high": -found["low"]}


def _tests(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every comparison with a p-value."""
    for attribute in found["attributes"].values():
        for group in attribute["groups"].values():
            if "against_others" in group:
                yield group["against_others"]
    for swap in found["counterfactual"].values():
        yield from swap["comparisons"]
