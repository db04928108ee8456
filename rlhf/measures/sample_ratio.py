"""Units in other shares than were drawn, at one look: the chi-square test. `sequential.mismatch` is its twin for many looks."""

from __future__ import annotations

from numpy.typing import ArrayLike


def p_value(units_K: ArrayLike, shares_K: ArrayLike) -> float:
    """Pearson's chi-square of units by arm against their shares (sum 1); 1 where no unit came. An arm without a share is left out
    where nothing came to it, and settles it where something did. Valid for one look that was fixed before: alpha is alpha once."""
    import numpy as np
    from scipy.stats import chisquare

    units, shares = np.asarray(units_K, dtype=np.float64), np.asarray(shares_K, dtype=np.float64)
    if units.shape != shares.shape or not np.isclose(shares.sum(), 1.0) or (shares < 0).any():
        raise ValueError(
            f"{units.size} arms and {shares.size} shares that sum to {shares.sum():g}; wanted one each, 1 in all"
        )
    drawn = shares > 0
    if units[~drawn].any():
        return 0.0
    if not units.sum() or drawn.sum() < 2:
        return 1.0
    return float(chisquare(units[drawn], units.sum() * shares[drawn]).pvalue)
