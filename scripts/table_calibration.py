"""What a temperature is worth: an instant reward's probabilities before and after, on HH and PandaLM, 5-fold by opening turn.

    .venv/bin/python scripts/table_calibration.py                  SmolLM2-135M, pairs from ../shared/data
    .venv/bin/python scripts/table_calibration.py --keep FOLDER    states are kept there (those of table_head.py are read)

In each of five folds a head is fitted on the other four without the opening turns that `set_aside` leaves, the temperature on
these, and both are measured on the fold: log-loss, Brier score, ECE beside a perfectly calibrated scorer's, and the calibration
test. `sharp` is the same head with its scores times 3, as a LoRA trained for too long has them: what there is to mend. Last line:
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from table_head import features

from rlhf.cli.boundary import quiet_libraries

PROJECT = Path(__file__).parent.parent
DATA = PROJECT.parent / "shared" / "data"
SETS = {"hh": "hh_harmless.jsonl.gz", "pandalm": "pandalm.json"}
FOLDS, SHARP = 5, 3.0


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=PROJECT / ".bases" / "smollm2-135m")
    parser.add_argument("--sets", default=",".join(SETS), help="of hh, pandalm")
    parser.add_argument("--layers", default="6,10,14,18,22,26,30", help="layers whose states are read and kept")
    parser.add_argument("--layer", type=int, default=18, help="the one that the head reads, last token and mean")
    parser.add_argument("--set-aside", type=float, default=0.1)
    parser.add_argument("--pairs", type=int, default=0, help="only the first ones by digest; 0 = all")
    parser.add_argument("--keep", type=Path, help="folder to keep the states in")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the frozen body")
    words = parser.parse_args()
    layers = tuple(int(word) for word in words.layers.split(","))
    rows = []
    for name in words.sets.split(","):
        words.data = DATA / SETS[name]
        states, targets, groups, seconds = features(words, layers)
        print(f"{name}: {len(targets)} pairs, states in {seconds:.0f} s", file=sys.stderr)
        x = states[:, layers.index(words.layer)].reshape(len(targets), -1)
        rows += measured(name, x, targets, groups, words.set_aside)
    print(
        json.dumps(
            {
                "name": "table_calibration",
                "ours": max(row["after"]["log_loss"] - row["before"]["log_loss"] for row in rows),
                "peer": None,
                "ratio": None,
                "unit": "log-loss after minus before, nats, the worst row, 5-fold by opening turn",
                "set_aside": words.set_aside,
                "layer": words.layer,
                "dtype": words.dtype,
                "rows": rows,
            }
        )
    )


def measured(
    name: str, x_ND: NDArray[np.float32], targets_N: NDArray[np.float64], groups: list[str], share: float
) -> list[dict[str, Any]]:
    """One row for the head as it is fitted and one for its sharpened scores."""
    from rlhf.measures import bayes_logistic
    from rlhf.measures.folds import grouped_folds
    from rlhf.measures.temperature import temperature
    from rlhf.reward.aside import is_aside
    from rlhf.reward.trust import Votes, figures, gain

    fold_N = grouped_folds(groups, FOLDS)
    aside_N = np.array([is_aside(group, share) for group in groups])
    raw, left = np.zeros(len(groups)), []
    for fold in range(FOLDS):
        fit, calibration, held = (fold_N != fold) & ~aside_N, (fold_N != fold) & aside_N, fold_N == fold
        own = [group for group, inside in zip(groups, fit, strict=True) if inside]
        precision = bayes_logistic.choose_precision(x_ND[fit], targets_N[fit], groups_N=own)
        head = bayes_logistic.fit(x_ND[fit], targets_N[fit], precision=precision)
        raw[held] = head.logits(x_ND[held])
        left.append((head.logits(x_ND[calibration]), targets_N[calibration], np.array(groups)[calibration]))
    rows = []
    for label, factor in (("head", 1.0), ("sharp", SHARP)):
        fitted = np.array([temperature(factor * logits, votes, turns) for logits, votes, turns in left])
        votes = Votes(raw * factor, targets_N, np.array(groups))
        after = votes.margins_N / fitted[fold_N]
        row = {
            "set": name,
            "scores": label,
            "n": len(groups),
            "n_calibration": [len(logits) for logits, _, _ in left],
            "turns_calibration": [len(set(turns.tolist())) for _, _, turns in left],
            "temperatures": [round(t, 3) for t in fitted.tolist()],
            "before": brief(figures(votes, votes.margins_N)),
            "after": brief(figures(votes, after)),
            "gain": {key: round(value, 4) for key, value in gain(votes, votes.margins_N, after).items()},
        }
        print(json.dumps(row), file=sys.stderr)
        rows.append(row)
    return rows


def brief(found: dict[str, Any]) -> dict[str, Any]:
    """The figures that decide, rounded."""
    perfect = found["ece_if_perfect"]
    keys = ("accuracy", "log_loss", "brier", "ece", "ece_low", "ece_high", "calibration_p", "spiegelhalter_p")
    said = {key: found[key] and round(found[key], 4) for key in keys}
    return {**said, "ece_if_perfect": round(perfect["mean"], 4), "ece_if_perfect_p95": round(perfect["p95"], 4)}


if __name__ == "__main__":
    main()
