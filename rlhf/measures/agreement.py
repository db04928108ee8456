"""How far labelers agree beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from rlhf.measures.intervals import Interval, bootstrap


def krippendorff_alpha(units: Iterable[Sequence[Hashable | None]]) -> float | None:
    """Krippendorff's alpha for nominal labels: 1 - D_observed / D_expected, from the coincidence counts.

    units: one sequence of labels a unit (pair), in any order; None is a missing label, a unit with fewer than two
    labels pairs with nothing and is passed over. With o_cc the within-unit pairs of equal labels (each weighted by 1 /
    (m_u - 1)), n_c the labels of kind c in pairable units and n their sum:
        alpha = 1 - (n - 1) (n - sum_c o_cc) / (n² - sum_c n_c²)
    (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"). 1 = perfect, 0 = chance, below 0 = worse.
    None where it isn't defined: no pairable unit, or one single label throughout. Holds only the counts in memory.
    """
    agreeing = 0.0
    totals: Counter[Hashable] = Counter()
    for unit in units:
        counts = Counter(label for label in unit if label is not None)
        m = counts.total()
        if m < 2:
            continue
        agreeing += sum(k * (k - 1) for k in counts.values()) / (m - 1)
        totals.update(counts)
    n = totals.total()
    expected = n * n - sum(k * k for k in totals.values())
    return 1.0 - (n - 1) * (n - agreeing) / expected if expected else None


def alpha_with_interval(
    units: Iterable[Sequence[Hashable | None]],
    *,
    groups: Sequence[str] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> tuple[float, Interval] | None:
    """`krippendorff_alpha` and its 95 % bootstrap interval over units, or over their groups (one a unit) where those are given.

    (Krippendorff 2011 draws labels instead, which takes the labels of one unit for independent.) None where alpha isn't defined; a
    resample in which it isn't counts as 1.
    """
    counted = [Counter(label for label in unit if label is not None) for unit in units]
    is_kept = [counts.total() > 1 for counts in counted]
    kept = list(compress(counted, is_kept))
    kinds = sorted({kind for counts in kept for kind in counts}, key=str)
    if len(kinds) < 2:
        return None
    agreeing = [sum(k * (k - 1) for k in counts.values()) / (counts.total() - 1) for counts in kept]
    rows = np.array(
        [[a, *(counts[kind] for kind in kinds)] for a, counts in zip(agreeing, kept, strict=True)], np.float64
    )
    own = None if groups is None else list(compress(groups, is_kept))
    return _alpha(rows), bootstrap(rows, _alpha, groups_N=own, n_boot=n_boot, seed=seed)


def _alpha(rows_UK: NDArray[np.float64]) -> float:
    """From each unit's agreeing pairs and its labels of each kind."""
    agreeing, totals = rows_UK[:, 0].sum(), rows_UK[:, 1:].sum(axis=0)
    n = totals.sum()
    expected = n * n - (totals**2).sum()
    return float(1.0 - (n - 1) * (n - agreeing) / expected) if expected else 1.0
