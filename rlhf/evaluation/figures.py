"""Scored pairs to figures: each with its number of pairs, its 95 % interval and the method that made it.

What is counted, once for all figures:
- a tie (target 0.5) can't be ranked rightly or wrongly: ties are counted and left out of accuracy and the figures
  below it;
- a pair that could not be scored stays in: its margin is taken as 0, which is a coin (0.5 in accuracy, ln 2 in
  log-loss, 1/4 in Brier score). So leaving out hard pairs never helps. Margins, calibration and length correlation use
  scored pairs only;
- pairs of one opening turn are resampled together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlhf.evaluation import parts, selection
from rlhf.evaluation.estimates import LEVEL, N_BOOT_SLOW, Floats, coined, estimate, mean, nothing, rounded
from rlhf.evaluation.scored import ScoredPair
from rlhf.measures import calibration, intervals, length, ranking

N_BINS = 15
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_TESTS = (calibration.kolmogorov_smirnov, calibration.spiegelhalter)


def figures(
    scored: Sequence[ScoredPair], *, seed: int = 0, confidences: Sequence[float] = selection.CONFIDENCES
) -> dict[str, Any]:
    """Everything that is measured on one version's scored pairs; finite floats, ints, texts and None only.

    Flat keys (`accuracy`, `accuracy_low`, `accuracy_high`, `log_loss`, ...) are for programs; `measures` holds the
    same with n, level and method. A figure of no pairs is None. The order of the pairs doesn't matter. confidences: at
    which precision is given. Raises ValueError on none.
    """
    if not scored:
        raise ValueError("no pairs to measure")
    pairs = sorted(scored, key=lambda p: p.pair_id)
    decided = [p for p in pairs if not p.is_tie]
    ranked = [p for p in decided if p.margin is not None]
    oriented = calibration.orient(coined(ranked), seed) if ranked else None
    worst_name, worst = parts.worst(decided, seed)
    measures = {**_ranking(decided, pairs, seed), **_length(decided, pairs, seed), **_position(decided, seed)}
    measures |= {"aurc": selection.area(decided, seed), "worst_stratum": worst}
    measures["ece"] = _calibration(*oriented, [p.group for p in ranked], seed) if oriented else nothing()
    found: dict[str, Any] = {
        "n": len(pairs),
        "n_decided": len(decided),
        "n_ties": len(pairs) - len(decided),
        "n_too_long": sum(p.margin is None for p in pairs),
        "n_truncated": sum(p.truncated for p in pairs),
        "n_groups": len({p.group for p in pairs}),
    }
    for name, measure in measures.items():
        found |= {name: measure["value"], f"{name}_low": measure["low"], f"{name}_high": measure["high"]}
    perfect = calibration.ece_if_perfect(oriented[0], N_BINS, seed) if oriented else None
    shape, sureness = (test(coined(ranked)) if ranked else None for test in _TESTS)
    found |= {
        "length_guess_side": _guess_side(decided),
        "ece_if_perfect": {"mean": perfect.mean, "p95": perfect.p95} if perfect else None,
        "calibration_p": shape.p_value if shape else None,
        "spiegelhalter_z": sureness.statistic if sureness else None,
        "spiegelhalter_p": sureness.p_value if sureness else None,
        "margins": _margins([p.margin for p in ranked if p.margin is not None]),
        "reliability": calibration.reliability_rows(*oriented, N_BINS) if oriented else [],
        "by_source": parts.by(parts.split(decided, lambda p: p.source), seed),
        "by_stratum": parts.by(parts.split(decided, lambda p: p.stratum), seed),
        "by_subset": parts.by(parts.split(decided, lambda p: p.strata), seed),
        "by_cohort": parts.by_cohort(pairs, seed),
        "worst_stratum_name": worst_name,
        "style_matrix": parts.style_matrix(decided, seed),
        "precision": selection.precision(decided, confidences),
        "risk_coverage": selection.curve(decided),
        "measures": measures,
        "seed": seed,
    }
    result: dict[str, Any] = rounded(found)
    return result


def difference(one: Sequence[ScoredPair], other: Sequence[ScoredPair], *, seed: int = 0) -> dict[str, Any]:
    """One version minus another on the same pairs, paired: accuracy and log-loss with intervals, and how often both
    rank alike.

    Raises ValueError where the pairs differ.
    """
    pairs = [sorted((p for p in side if not p.is_tie), key=lambda p: p.pair_id) for side in (one, other)]
    if [p.pair_id for p in pairs[0]] != [p.pair_id for p in pairs[1]]:
        raise ValueError("the two versions were scored on different pairs")
    margins = [coined(side) for side in pairs]
    hits = [ranking.hits(m) for m in margins]
    groups = [p.group for p in pairs[0]]
    result: dict[str, Any] = rounded(
        {
            "accuracy": mean(hits[0] - hits[1], groups, seed),
            "log_loss": mean(ranking.log_losses(margins[0]) - ranking.log_losses(margins[1]), groups, seed),
            "same_side": mean((hits[0] == hits[1]).astype(np.float64), groups, seed, share=True),
        }
    )
    return result


def _ranking(decided: Sequence[ScoredPair], pairs: Sequence[ScoredPair], seed: int) -> dict[str, dict[str, Any]]:
    margins, groups = coined(decided), [p.group for p in decided]
    found = {
        "accuracy": mean(ranking.hits(margins), groups, seed, share=True),
        "log_loss": mean(ranking.log_losses(margins), groups, seed),
        "brier": mean(ranking.squared_errors(margins), groups, seed),
    }
    if any(p.target < 1 for p in pairs):  # several labelers: how well the whole vote is met, ties included
        every, targets = coined(pairs), np.array([p.target for p in pairs])
        found["soft_log_loss"] = mean(ranking.log_losses(every, targets), [p.group for p in pairs], seed)
    return found


def _length(decided: Sequence[ScoredPair], pairs: Sequence[ScoredPair], seed: int) -> dict[str, dict[str, Any]]:
    hits, groups = ranking.hits(coined(decided)), np.array([p.group for p in decided])
    longer = np.array([p.length_difference for p in decided], dtype=np.float64)
    baseline = ranking.hits(longer)
    better = baseline if _guess_side(decided) == "longer" else 1.0 - baseline
    return {
        "longer_wins": mean(baseline, groups, seed, share=True),
        "accuracy_minus_longer_wins": mean(hits - baseline, groups, seed),
        "length_guess": mean(better, groups, seed, share=True),
        "accuracy_minus_length_guess": mean(hits - better, groups, seed),
        "accuracy_chosen_longer": mean(hits[longer > 0], groups[longer > 0], seed, share=True),
        "accuracy_chosen_shorter": mean(hits[longer < 0], groups[longer < 0], seed, share=True),
        "length_correlation": _length_correlation(pairs, length.spearman_both_ways, seed),
        "length_correlation_linear": _length_correlation(pairs, length.pearson_both_ways, seed),
    }


def _position(decided: Sequence[ScoredPair], seed: int) -> dict[str, dict[str, Any]]:
    """Which side people prefer, and accuracy on either: `a` is the reply with the smaller digest, so a side should mean nothing."""
    hits, groups = ranking.hits(coined(decided)), np.array([p.group for p in decided])
    is_a = np.array([p.chosen_is_a for p in decided], dtype=bool)
    return {
        "chosen_is_a": mean(is_a.astype(np.float64), groups, seed, share=True),
        "accuracy_chosen_a": mean(hits[is_a], groups[is_a], seed, share=True),
        "accuracy_chosen_b": mean(hits[~is_a], groups[~is_a], seed, share=True),
    }


def _guess_side(decided: Sequence[ScoredPair]) -> str:
    """'longer' or 'shorter': which reply to guess, knowing lengths alone, to be right most often on these very pairs.
    Choosing it on them favours the guess, so a version that beats it isn't flattered."""
    baseline = ranking.hits([p.length_difference for p in decided])
    return "longer" if baseline.sum() * 2 >= len(baseline) else "shorter"


