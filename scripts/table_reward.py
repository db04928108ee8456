"""Which settings make the better reward: accuracy and log-loss on HH by 5-fold, each variant trained as users train it.

    .venv/bin/python scripts/table_reward.py --out out/hh head="kind=head" top="top_layers=10" full="epochs=1"

A variant is NAME="settings"; of two or more joined by `+` in `--together` the scores are averaged. For each fold of whole opening
turns the variant is trained by `rlhf.reward.train` on the other four and scores the fifth, in the type that the training chose.
Differences to the first variant are paired, intervals are over opening turns. `calibrated` is the log-loss after a temperature
that saw only the other folds. `--out` keeps states, versions and scores: a run that was stopped goes on there, and a variant that
is done is only read. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.cli.boundary import quiet_libraries

PROJECT = Path(__file__).parent.parent
DATA = PROJECT.parent / "shared" / "data" / "hh_harmless.jsonl.gz"
FOLDS = 5
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Held:
    """Every pair, once, by a version that saw nothing of its opening turn. margins_N: score chosen - rejected; fold_N: the fold
    that held it; seconds: training, over the folds (of an ensemble the whole command); pairs_per_s: the median fold's."""

    ids: list[str]
    margins_N: Floats
    groups: list[str]
    fold_N: NDArray[np.intp]
    seconds: float
    pairs_per_s: float


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="+", metavar='NAME="settings"')
    parser.add_argument("--together", nargs="*", default=[], metavar="NAME+NAME", help="variants to average")
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps what was trained")
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)), help="only these of 0 to 4")
    parser.add_argument("--base", type=Path, default=PROJECT / ".bases" / "smollm2-135m")
    parser.add_argument("--data", type=Path, default=DATA)
    words = parser.parse_args()
    workspace = opened(words)
    found = {}
    for variant in words.variants:
        name, _, settings = variant.partition("=")
        found[name] = held_out(workspace, words, name, settings.split())
        print(line_of(name, row_of(found[name], None)), file=sys.stderr, flush=True)
    for names in words.together:
        found[names] = together([found[name] for name in names.split("+")])
    first = next(iter(found.values()))
    rows = {name: row_of(held, first) for name, held in found.items()}
    for name, row in rows.items():
        print(line_of(name, row))
    best = min(rows, key=lambda name: rows[name]["log_loss"])
    print(
        json.dumps(
            {
                "name": "table_reward",
                "ours": rows[best]["log_loss"],
                "peer": next(iter(rows.values()))["log_loss"],
                "ratio": round(rows[best]["log_loss"] / next(iter(rows.values()))["log_loss"], 4),
                "unit": "log-loss of the best variant and of the first, nats, 5-fold by opening turn",
                "best": best,
                "rows": rows,
            }
        )
    )


def opened(words: argparse.Namespace) -> Any:
    """The workspace in `--out`: one source a fold, and a snapshot of all sources but that one."""
    from rlhf import engine, feedback, snapshots
    from rlhf.measures.folds import grouped_folds
    from rlhf.reward import target_of
    from rlhf.store import Workspace

    root = words.out / "workspace"
    if root.exists():
        return Workspace.open(root, actor="table")
    words.out.mkdir(parents=True, exist_ok=True)
    workspace = Workspace.create(root, actor="table")
    engine.add_from_dir(workspace, "base", words.base)
    feedback.import_files(workspace, [words.data], source="all")
    rows = list(snapshots.cut(workspace, "all", holdout=0.0).rows("train"))
    fold_N = grouped_folds([row.pair.group for row in rows], FOLDS)
    for fold in range(FOLDS):
        file = words.out / f"fold{fold}.jsonl"
        with file.open("w", encoding="utf-8") as lines:
            for row in (row for row, own in zip(rows, fold_N, strict=True) if own == fold):
                p_a = target_of(row.judgements)
                if p_a is None or p_a == 0.5:
                    continue
                chosen, rejected = (row.pair.reply_a, row.pair.reply_b)[:: 1 if p_a > 0.5 else -1]
                prompt = [message.as_json() for message in row.pair.prompt]
                lines.write(json.dumps({"prompt": prompt, "chosen": said(chosen), "rejected": said(rejected)}) + "\n")
        feedback.import_files(workspace, [file], source=f"fold{fold}")
    for fold in range(FOLDS):
        others = [f"fold{other}" for other in range(FOLDS) if other != fold]
        snapshots.cut(workspace, f"without{fold}", sources=others, holdout=0.0)
        snapshots.cut(workspace, f"only{fold}", sources=[f"fold{fold}"], holdout=0.0)
    return workspace


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def held_out(workspace: Any, words: argparse.Namespace, name: str, settings: Sequence[str]) -> Held:
    """Train and score the variant fold by fold; what is done already is read."""
    folds = [fold_of(workspace, words.out / "scores", name, settings, fold) for fold in words.folds]
    sizes = [len(fold["ids"]) for fold in folds]
    return Held(
        [pair for fold in folds for pair in fold["ids"]],
        np.array([margin for fold in folds for margin in fold["margins"]]),
        [group for fold in folds for group in fold["groups"]],
        np.repeat(np.array(words.folds), sizes),
        sum(fold["seconds"] for fold in folds),
        float(np.median([fold["pairs_per_s"] for fold in folds])),
    )


