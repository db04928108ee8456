"""p-values of several tests at once, so that the chance of even one false finding among them stays what it is said to be."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def holm(p_values_K: ArrayLike) -> NDArray[np.float64]:
    """(K,) p-values, each to be held against alpha by itself, in the order given: Holm's step-down correction (Holm 1979).

    The i-th smallest of K becomes the largest of (K - j + 1) p_(j) over j <= i, at most 1. Holds whatever the tests have to do with
    each other. K may be 0. Raises ValueError for what is no p-value.
    """
    p_values = np.asarray(p_values_K, dtype=np.float64)
    if p_values.ndim != 1 or not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError(f"p-values of shape {p_values.shape}; wanted one dimension, each within [0, 1]")
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
