"""Evaluation speed: `evaluate` on a suite against the plain way, transformers' pipeline on the export, batch 8, padded, in one run.

    .venv/bin/python scripts/bench_evaluate.py            SmolLM2-135M, a suite of HH pairs from ../shared/data where they are there

A reward with a drawn LoRA on all layers and a drawn head is published and exported to stock PEFT. Ours is what `rlhf evaluate`
spends on scores: opening the version, rendering, tokens, packed forwards, keeping each chunk. The pipeline gets the rendered texts
and its open model for nothing; it runs in float32 and in bfloat16, merged, and its faster type counts, as ours does. The two take
turns. `evaluate_s` is the whole command with figures and page, `again_s` the same once more, when every score is kept. In float32
the scores must be equal. `dashboard_s`: seconds until the dashboard has its figures over --replies replies (`bench_dashboard.py`).
Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench_dashboard
from bench_score import DTYPES, PROJECT, SAME, Pipeline, clocked, off, pairs_of, published

from rlhf.cli.boundary import quiet_libraries

BATCH = 8


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100, help="rows of the suite, drawn evenly over the data")
    parser.add_argument("--repeats", type=int, default=3, help="turns that each side takes; the median counts")
    parser.add_argument("--base", type=Path, default=PROJECT / ".bases" / "smollm2-135m")
    parser.add_argument("--replies", type=int, default=1_000_000, help="that the dashboard is over")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dashboard = bench_dashboard.measured(Path(folder), words.replies)
        scored = Path(folder) / "scored"
        scored.mkdir()
        print(json.dumps(compared(words, scored) | {"dashboard_s": dashboard["dashboard_s"]}))


def compared(words: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from rlhf.engine.placement import bfloat16_speedup
    from rlhf.evaluation import evaluate
    from rlhf.reward import score_pairs
    from rlhf.reward.kept import FOLDER
    from rlhf.suites import open_suite

    workspace, version = published(words, folder)
    suite_of(workspace, folder, words.pairs)
    rows = [row.pair for row in open_suite(workspace, "bench").pairs()]
    texts = items_of(rows)
    dtypes = DTYPES if bfloat16_speedup() >= 1.3 else DTYPES[:1]
    peers = {dtype: Pipeline(workspace, version, folder, dtype, 1) for dtype in dtypes}

    def ours(dtype: str) -> Any:
        shutil.rmtree(workspace.root / FOLDER, ignore_errors=True)
        return score_pairs(workspace, version, rows, None, dtype)

    seconds: dict[tuple[str, str], list[float]] = {(side, d): [] for side in ("ours", "peer") for d in dtypes}
    exact: tuple[list[float], list[float]] = ([], [])
    for turn in range(words.repeats):
        for dtype in dtypes:
            mine, spent = clocked(lambda: ours(dtype))  # noqa: B023
            seconds["ours", dtype].append(spent)
            theirs, spent = clocked(lambda: peers[dtype](texts, BATCH))  # noqa: B023
            seconds["peer", dtype].append(spent)
            if dtype == "float32":
                exact = ([value for score in mine for value in (score.score_a, score.score_b)], theirs)
        said = {f"{side} {d}": round(len(rows) / all_[-1], 2) for (side, d), all_ in seconds.items()}
        print(f"turn {turn + 1}: pairs/s {said}", file=sys.stderr)
    assert off(*exact) <= SAME, f"scores differ by {off(*exact)}"
    best = {side: min(dtypes, key=lambda d: statistics.median(seconds[side, d])) for side in ("ours", "peer")}
    turns = zip(seconds["ours", best["ours"]], seconds["peer", best["peer"]], strict=True)
    shutil.rmtree(workspace.root / FOLDER, ignore_errors=True)
    _, whole = clocked(lambda: evaluate(workspace, [version], suite="bench", dtype=best["ours"]))
    _, again = clocked(lambda: evaluate(workspace, [version], suite="bench", dtype=best["ours"]))
    workspace.close()

    def rate(side: str, dtype: str) -> float:
        return round(len(rows) / statistics.median(seconds[side, dtype]), 2)

    return {
        "name": "evaluate",
        "ours": rate("ours", best["ours"]),
        "peer": rate("peer", best["peer"]),
        "ratio": round(statistics.median(theirs / mine for mine, theirs in turns), 2),
        "unit": "pairs/s",
        "ours_dtype": best["ours"],
        "peer_dtype": best["peer"],
        "float32": {side: rate(side, "float32") for side in ("ours", "peer")},
        "score_difference": off(*exact),
        "pairs": len(rows),
        "evaluate_s": round(whole, 2),
        "again_s": round(again, 2),
    }


def suite_of(workspace: Any, folder: Path, n: int) -> None:
    """Pairs drawn evenly over the data as a suite: what a suite costs doesn't hang on who was right."""
    from rlhf.suites import import_files

    pairs = pairs_of()
    drawn = pairs[:: max(1, len(pairs) // n)][:n]
    lines = [
        {
            "prompt": [m.as_json() for m in p.prompt],
            "chosen": messages(p, p.reply_a),
            "rejected": messages(p, p.reply_b),
        }
        for p in drawn
    ]
    file = folder / "suite.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    import_files(workspace, "bench", [file], format="jsonl")


def messages(pair: Any, reply: str) -> list[dict[str, str]]:
    return [*(m.as_json() for m in pair.prompt), {"role": "assistant", "content": reply}]


def items_of(pairs: list[Any]) -> list[Any]:
    from rlhf.reward.score import Item

    return [Item(pair.id, pair.prompt, reply) for pair in pairs for reply in (pair.reply_a, pair.reply_b)]


if __name__ == "__main__":
    main()
