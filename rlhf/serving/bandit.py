"""Thompson sampling over arms, with a floor for each: which shares a bandit's arms should have now. Pure.

A request isn't drawn anew: units keep their arm, and the shares move from time to time (`rollouts.weigh`), the fewest units with
them. So the propensity that an exposure logs is its arm's share of buckets, exact over the hash; what is computed here, the
share itself, is by quadrature, good to about 1e-3, and has no chance in it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import special

from rlhf.serving.assignment import BUCKETS

_NODES = 2000


def chances_best(successes: Mapping[str, int], trials: Mapping[str, int]) -> dict[str, float]:
    """Chance of each arm to have the highest rate, under Beta(1 + successes, 1 + failures) for each: what Thompson sampling
    draws an arm with (Thompson 1933).

    P(i is best) = ∫ ∏_{j≠i} F_j(F_i⁻¹(u)) du over (0, 1), by the midpoint rule on 2,000 nodes, then made to sum to 1.
    """
    arms = list(trials)
    beta = {arm: (1 + successes.get(arm, 0), 1 + trials[arm] - successes.get(arm, 0)) for arm in arms}
    nodes = (np.arange(_NODES) + 0.5) / _NODES
    found = {}
    for arm in arms:
        at = special.betaincinv(*beta[arm], nodes)
        others = [special.betainc(*beta[other], at) for other in arms if other != arm]
        found[arm] = float(np.prod(others, axis=0).mean()) if others else 1.0
    total = sum(found.values())
    return {arm: chance / total for arm, chance in found.items()}


def weights(successes: Mapping[str, int], trials: Mapping[str, int], floor: float) -> dict[str, int]:
    """Basis points by arm, 10,000 in all: each arm's floor, and the rest by `chances_best`. Raises ValueError where the floors are
    more than everything."""
    arms = list(trials)
    least = round(floor * BUCKETS)
    free = BUCKETS - least * len(arms)
    if free < 0:
        raise ValueError(f"{len(arms)} floors of {floor} are more than everything")
    chances = chances_best(successes, trials)
    exact = {arm: free * chances[arm] for arm in arms}
    found = {arm: least + int(exact[arm]) for arm in arms}
    by_rest = sorted(arms, key=lambda arm: (exact[arm] - int(exact[arm]), arm), reverse=True)
    for arm in by_rest[: BUCKETS - sum(found.values())]:
        found[arm] += 1
    return found