def _length_correlation(
    every: Sequence[ScoredPair], correlation: Callable[[Floats, Floats], float], seed: int
) -> dict[str, Any]:
    """Of score with length differences, so within prompts, each pair taken both ways round: it then depends on no label and
    no draw. Pairs without scores say nothing."""
    pairs = [p for p in every if p.margin is not None]
    if not pairs:
        return nothing()
    both = np.array([[p.margin, p.length_difference] for p in pairs], dtype=np.float64)

    def statistic(rows: Floats) -> float:
        return correlation(rows[:, 0], rows[:, 1])

    interval = intervals.bootstrap(
        both, statistic, groups_N=[p.group for p in pairs], n_boot=N_BOOT_SLOW, level=LEVEL, seed=seed
    )
    return estimate(statistic(both), interval, len(pairs))


def _calibration(p: Floats, won: Floats, groups: Sequence[str], seed: int) -> dict[str, Any]:
    interval = calibration.ece_interval(p, won, N_BINS, groups_N=groups, n_boot=N_BOOT_SLOW, level=LEVEL, seed=seed)
    return estimate(calibration.ece(p, won, N_BINS), interval, len(p))


def _margins(margins: Sequence[float]) -> dict[str, Any] | None:
    """Mean, sd, quantiles and a histogram whose bins end at zero; what lies beyond its ends is in the last bins."""
    if not margins:
        return None
    values = np.array(margins)
    reach = float(np.quantile(np.abs(values), 0.995)) or 1.0
    edges = np.linspace(-reach, reach, 25)
    counts, _ = np.histogram(np.clip(values, -reach, reach), edges)
    quantiles = {
        f"p{round(q * 100):02d}": float(v) for q, v in zip(_QUANTILES, np.quantile(values, _QUANTILES), strict=True)
    }
    return {
        "n": len(values),
        "mean": float(values.mean()),
        "sd": float(values.std()),
        **quantiles,
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }
