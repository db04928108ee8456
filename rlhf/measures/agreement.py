"""How far labelers agree beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence


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
