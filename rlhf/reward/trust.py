"""How far a reward's probabilities can be trusted: the figures of scored pairs with votes, before and after a temperature.

P(a beats b) is the chance that one labeler's vote goes to a, a tie going to either. Log-loss and Brier score are over the votes'
shares. ECE, reliability and the tests need outcomes that are 0 or 1, so one vote a pair is drawn, the same before and after.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.measures import calibration, intervals, ranking, threshold
from rlhf.measures.ranking import sigmoid
from rlhf.records import SnapshotRow
from rlhf.reward.score import PairScore
from rlhf.reward.targets import target_of

Floats = NDArray[np.float64]
N_BINS, N_BOOT, N_BOOT_SLOW = 15, 2000, 500  # as the evaluation's: the figures are to be compared
METHOD = {
    "p": "chance that one labeler's vote goes to reply a: sigmoid(score a - score b); a tie is half a vote for each",
    "log_loss": "nats, against each pair's share of votes",
    "outcome": "for ECE, reliability and tests one vote a pair is drawn (a tie by a coin), the same before and after",
    "ece": f"{N_BINS} equal-mass bins, orientation drawn; interval over opening turns, shifted by the bias of resampling",
    "ece_if_perfect": "ECE that chance gives a perfectly calibrated scorer with the same probabilities: mean and 95th percentile",
    "calibration_p": "Kolmogorov-Smirnov on cumulative differences, least sure first (Arrieta-Ibarra et al. 2022): any shape of "
    "miscalibration, no bins",
    "spiegelhalter_p": "two-sided z of the Brier score (Spiegelhalter 1986): too sure (z > 0) or not sure enough (z < 0)",
    "assumes": "pairs with no common cause of error; where pairs share opening turns the tests reject too often, never too seldom",
}


@dataclass(frozen=True, slots=True)
class Votes:
    """Pairs that were scored and voted on. margins: score a - score b. targets: share of the votes for a."""

    margins_N: Floats
    targets_N: Floats
    groups_N: NDArray[Any]

    def __len__(self) -> int:
        return len(self.margins_N)


def votes_of(rows: Iterable[SnapshotRow], scores: Iterable[PairScore]) -> Votes:
    """The rows whose pair has both scores and any vote; the others have nothing to say about probabilities."""
    kept = []
    for row, score in zip(rows, scores, strict=True):
        target = target_of(row.judgements, "soft")
        if target is not None and score.score_a is not None and score.score_b is not None:
            kept.append((score.score_a - score.score_b, target, row.pair.group))
    margins, targets, groups = zip(*kept, strict=True) if kept else ((), (), ())
    return Votes(np.array(margins, dtype=np.float64), np.array(targets, dtype=np.float64), np.array(groups))


def figures(votes: Votes, margins_N: Floats, *, seed: int = 0) -> dict[str, Any]:
    """How probable the votes are under sigmoid(margins), and whether these are what happens. margins: of `votes`, scaled.

    Raises ValueError on no pairs.
    """
    drawn = calibration.one_vote(margins_N, votes.targets_N, seed)
    p, won = calibration.orient(drawn, seed)
    groups = votes.groups_N
    gap = calibration.ece_interval(p, won, N_BINS, groups_N=groups, n_boot=N_BOOT_SLOW, seed=seed)
    perfect = calibration.ece_if_perfect(p, N_BINS, seed)
    decided = votes.targets_N != 0.5
    hits = ranking.hits(np.where(votes.targets_N > 0.5, margins_N, -margins_N)[decided])
    shape, sureness = calibration.kolmogorov_smirnov(drawn), calibration.spiegelhalter(drawn)
    return {
        "n": len(votes),
        "n_groups": len(np.unique(groups)),
        "accuracy": float(hits.mean()) if hits.size else None,
        **_mean("log_loss", ranking.log_losses(margins_N, votes.targets_N), groups, seed),
        **_mean("brier", _brier(margins_N, votes.targets_N), groups, seed),
        "ece": calibration.ece(p, won, N_BINS),
        "ece_low": None if gap.is_degenerate else gap.low,
        "ece_high": None if gap.is_degenerate else gap.high,
        "ece_if_perfect": {"mean": perfect.mean, "p95": perfect.p95},
        "calibration_p": shape.p_value,
        "spiegelhalter_z": sureness.statistic,
        "spiegelhalter_p": sureness.p_value,
        "reliability": calibration.reliability_rows(p, won, N_BINS),
    }


def gain(votes: Votes, before_N: Floats, after_N: Floats, *, seed: int = 0) -> dict[str, Any]:
    """Log-loss after minus before, paired: below 0 is better."""
    one, other = (ranking.log_losses(margins, votes.targets_N) for margins in (after_N, before_N))
    return _mean("log_loss", one - other, votes.groups_N, seed)


def sure_enough(votes: Votes, *, target: float, confidence: float, seed: int = 0) -> threshold.Threshold:
    """The margin above which one drawn vote is what the reward chose, often enough; see `measures.threshold`."""
    drawn = calibration.one_vote(votes.margins_N, votes.targets_N, seed)
    return threshold.guaranteed(drawn, votes.groups_N, target=target, confidence=confidence, seed=seed)


def checked(margin: float, votes: Votes, *, seed: int = 0) -> threshold.Held:
    """How that threshold does on pairs that it was not chosen on."""
    return threshold.held(margin, calibration.one_vote(votes.margins_N, votes.targets_N, seed))


def _brier(margins_N: Floats, targets_N: Floats) -> Floats:
    """Expected squared error of P over the votes: t (1 - p)^2 + (1 - t) p^2."""
    p = sigmoid(margins_N)
    found: Floats = targets_N * (1.0 - p) ** 2 + (1.0 - targets_N) * p**2
    return found


def _mean(name: str, values_N: Floats, groups_N: NDArray[Any], seed: int) -> dict[str, float | None]:
    interval = intervals.bootstrap(values_N, groups_N=groups_N, n_boot=N_BOOT, seed=seed)
    low, high = (None, None) if interval.is_degenerate else (interval.low, interval.high)
    return {name: float(values_N.mean()), f"{name}_low": low, f"{name}_high": high}
