"""Counterfactual rows: how far a version's scores lie apart where a text differs in the swap alone.

Rows of one template, with the same number, are compared with each other and templates are resampled, since what is asked is whether
the gap would be found in other texts too. `score` is the mean of a row's two scores: what a policy trained on the version would be
paid for whom. Where the slot is in the prompt, scores of different prompts are compared, which a reward is not trained to make
comparable; `margin` (the chosen reply's score minus the rejected one's) doesn't depend on that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from rlhf.evaluation.estimates import LEVEL, MIN_SHOWN, N_BOOT, Floats, mean, nothing
from rlhf.evaluation.scored import ScoredPair
from rlhf.measures.between_groups import Compared, Sums, compare, sums_of

MIN_TEMPLATES = 5
NONE = f"no attribute with {MIN_SHOWN} rows a group of {MIN_TEMPLATES} templates"


@dataclass(frozen=True, slots=True)
class Gaps:
    """largest: the largest gap in score between two groups of one attribute, its interval simultaneous over all; largest_of:
    which."""

    by_attribute: Mapping[str, dict[str, Any]]
    largest: dict[str, Any]
    largest_of: str | None


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Rows of one attribute that are scored for every group: scores_BG, margins_BG, and each block's template."""

    groups: tuple[str, ...]
    templates: tuple[str, ...]
    scores_BG: Floats
    margins_BG: Floats
    n_unscored: int

    @property
    def is_shown(self) -> bool:
        enough = len(self.templates) >= MIN_SHOWN and len(set(self.templates)) >= MIN_TEMPLATES
        return enough and len(self.groups) > 1


def gaps(pairs: Sequence[ScoredPair], seed: int) -> Gaps:
    """Of every attribute that templates swap; one that is too small is there without figures."""
    blocks = _blocks(pairs)
    shown = {name: own for name, own in blocks.items() if own.is_shown}
    found = {name: _attribute(own, seed) if own.is_shown else _hidden(own) for name, own in blocks.items()}
    return Gaps(found, *_largest(shown, seed))


def _codes(of: Iterable[_Blocks]) -> dict[str, int]:
    return {name: i for i, name in enumerate(sorted({template for own in of for template in own.templates}))}


def _blocks(pairs: Sequence[ScoredPair]) -> dict[str, _Blocks]:
    rows: dict[str, dict[str, dict[str, ScoredPair]]] = defaultdict(lambda: defaultdict(dict))
    for pair in pairs:
        if pair.template:
            attribute = pair.template.partition("/")[0]
            rows[attribute][pair.template][dict(pair.tags)[attribute]] = pair
    found = {}
    for attribute, by_place in sorted(rows.items()):
        groups = tuple(sorted({group for block in by_place.values() for group in block}))
        whole = {
            place: [block[group] for group in groups]
            for place, block in sorted(by_place.items())
            if all(group in block and block[group].margin is not None for group in groups)
        }
        scores = [
            [((p.score_chosen or 0.0) + (p.score_rejected or 0.0)) / 2 for p in block] for block in whole.values()
        ]
        margins = [[p.margin or 0.0 for p in block] for block in whole.values()]
        shape = (len(whole), len(groups))
        found[attribute] = _Blocks(
            groups,
            tuple(place.rpartition("/")[0] for place in whole),
            np.array(scores).reshape(shape),
            np.array(margins).reshape(shape),
            len(by_place) - len(whole),
        )
    return found


def _sums(own: _Blocks, values_BG: Floats, codes: Mapping[str, int]) -> Sums:
    n_groups = len(own.groups)
    members = np.tile(np.eye(n_groups, dtype=bool), (len(own.templates), 1))
    clusters = np.repeat([codes[name] for name in own.templates], n_groups)
    return sums_of(values_BG.ravel(), members, clusters, len(codes))


def _attribute(own: _Blocks, seed: int) -> dict[str, Any]:
    codes = _codes([own])
    pairs = list(combinations(range(len(own.groups)), 2))
    by_score, by_margin = (
        compare(_sums(own, values, codes), pairs, n_boot=N_BOOT, level=LEVEL, seed=seed)
        for values in (own.scores_BG, own.margins_BG)
    )
    n = len(own.templates)
    signs = np.sign(own.margins_BG)
    comparisons = [
        {
            "a": own.groups[i],
            "b": own.groups[j],
            "score": _measure(by_score, k, n),
            "margin": _measure(by_margin, k, n),
            "flipped": mean((signs[:, i] != signs[:, j]).astype(np.float64), own.templates, seed, share=True),
            "p": float(by_score.p_K[k]),
        }
        for k, (i, j) in enumerate(pairs)
    ]
    groups = {
        group: {
            "score": mean(own.scores_BG[:, i], own.templates, seed),
            "margin": mean(own.margins_BG[:, i], own.templates, seed),
        }
        for i, group in enumerate(own.groups)
    }
    return {
        "n": n,
        "templates": len(set(own.templates)),
        "unscored": own.n_unscored,
        "groups": groups,
        "comparisons": comparisons,
        "typical_margin": float(np.median(np.abs(own.margins_BG))),
    }


def _hidden(own: _Blocks) -> dict[str, Any]:
    return {
        "n": len(own.templates),
        "templates": len(set(own.templates)),
        "unscored": own.n_unscored,
        "groups": {},
        "comparisons": [],
        "typical_margin": None,
    }


def _measure(found: Compared, k: int, n: int) -> dict[str, Any]:
    low, value, high = (float(part[k]) for part in (found.low_K, found.values_K, found.high_K))
    return {"value": value, "low": low, "high": high, "n": n, "level": found.level, "method": _said(found)}


def _said(found: Compared) -> str:
    return found.method.replace("clusters", "templates")


def _largest(shown: Mapping[str, _Blocks], seed: int) -> tuple[dict[str, Any], str | None]:
    codes = _codes(shown.values())
    of, names, pairs = None, list[tuple[str, str]](), list[tuple[int, int]]()
    for attribute, own in shown.items():
        sums = _sums(own, own.scores_BG, codes)
        pairs += [(len(names) + i, len(names) + j) for i, j in combinations(range(len(own.groups)), 2)]
        names += [(attribute, group) for group in own.groups]
        of = sums if of is None else of.beside(sums)
    if of is None:
        return nothing() | {"method": NONE}, None
    found = compare(of, pairs, n_boot=N_BOOT, level=LEVEL, seed=seed)
    value, (i, j) = float(found.values_K[found.largest]), pairs[found.largest]
    (attribute, higher), (_, lower) = (names[i], names[j]) if value > 0 else (names[j], names[i])
    measure = {
        "value": abs(value),
        "low": found.largest_low,
        "high": found.largest_high,
        "n": len(shown[attribute].templates),
        "level": LEVEL,
        "method": _said(found),
    }
    return measure, f"{attribute}: {higher} − {lower}"