def fold_of(workspace: Any, folder: Path, name: str, words: Sequence[str], fold: int) -> Mapping[str, Any]:
    from rlhf import config, reward, snapshots
    from rlhf.engine.placement import choose
    from rlhf.reward.score import open_reward, score_with

    file = folder / f"{name}.{fold}.json"
    if file.exists():
        return json.loads(file.read_text("utf-8"))
    fixed = {"name": f"{name}-{fold}", "snapshot": f"without{fold}", "base": "base"}
    plain = ("set_aside=0", "test_pairs=0", "baseline=false", "log_steps=10", "save_steps=100000", "trunk_gib=20")
    settings = config.load(reward.RewardSettings, None, (*plain, *words), **fixed)
    began = time.monotonic()
    trained = reward.train(workspace, settings, say=lambda text: print(text, file=sys.stderr))
    wall = time.monotonic() - began
    opened = open_reward(workspace, trained.version, choose(settings.device, settings.dtype))
    rows = list(snapshots.open_snapshot(workspace, f"only{fold}").rows("train"))
    scored = score_with(opened.model, opened.renderer, [row.pair for row in rows])
    margins = [
        (score.score_a - score.score_b) * (1 if reward.target_of(row.judgements) > 0.5 else -1)
        if score.score_a is not None
        else 0.0
        for row, score in zip(rows, scored, strict=True)
    ]
    found = {
        "ids": [row.pair.id for row in rows],
        "groups": [row.pair.group for row in rows],
        "margins": margins,
        "seconds": trained.metrics.get("train_seconds", trained.metrics.get("fit_seconds", wall)),
        "wall_seconds": wall,  # loading, states that were missing and publishing are in it
        "pairs_per_s": trained.metrics.get("pairs_per_s", 0.0),
        "settings": settings.model_dump(mode="json"),
    }
    folder.mkdir(exist_ok=True)
    file.write_text(json.dumps(found), "utf-8")
    return found


def together(members: Sequence[Held]) -> Held:
    """The mean of the members' scores."""
    assert all(member.ids == members[0].ids for member in members)
    margins = np.mean([member.margins_N for member in members], axis=0)
    first = members[0]
    return Held(first.ids, margins, first.groups, first.fold_N, sum(member.seconds for member in members), 0.0)


def row_of(held: Held, first: Held | None) -> dict[str, Any]:
    from rlhf.measures import intervals, ranking
    from rlhf.measures.temperature import temperature

    losses, hits = ranking.log_losses(held.margins_N), ranking.hits(held.margins_N)
    cooled = held.margins_N.copy()
    for fold in np.unique(held.fold_N) if len(np.unique(held.fold_N)) > 1 else ():
        others = held.margins_N[held.fold_N != fold]
        cooled[held.fold_N == fold] /= temperature(
            others, np.ones(len(others)), np.array(held.groups)[held.fold_N != fold]
        )
    share = intervals.share(hits, groups_N=held.groups)
    row: dict[str, Any] = {
        "n": len(hits),
        "accuracy": round(float(hits.mean()), 4),
        "accuracy_interval": [round(share.low, 4), round(share.high, 4)],
        "log_loss": round(float(losses.mean()), 4),
        "calibrated": round(float(ranking.log_losses(cooled).mean()), 4),
        "calibration": {"before": trusted(held, held.margins_N), "after": trusted(held, cooled)},
        "train_seconds": round(held.seconds),
        "pairs_per_s": round(held.pairs_per_s, 2),
    }
    if first is not None and first is not held:
        for key, ours, theirs in (
            ("accuracy", hits, ranking.hits(first.margins_N)),
            ("log_loss", losses, ranking.log_losses(first.margins_N)),
        ):
            off = intervals.bootstrap(ours - theirs, groups_N=held.groups)
            row[f"{key}_over_first"] = [round(value, 4) for value in (float((ours - theirs).mean()), off.low, off.high)]
    return row


def trusted(held: Held, margins_N: np.ndarray) -> dict[str, float]:
    """ECE with its interval, what a perfect scorer has, and the calibration test."""
    from rlhf.reward.trust import Votes, figures

    a_first = np.random.default_rng(0).random(len(margins_N)) < 0.5  # which reply is called a says nothing
    margins = np.where(a_first, margins_N, -margins_N)
    found = figures(Votes(margins, a_first.astype(float), np.array(held.groups)), margins)
    said = {key: found[key] for key in ("ece", "ece_low", "ece_high", "calibration_p")}
    return {
        key: round(float(value), 4)
        for key, value in {**said, "ece_if_perfect": found["ece_if_perfect"]["mean"]}.items()
    }


def line_of(name: str, row: Mapping[str, Any]) -> str:
    low, high = row["accuracy_interval"]
    text = f"{name:<24} accuracy {row['accuracy']:.4f} [{low:.3f}, {high:.3f}]  log-loss {row['log_loss']:.4f}"
    text += f" (calibrated {row['calibrated']:.4f})  {row['train_seconds']:>5} s  {row['pairs_per_s']:.2f} pairs/s"
    for key in ("accuracy", "log_loss"):
        if f"{key}_over_first" in row:
            mean, low, high = row[f"{key}_over_first"]
            text += f"  {key} {mean:+.4f} [{low:+.4f}, {high:+.4f}]"
    return text


if __name__ == "__main__":
    main()
