"""Which layers and pooling an instant reward should read: 5-fold figures on HH, and how long a fit takes.

    .venv/bin/python scripts/table_head.py                  SmolLM2-135M, HH pairs from ../shared/data
    .venv/bin/python scripts/table_head.py --keep FOLDER    the states are kept there, so that a second run reads them

Folds are by opening turn, so that no conversation's beginning is on both sides; scale, prior and head are fitted on four folds and
measured on the fifth. Every row that was tried is printed, the bad ones too. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.cli.boundary import quiet_libraries

PROJECT = Path(__file__).parent.parent
DATA = PROJECT.parent / "shared" / "data" / "hh_harmless.jsonl.gz"
FOLDS = 5
POOLINGS = {"last": [0], "mean": [1], "last+mean": [0, 1]}
TOGETHER = (
    (14, 22), (14, 26), (18, 26), (14, 18, 22), (14, 22, 30), (22, 26, 30), (10, 14, 18, 22, 26), (14, 18, 22, 26, 30),
)  # fmt: skip


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=PROJECT / ".bases" / "smollm2-135m")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--pairs", type=int, default=0, help="only the first ones by digest; 0 = all")
    parser.add_argument("--layers", default="6,10,14,18,22,26,30", help="layers whose states are read")
    parser.add_argument("--keep", type=Path, help="folder to keep the states in; a run that was stopped goes on there")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the frozen body")
    words = parser.parse_args()
    layers = tuple(int(word) for word in words.layers.split(","))
    states, targets, groups, seconds = features(words, layers)
    print(f"{len(targets)} pairs, states in {seconds:.0f} s", file=sys.stderr)
    fold = folds(groups)
    rows = [
        row_of(states, layers, chosen, pooling, targets, groups, fold)
        for chosen in [(layer,) for layer in layers] + [t for t in TOGETHER if set(t) <= set(layers)]
        for pooling in POOLINGS
    ]
    best = min(rows, key=lambda row: row["log_loss"])
    print(
        json.dumps(
            {
                "name": "table_head",
                "ours": best["log_loss"],
                "peer": None,
                "ratio": None,
                "unit": "log-loss of the best row, nats, 5-fold by opening turn",
                "best": best,
                "pairs": len(targets),
                "dtype": words.dtype,
                "states_seconds": round(seconds, 1),
                "rows": rows,
            }
        )
    )


def features(
    words: argparse.Namespace, layers: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float64], list[str], float]:
    """Differences of the two replies' states (N, layers, poolings, hidden), P(first is better), opening turns, seconds."""
    from rlhf import engine, feedback, snapshots
    from rlhf.engine.classifiers import classifier
    from rlhf.engine.placement import Placement
    from rlhf.engine.pooled import PooledStates
    from rlhf.engine.rendering import Renderer
    from rlhf.engine.states import Reading, opening_of
    from rlhf.reward.rows import training_rows
    from rlhf.store import Workspace
    from rlhf.store.cache import Cache
    from rlhf.training.progress import counting

    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.create(Path(folder) / "ws", actor="table")
        base = engine.add_from_dir(workspace, "base", words.base)
        feedback.import_files(workspace, [words.data])
        snapshot = snapshots.cut(workspace, "hh", holdout=0.0)
        renderer = Renderer(base.tokenizer(), 1024)
        rows = training_rows(snapshot.rows("train"), renderer, "soft", 0.0)[0][: words.pairs or None]
        known = {row.pair.id: row.pair.group for row in snapshot.rows("train")}
        place = Placement("cpu", words.dtype, "table")
        reading = Reading(layers, ("last", "mean"), opening_of(renderer))
        cache = Cache(words.keep or Path(folder) / "states", 2**35)
        kept = PooledStates(lambda: classifier(base, place, seed=0).eval(), reading, base, place, cache)
        start = time.perf_counter()
        with counting("states", len(rows), "pair") as show:
            both = kept.of(rows, show)
        seconds = time.perf_counter() - start
        workspace.close()
    states = (both[:, 0] - both[:, 1]).reshape(len(rows), len(layers), 2, -1)
    return states, np.array([row.target for row in rows]), [known[row.pair_id] for row in rows], seconds


def folds(groups: list[str]) -> NDArray[np.int64]:
    from rlhf.ids import unit_interval

    return np.array([int(FOLDS * unit_interval(0, group)) for group in groups])


def row_of(
    states: NDArray[np.float32],
    layers: tuple[int, ...],
    chosen: tuple[int, ...],
    pooling: str,
    targets: NDArray[np.float64],
    groups: list[str],
    fold: NDArray[np.int64],
) -> dict[str, Any]:
    """One row of the table: 5-fold accuracy and log-loss, and the seconds of a whole fit on all pairs."""
    from rlhf.measures import bayes_logistic, ranking

    x = states[:, [layers.index(layer) for layer in chosen]][:, :, POOLINGS[pooling]].reshape(len(targets), -1)
    logits, spreads = np.zeros(len(targets)), np.zeros(len(targets))
    found = []
    for k in range(FOLDS):
        train, test = fold != k, fold == k
        own = [group for group, inside in zip(groups, train, strict=True) if inside]
        precision = bayes_logistic.choose_precision(x[train], targets[train], groups_N=own)
        posterior = bayes_logistic.fit(x[train], targets[train], precision=precision)
        logits[test], spreads[test] = posterior.logits(x[test]), posterior.variances(x[test])
        found.append(precision / x.shape[1])
    start = time.perf_counter()
    precision = bayes_logistic.choose_precision(x, targets, groups_N=groups)
    bayes_logistic.fit(x, targets, precision=precision)
    seconds = time.perf_counter() - start
    turned = np.where(targets >= 0.5, 1.0, -1.0)
    chances = np.clip(bayes_logistic.chances(logits, spreads), 1e-12, 1 - 1e-12)
    averaged = np.log(chances) - np.log1p(-chances)
    losses = ranking.log_losses(logits, targets)
    row = {
        "layers": list(chosen),
        "pooling": pooling,
        "accuracy": round(ranking.accuracy(turned * logits), 4),
        "log_loss": round(float(losses.mean()), 4),
        "log_loss_sd": round(float(losses.std() / np.sqrt(len(losses))), 4),
        "log_loss_doubt_averaged": round(float(ranking.log_losses(averaged, targets).mean()), 4),
        "precision_per_feature": round(float(np.exp(np.mean(np.log(found)))), 3),
        "fit_seconds": round(seconds, 2),
    }
    print(
        f"layers {','.join(map(str, chosen)):<16} {pooling:<10} accuracy {row['accuracy']:.4f}  log-loss "
        f"{row['log_loss']:.4f} (averaged {row['log_loss_doubt_averaged']:.4f})  precision/feature "
        f"{row['precision_per_feature']:<8} fit {row['fit_seconds']} s",
        file=sys.stderr,
    )
    return row


if __name__ == "__main__":
    main()
