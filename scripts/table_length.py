"""What does it cost an instant reward to lose its length? Correlation and accuracy on HH over the length penalty.

    OMP_NUM_THREADS=1 .venv/bin/python scripts/table_length.py

A linear head on the base's states (layer 18, last token and mean over the reply) is fitted to the train folds' pairs and given the
length penalty by `measures.length.without_length`, as kind=head does; everything is measured on the held-out folds. Folds are whole
opening turns. Both correlations are of score and length differences, each pair both ways round. Differences to no penalty are
paired, intervals over opening turns. The goal: |rank correlation| <= 0.05 for at most one point of accuracy.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from table_labels import DATA, PROJECT, Judged, read, with_states

from rlhf.ids import unit_interval
from rlhf.measures import bayes_logistic, intervals, length, ranking
from rlhf.reward.targets import target_of

PENALTIES = (0.0, 0.1, 0.3, 1.0, 1.5, 2.0, 3.0, 10.0, math.inf)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """differences: (N, D) of states, a - b; longer: (N,) characters of a - b; p_a: (N,) targets; groups: opening turns."""

    differences: Floats
    longer: Floats
    p_a: Floats
    groups: list[str]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--base", type=Path, default=PROJECT / ".bases" / "smollm2-135m")
    words.add_argument("--layer", type=int, default=18)
    words.add_argument("--folds", type=int, default=5)
    words.add_argument("--cache", type=Path, help="folder that keeps the states for the next run")
    told = words.parse_args()
    start = time.perf_counter()
    pairs = pairs_of(with_states(read([DATA / "hh_harmless.jsonl.gz"]), told.base, told.layer, told.cache))
    print(f"{len(pairs.p_a)} pairs, {len(set(pairs.groups))} opening turns")
    gaps = held_out(pairs, told.folds)
    print(json.dumps(printed(pairs, gaps) | {"seconds": round(time.perf_counter() - start)}))


def pairs_of(judged: Judged) -> Pairs:
    """The decided pairs."""
    p_a = [target_of(row.judgements, "soft") for row in judged.rows]
    kept = np.array([p is not None and p != 0.5 for p in p_a])
    rows = [row for row, own in zip(judged.rows, kept, strict=True) if own]
    return Pairs(
        (judged.states[judged.a] - judged.states[judged.b])[kept],
        np.array([len(row.pair.reply_a) - len(row.pair.reply_b) for row in rows], dtype=np.float64),
        np.array([p for p, own in zip(p_a, kept, strict=True) if own], dtype=np.float64),
        [row.pair.group for row in rows],
    )


def held_out(pairs: Pairs, folds: int) -> dict[float, Floats]:
    """penalty -> (N,) score differences a - b, each from a fit that saw no pair of its opening turn."""
    number = np.array([int(unit_interval(0, f"fold {group}") * folds) for group in pairs.groups])
    gaps = {penalty: np.zeros(len(number)) for penalty in PENALTIES}
    for k in range(folds):
        out = number == k
        x, y = pairs.differences[~out], pairs.p_a[~out]
        groups = [group for group, left in zip(pairs.groups, out, strict=True) if not left]
        precision = bayes_logistic.choose_precision(x, y, groups_N=groups)
        posterior = bayes_logistic.fit(x, y, precision=precision)
        ranks = length.signed_ranks(pairs.longer[~out])
        for penalty in PENALTIES:
            found = length.without_length(posterior, x, ranks, penalty)
            gaps[penalty][out] = found.logits(pairs.differences[out])
    return gaps


def printed(pairs: Pairs, gaps: dict[float, Floats]) -> dict[str, Any]:
    """Print the table; give the last line's object: the least penalty that meets the correlation's goal, and what it costs."""
    turn = np.where(pairs.p_a > 0.5, 1, -1)
    plain = ranking.hits(turn * gaps[0.0])
    lost_by = "points lost [95 %], paired"
    print(f"\n{'penalty':>7} {'rank corr. [95 %]':>26} {'linear':>7} {'accuracy':>8}  {lost_by:>27} {'log-loss':>8}")
    lines: list[dict[str, Any]] = []
    for penalty, gap in gaps.items():
        both = np.column_stack((gap, pairs.longer))
        spread = intervals.bootstrap(
            both, lambda rows: length.spearman_both_ways(rows[:, 0], rows[:, 1]), groups_N=pairs.groups, n_boot=500
        )
        lost = 100 * (plain - ranking.hits(turn * gap))
        off = intervals.bootstrap(lost, groups_N=pairs.groups)
        line = {
            "penalty": penalty if math.isfinite(penalty) else "inf",
            "rank_correlation": [length.spearman_both_ways(gap, pairs.longer), spread.low, spread.high],
            "linear_correlation": length.pearson_both_ways(gap, pairs.longer),
            "accuracy": ranking.accuracy(turn * gap),
            "points_lost": [lost.mean(), off.low, off.high],
            "log_loss": ranking.log_loss(turn * gap),
        }
        lines.append({key: np.round(value, 4).tolist() if key != "penalty" else value for key, value in line.items()})
        r, c = lines[-1]["rank_correlation"], lines[-1]["points_lost"]
        print(
            f"{line['penalty']:>7} {f'{r[0]:+.3f} [{r[1]:+.3f}, {r[2]:+.3f}]':>26} {line['linear_correlation']:+7.3f} "
            f"{line['accuracy']:8.4f}  {f'{c[0]:+.2f} [{c[1]:+.2f}, {c[2]:+.2f}]':>27} {line['log_loss']:8.4f}"
        )
    met = next((line for line in lines if abs(line["rank_correlation"][0]) <= 0.05), lines[-1])
    return {
        "name": "length penalty: points of accuracy lost at |rank correlation| <= 0.05; peer: no penalty's accuracy",
        "ours": met["accuracy"],
        "peer": lines[0]["accuracy"],
        "ratio": round(met["accuracy"] / lines[0]["accuracy"], 4),
        "unit": "accuracy",
        "points_lost": met["points_lost"],
        "goal_points": 1.0,
        "penalty": met["penalty"],
        "rank_correlation": met["rank_correlation"],
        "table": lines,
    }


if __name__ == "__main__":
    main()
