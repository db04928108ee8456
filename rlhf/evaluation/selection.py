"""Where the version is sure: precision above chosen confidences, and the risk-coverage curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from rlhf.errors import BadUsage
from rlhf.evaluation.estimates import LEVEL, N_BOOT_SLOW, coined, estimate, nothing
from rlhf.evaluation.scored import ScoredPair
from rlhf.measures import intervals, selective

CONFIDENCES = (0.8, 0.9)


def check_confidences(confidences: Sequence[float]) -> tuple[float, ...]:
    """Rising, each once. Raises BadUsage for one that is no confidence of a choice between two."""
    for value in confidences:
        if not 0.5 <= value < 1:
            raise BadUsage(
                f"a confidence of {value:g} is asked for; wanted 0.5 to below 1", fix="for instance --precision 0.8,0.9"
            )
    return tuple(sorted(set(confidences)))


def precision(decided: Sequence[ScoredPair], confidences: Sequence[float]) -> list[dict[str, Any]]:
    """At each confidence the share that is right of the pairs on which the version is at least so sure, and how many these are of
    all decided pairs. A pair without scores is never sure."""
    if not decided:
        return []
    margins, groups = coined(decided), {p.group for p in decided}
    independent = len(groups) == len(decided)
    about = "" if independent else f", takes the pairs of {len(groups)} opening turns for independent"
    found = []
    for confidence in confidences:
        above = selective.precision_above(margins, confidence, LEVEL)
        found.append(
            {
                "confidence": confidence,
                "value": above.precision,
                "low": above.interval.low if above.n_above else None,
                "high": above.interval.high if above.n_above else None,
                "n": above.n_above,
                "coverage": above.coverage,
                "level": LEVEL,
                "method": above.interval.method + about if above.n_above else "no pairs",
            }
        )
    return found


def area(decided: Sequence[ScoredPair], seed: int) -> dict[str, Any]:
    """AURC with its interval."""
    if not decided:
        return nothing()
    margins = coined(decided)
    interval = intervals.bootstrap(
        margins,
        lambda drawn: selective.aurc(np.asarray(drawn)),
        groups_N=[p.group for p in decided],
        n_boot=N_BOOT_SLOW,
        level=LEVEL,
        seed=seed,
    )
    return estimate(selective.aurc(margins), interval, len(margins))


def curve(decided: Sequence[ScoredPair]) -> list[dict[str, float]]:
    """Coverage, risk and the smallest |margin| at each of some twenty coverages."""
    return [asdict(point) for point in selective.curve(coined(decided))] if decided else []
