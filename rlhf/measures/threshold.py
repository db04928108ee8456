"""A threshold with guaranteed precision: how sure a reward must be of a choice before it is what people choose, often enough.

MAPIE's Learn-then-Test controller (Angelopoulos et al. 2021) tests at each of a few coverages whether the precision above it lies
below the target, and keeps the thresholds where that is refuted. It may refute none: then there is no such threshold.

What the guarantee assumes: prompts come from where the calibration pairs came from, and are exchangeable with them. Pairs of one
prompt are not independent of each other, so one pair a group is drawn and the others have no say.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.ids import chance
from rlhf.measures.intervals import Interval, wilson
from rlhf.measures.ranking import as_numbers

COVERAGES = tuple(round(0.1 * tenth, 1) for tenth in range(10, 0, -1))
METHOD = (
    "Learn then Test (MAPIE), binomial tail bound, Bonferroni over {n} coverages, one pair drawn from each opening turn; assumes "
    "that opening turns are exchangeable with those to come"
)


@dataclass(frozen=True, slots=True)
class Threshold:
    """margin: the smallest |score difference| to act on; None = none is guaranteed. coverage, precision: of the n drawn pairs,
    the share above it, and how often the choice was right there."""

    margin: float | None
    coverage: float | None
    precision: float | None
    n: int
    target: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Held:
    """A threshold on other pairs: how many of n lie above it, how many of these the reward had right, with Wilson's interval."""

    n: int
    n_above: int
    precision: float | None
    interval: Interval


def guaranteed(
    margins_N: ArrayLike, groups_N: ArrayLike, *, target: float = 0.8, confidence: float = 0.9, seed: int = 0
) -> Threshold:
    """The widest of COVERAGES at which P(choice is right) >= target, wrongly so with a chance of at most 1 - confidence.

    margins: score of the reply that a vote chose minus the other's, so its sign says whether the reward chose it too; a margin
    of 0 chooses nothing and is wrong. groups: what isn't independent (opening turns). Thresholds are midway marks of the drawn
    |margins|: above the k-th largest they are a sample of what lies above it, so that each test holds at its level; the marks
    depend on the votes in nothing.
    """
    for name, value in (("target", target), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"{name} = {value}; wanted between 0 and 1")
    margins = as_numbers(margins_N, "margins")[one_a_group(groups_N, seed)]
    sure, right = np.abs(margins), margins > 0
    marks = _marks(sure)
    valid = _valid(sure, right, marks, target, confidence)
    if not valid:
        return Threshold(None, None, None, len(margins), target, confidence)
    margin = min(valid)
    above = sure >= margin
    return Threshold(margin, float(above.mean()), float(right[above].mean()), len(margins), target, confidence)


def held(margin: float, margins_N: ArrayLike, level: float = 0.95) -> Held:
    """How a threshold does on other pairs (margins as in `guaranteed`); precision is None where none lies above it."""
    margins = as_numbers(margins_N, "margins")
    above = margins[np.abs(margins) >= margin]
    n_right = int((above > 0).sum())
    return Held(
        len(margins), len(above), n_right / len(above) if len(above) else None, wilson(n_right, len(above), level)
    )


def one_a_group(groups_N: ArrayLike, seed: int = 0) -> NDArray[np.intp]:
    """Indices of one pair of each group, drawn at random, in rising order."""
    codes = np.unique(np.asarray(groups_N), return_inverse=True)[1].reshape(-1)
    order = np.random.default_rng(chance(seed, "one a group").getrandbits(64)).permutation(len(codes))
    _, first = np.unique(codes[order], return_index=True)
    return np.sort(order[first])


def _marks(sure_N: NDArray[np.float64]) -> list[float]:
    """The threshold of each coverage, rising: all pairs, then just above the (k + 1)-th largest, for k pairs."""
    falling = np.sort(sure_N)[::-1]
    cuts = [math.floor(coverage * len(falling)) for coverage in COVERAGES]
    marks = {0.0 if k >= len(falling) else float(np.nextafter(falling[k], np.inf)) for k in cuts if k}
    return sorted(marks)


def _valid(
    sure_N: NDArray[np.float64], right_N: NDArray[np.bool_], marks: list[float], target: float, confidence: float
) -> list[float]:
    """The marks at which MAPIE finds the precision controlled."""
    from mapie.risk_control import BinaryClassificationController

    # MAPIE compares the second column with its parameters: it need not be a probability, but two columns there must be.
    controller = BinaryClassificationController(
        predict_function=lambda sure: np.column_stack((sure, sure)),
        risk="precision",
        target_level=target,
        confidence_level=confidence,
        list_predict_params=np.array(marks),
        fwer_method="bonferroni",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no parameter is valid is an answer here
        controller.calibrate(sure_N, right_N.astype(int))
    return [float(mark) for mark in controller.valid_predict_params]
