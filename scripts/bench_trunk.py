"""Reward training through the frozen trunk's kept states against TRL's own path, in one run.

    .venv/bin/python scripts/bench_trunk.py             SmolLM2-135M, HH pairs from ../shared/data where it is there

Ours trains a LoRA on the top layers twice over the same pairs: the first pass computes the states below them and keeps them, the
second only reads. TRL's `RewardTrainer` trains a LoRA on all layers as it does, and on the same top layers; each at its best
type. Every side runs in a process of its own; first steps warm up and aren't counted. Last line: one JSON object; ratio is
ours from the second pass on against TRL at full depth.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bench_reward

from rlhf.cli.boundary import quiet_libraries

STEP = bench_reward.STEP


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="counted steps of 8 pairs of ours")
    parser.add_argument("--peer-steps", type=int, default=2, help="counted steps of 8 pairs of TRL's")
    parser.add_argument("--top-layers", type=int, nargs="+", default=[10], help="depths to measure, first the main one")
    parser.add_argument("--base", type=Path, default=bench_reward.PROJECT / ".bases" / "smollm2-135m")
    parser.add_argument("--side", nargs=2, metavar=("DTYPE", "LAYERS"), help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.side:
        print(json.dumps(measured(words, words.side[0], int(words.side[1]))))
        return
    from rlhf.engine.placement import bfloat16_speedup

    types = ["float32", *(["bfloat16"] if bfloat16_speedup() >= 1.3 else [])]
    ours = {top: [child(words, dtype, top) for dtype in types] for top in words.top_layers}
    full, same = (peers(words, types, top) for top in (0, words.top_layers[0]))
    best = {top: max(found, key=lambda r: r["later_pairs_per_s"]) for top, found in ours.items()}
    main_one = best[words.top_layers[0]]
    print(
        json.dumps(
            {
                "name": "trunk",
                "ours": main_one["later_pairs_per_s"],
                "peer": full["pairs_per_s"],
                "ratio": round(main_one["later_pairs_per_s"] / full["pairs_per_s"], 2),
                "unit": "pairs/s",
                "top_layers": words.top_layers[0],
                "first_pass": main_one["first_pairs_per_s"],
                "peer_same_depth": same["pairs_per_s"],
                "ratio_same_depth": round(main_one["later_pairs_per_s"] / same["pairs_per_s"], 2),
                "ours_dtype": main_one["dtype"],
                "peer_dtype": full["dtype"],
                "ours_peak_gib": main_one["peak_gib"],
                "peer_peak_gib": full["peak_gib"],
                "state_error": main_one["state_error"],
                "by_depth": {str(top): result for top, result in best.items()},
            }
        )
    )


def peers(words: argparse.Namespace, types: list[str], top: int) -> dict[str, Any]:
    """TRL's best type at that depth."""
    sides = [dtype for dtype in ("float32", "bfloat16", "autocast") if dtype == "float32" or "bfloat16" in types]
    plan = argparse.Namespace(steps=words.peer_steps, top_layers=top, base=words.base)
    found = [bench_reward.child(plan, "trl", dtype) for dtype in sides]
    for result in found:
        print(f"trl   top {top:>2} {result['dtype']:<9} {result['pairs_per_s']:.3f} pairs/s", file=sys.stderr)
    return max(found, key=lambda r: r["pairs_per_s"])


def child(words: argparse.Namespace, dtype: str, top: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--steps", str(words.steps), "--base", str(words.base)]
    out = subprocess.run([*command, "--side", dtype, str(top)], capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"ours {dtype} top {top} failed:\n{out.stderr[-2000:]}")
    result = json.loads(out.stdout.strip().splitlines()[-1])
    print(
        f"ours  top {top:>2} {dtype:<9} first pass {result['first_pairs_per_s']:.3f}, later {result['later_pairs_per_s']:.3f} "
        f"pairs/s  peak {result['peak_gib']:.2f} GiB",
        file=sys.stderr,
    )
    return result


def measured(words: argparse.Namespace, dtype: str, top: int) -> dict[str, Any]:
    """Pairs/s of the first pass (states computed and kept, then trained on) and of later ones (states read)."""
    import resource

    from transformers import PrinterCallback, TrainerCallback

    from rlhf.engine.trunk import trunk_below
    from rlhf.reward.trainer import PackedRewardTrainer
    from rlhf.store.cache import Cache

    plan = argparse.Namespace(steps=words.steps, top_layers=top, base=words.base)
    base, rows = bench_reward.material(plan)
    model = bench_reward.model_of(plan, base, dtype)
    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seconds.append(time.perf_counter() - self.start)

    with tempfile.TemporaryDirectory() as folder:
        trunk, why = trunk_below(model, top, base, Cache(Path(folder) / "states", 2**34), rows[:4])
        if trunk is None:
            sys.exit(why)
        counted = rows[STEP:]
        start = time.perf_counter()
        trunk.fill(counted)
        filling = time.perf_counter() - start
        trainer = PackedRewardTrainer(
            model=model,
            args=bench_reward.arguments(plan, folder, bf16=False),
            rows=rows,
            pairs_per_step=STEP,
            token_budget=4096,
            processing_class=base.tokenizer(),
            callbacks=[Clock()],
            trunk=trunk,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    training = sum(seconds[1:])
    return {
        "dtype": dtype,
        "top_layers": top,
        "first_pairs_per_s": round(len(counted) / (filling + training), 3),
        "later_pairs_per_s": round(len(counted) / training, 3),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "state_error": float(f"{trunk.error:.1e}"),
    }


if __name__ == "__main__":
    main()
