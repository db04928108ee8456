"""Folds of whole groups: pairs of one opening turn are never on both sides of a cross-validation."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.ids import unit_interval


def grouped_folds(groups_N: ArrayLike, n_folds: int = 5, seed: int = 0) -> NDArray[np.intp]:
    """(N,) the fold of each pair, 0 to n_folds - 1, the same for all pairs of a group.

    Groups are dealt out in the order of their hashes, so that folds hold equally many groups, give or take one, and neither the
    order of the pairs nor their number in a group matters. Fewer groups than folds give as many folds as groups. Raises
    ValueError on fewer than two groups or folds: nothing could be held out.
    """
    groups = np.asarray(groups_N)
    names = np.unique(groups)
    if n_folds < 2 or len(names) < 2:
        raise ValueError(f"{len(names)} groups for {n_folds} folds; wanted at least 2 of both")
    dealt = sorted(names.tolist(), key=lambda name: unit_interval(seed, f"fold\x00{name}"))
    fold_of = {name: place % min(n_folds, len(names)) for place, name in enumerate(dealt)}
    return np.array([fold_of[name] for name in groups.tolist()], dtype=np.intp)
