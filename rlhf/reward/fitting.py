"""Fitting: scored votes to a temperature, what it is worth on pairs that it was not fitted on, and a threshold to act on.

What a calibration's report holds, beside who and when.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.errors import BadInput
from rlhf.measures import threshold
from rlhf.measures.ranking import p_better
from rlhf.measures.temperature import NoTemperature, cross_fitted, temperature
from rlhf.reward import trust
from rlhf.reward.settings import CalibrationSettings
from rlhf.reward.trust import Votes

MIN_PAIRS = 30  # fewer tell log T to no better than 0.5, and the prior would say it all
N_FOLDS = 5
_DIGITS = 6  # of the temperature: beyond what scores are good for on another machine, so that the same fit is the same version


def require_enough(groups: Sequence[str]) -> None:
    """Refuse what no temperature can be fitted on. groups: opening turn of each pair that has votes."""
    if len(groups) < MIN_PAIRS or len(set(groups)) < 2:
        raise BadInput(
            f"{len(groups)} set-aside pairs of {len(set(groups))} opening turns have scores and votes; a temperature wants "
            f"{MIN_PAIRS} pairs or more, of two or more",
            fix="name a snapshot with more pairs, or train with a larger set_aside",
        )


def fit(votes: Votes, version: str, seed: int) -> dict[str, Any]:
    """The temperature on all of them, and figures before and after: "after" is cross-fitted. Raises BadInput where there is none.

    version: for whoever is refused.
    """
    require_enough(votes.groups_N.tolist())
    margins = votes.margins_N
    try:
        fitted = float(f"{temperature(margins, votes.targets_N, votes.groups_N):.{_DIGITS}g}")
        held_out, temperatures = cross_fitted(margins, votes.targets_N, votes.groups_N, N_FOLDS, seed)
    except NoTemperature:
        raise BadInput(
            f"{version}'s scores point away from the votes on these {len(votes)} pairs, or say nothing: no temperature mends that",
            fix="train longer or on more pairs, and look at its accuracy with rlhf evaluate first",
        ) from None
    return {
        "temperature": fitted,
        "fold_temperatures": list(temperatures),
        "before": trust.figures(votes, margins, seed=seed),
        "after": trust.figures(votes, held_out, seed=seed),
        "gain": trust.gain(votes, margins, held_out, seed=seed),
    }


def on_test(fitted: float, votes: Votes | None, why: str, seed: int) -> dict[str, Any]:
    """The test side before and after. votes: None = it can't be told which of it was trained on, and `why`."""
    if votes is None or not len(votes):
        return {"n": 0, "why": why or "the snapshot's test side has no pair with scores and votes to measure"}
    after = votes.margins_N / fitted
    return {
        "n": len(votes),
        "before": trust.figures(votes, votes.margins_N, seed=seed),
        "after": trust.figures(votes, after, seed=seed),
        "gain": trust.gain(votes, votes.margins_N, after, seed=seed),
    }


def limit(fitted: float, votes: Votes, on: Votes | None, settings: CalibrationSettings) -> dict[str, Any]:
    """The threshold in the child's own scores, and how it does on the test side (`on`).

    It is chosen on the parent's margins, which the temperature's fit has no part in: the guarantee is about the order alone.
    """
    found = trust.sure_enough(votes, target=settings.target, confidence=settings.confidence, seed=settings.seed)
    said: dict[str, Any] = {
        "target": found.target,
        "confidence": found.confidence,
        "n": found.n,
        "exists": found.margin is not None,
        "method": threshold.METHOD.format(n=len(threshold.COVERAGES)),
    }
    if found.margin is None:
        return said
    difference = found.margin / fitted
    said |= {
        "score_difference": difference,
        "p": p_better(difference, 0.0),
        "coverage": found.coverage,
        "precision": found.precision,
    }
    if on is not None and len(on):
        test = trust.checked(found.margin, on, seed=settings.seed)
        said["test"] = {
            "n": test.n,
            "n_above": test.n_above,
            "coverage": test.n_above / test.n,
            "precision": test.precision,
            "precision_low": test.interval.low,
            "precision_high": test.interval.high,
        }
    return said


def metrics(content: Mapping[str, Any]) -> dict[str, Any]:
    """What stands beside the child wherever versions are listed. set_aside_*: cross-fitted on the set-aside pairs, so that nobody
    takes them for the parent's figures, which are of the test side; test_*: of every voted pair there, ties included."""
    after, test, limit = content["after"], content["test"], content["threshold"]
    on_test = {
        f"test_{key}{when}": test[part][key]
        for key in ("log_loss", "brier", "ece")
        for part, when in (("before", "_before"), ("after", ""))
        if test["n"]
    }
    return {
        "temperature": content["temperature"],
        "n_set_aside": after["n"],
        "n_set_aside_openings": after["n_groups"],
        "set_aside_log_loss_before": content["before"]["log_loss"],
        "set_aside_log_loss": after["log_loss"],
        "set_aside_brier": after["brier"],
        "set_aside_ece": after["ece"],
        "set_aside_ece_if_perfect_p95": after["ece_if_perfect"]["p95"],
        "set_aside_calibration_p": after["calibration_p"],
        **on_test,
        "threshold_p": limit.get("p"),
        "threshold_coverage": limit.get("coverage"),
    }
