"""A policy's training step: stock TRL with a reward model of its own against ours on one base, in one run.

    .venv/bin/python scripts/bench_policy.py                 SmolLM2-135M, GRPO and RLOO, 16 replies of 40 tokens a step

Same prompts, same base, same LoRA on all layers, same reward adapter, beta and optimiser. Each side, method and type runs in a
process of its own, so that peak memory is its own; the first step warms up and isn't counted. TRL's side is its trainer as it
stands: a policy with its LoRA, and the reward as a second model with its adapter, each in
float32 and in bfloat16; its best type counts. Ours is the run that `rlhf policy train` does, which measures the KL to the
reference besides and keeps every reply. Peak memory is resident memory of the process before anything is published.
Last line: one JSON object; ratio = TRL's seconds a step over ours.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from rlhf.cli.boundary import quiet_libraries

PROJECT = Path(__file__).parent.parent
PROMPTS, SAMPLES = 4, 4  # a step: 16 replies
BETA, LEARNING_RATE = 0.04, 1e-5


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4, help="counted steps")
    parser.add_argument("--tokens", type=int, default=40, help="tokens that a reply may have")
    parser.add_argument("--methods", nargs="+", default=["grpo", "rloo"], choices=["grpo", "rloo"])
    parser.add_argument("--base", type=Path, default=PROJECT / ".bases" / "smollm2-135m")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--side", nargs=3, metavar=("SIDE", "METHOD", "DTYPE"), help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.side:
        side, method, dtype = words.side
        print(json.dumps((ours if side == "ours" else stock)(words, method, dtype)))
        return
    with tempfile.TemporaryDirectory() as folder:
        words.folder = Path(folder)
        prepare(words, words.folder)
        report(words)


def report(words: argparse.Namespace) -> None:
    from rlhf.engine.placement import bfloat16_speedup

    types = ["float32", "bfloat16"] if bfloat16_speedup() >= 1.3 else ["float32"]
    found: list[dict[str, Any]] = []
    for method in words.methods:
        for side in ("trl", "ours"):
            for dtype in types:
                result = {"side": side, "method": method, "dtype": dtype, **child(words, side, method, dtype)}
                print(
                    f"{method} {side:<5} {dtype:<9} {result['step_s']:.2f} s a step  peak {result['peak_gib']:.2f} GiB",
                    file=sys.stderr,
                    flush=True,
                )
                found.append(result)
    best = {
        (side, method): min((r for r in found if (r["side"], r["method"]) == (side, method)), key=lambda r: r["step_s"])
        for side in ("trl", "ours")
        for method in words.methods
    }
    first = words.methods[0]
    one, other = best["ours", first], best["trl", first]
    print(
        json.dumps(
            {
                "name": "policy_training",
                "ours": one["step_s"],
                "peer": other["step_s"],
                "ratio": round(other["step_s"] / one["step_s"], 2),
                "unit": "s/step",
                "method": first,
                "ours_dtype": one["dtype"],
                "peer_dtype": other["dtype"],
                "ours_peak_gib": one["peak_gib"],
                "peer_peak_gib": other["peak_gib"],
                "memory_ratio": round(one["peak_gib"] / other["peak_gib"], 3),
                "same_type": {
                    f"{method} {dtype}": same_type(found, method, dtype) for method in words.methods for dtype in types
                },
                "replies_per_step": PROMPTS * SAMPLES,
                "steps": words.steps,
                "all": found,
            }
        )
    )


def same_type(found: list[dict[str, Any]], method: str, dtype: str) -> dict[str, float]:
    """Ratios where both sides have the type: TRL's time over ours, our memory over TRL's."""
    trl, own = (
        next(r for r in found if (r["side"], r["method"], r["dtype"]) == (side, method, dtype))
        for side in ("trl", "ours")
    )
    return {
        "time_ratio": round(trl["step_s"] / own["step_s"], 2),
        "memory_ratio": round(own["peak_gib"] / trl["peak_gib"], 3),
    }


def child(words: argparse.Namespace, side: str, method: str, dtype: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--steps", str(words.steps), "--tokens", str(words.tokens)]
    command += ["--base", str(words.base), "--folder", str(words.folder), "--side", side, method, dtype]
    out = subprocess.run(command, capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"{side} {method} {dtype} failed:\n{out.stderr[-2000:]}")
    return json.loads(out.stdout.strip().splitlines()[-1])


def prepare(words: argparse.Namespace, folder: Path) -> None:
    """A workspace with the base, the demo's prompts and a reward version of two steps, and that reward as a stock PEFT folder."""
    from rlhf import demo, loop, reward

    workspace = loop.Workspace.create(folder / "workspace", actor="bench")
    loop.engine.add_from_dir(workspace, "base", words.base)
    demo.write_preferences(folder / "preferences.jsonl", n_pairs=200)
    loop.feedback.import_files(workspace, [folder / "preferences.jsonl"], source="demo", kind="simulated")
    loop.snapshots.cut(workspace, "demo", holdout=0.1)
    settings = reward.RewardSettings(
        name="bench", snapshot="demo", base="base", max_steps=2, pairs_per_step=4, test_pairs=0, baseline=False
    )
    trained = reward.train(workspace, settings)
    loop.export(workspace, trained.version, folder / "reward")
    workspace.close()


def summary(seconds: list[float], peak: float) -> dict[str, Any]:
    """The first step warms up."""
    steps = [round(s, 2) for s in seconds]
    return {"step_s": round(statistics.median(seconds[1:]), 2), "peak_gib": round(peak, 2), "steps_s": steps}


def ours(words: argparse.Namespace, method: str, dtype: str) -> dict[str, Any]:
    """`policy.train` as it is, without the watch, which TRL has not."""
    from rlhf import policy
    from rlhf.store import Workspace

    settings = policy.PolicySettings(
        name=f"{method}-{dtype}",
        reward=["bench@1"],
        base="base",
        method=method,
        dtype=dtype,
        max_steps=words.steps + 1,
        pairs_per_step=PROMPTS,
        samples=SAMPLES,
        max_new_tokens=words.tokens,
        beta=BETA,
        learning_rate=LEARNING_RATE,
        watch_steps=0,
        save_steps=1000,
    )
    trained = policy.train(Workspace.open(words.folder / "workspace"), settings)
    lines = (trained.run_folder / "metrics.jsonl").read_text("utf-8").splitlines()
    ends = [0.0, *(json.loads(line)["seconds"] for line in lines)]
    return summary([b - a for a, b in pairwise(ends)], trained.metrics["peak_memory_gib"])


def stock(words: argparse.Namespace, method: str, dtype: str) -> dict[str, Any]:
    """TRL's trainer with a reward model of its own, both as PEFT gives them."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, PeftModel
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        PrinterCallback,
        TrainerCallback,
    )
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    from rlhf import policy
    from rlhf.engine.rewards import linear_names
    from rlhf.store import Workspace

    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(words.base, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(words.base, dtype=kind)
    shape = LoraConfig(r=16, lora_alpha=32, target_modules=linear_names(model), task_type="CAUSAL_LM")
    scorer = AutoModelForSequenceClassification.from_pretrained(words.base, num_labels=1, dtype=kind)
    scorer = PeftModel.from_pretrained(scorer, str(words.folder / "reward")).eval()
    scorer_tokenizer = AutoTokenizer.from_pretrained(words.folder / "reward")
    scorer.config.pad_token_id = scorer_tokenizer.pad_token_id
    scorer.config._name_or_path = "reward"
    trainer_kind, config = (GRPOTrainer, GRPOConfig) if method == "grpo" else (RLOOTrainer, RLOOConfig)
    args = config(
        output_dir=str(words.folder / f"trl-{method}-{dtype}"),
        max_steps=words.steps + 1,
        per_device_train_batch_size=PROMPTS * SAMPLES,
        num_generations=SAMPLES,
        max_completion_length=words.tokens,
        beta=BETA,
        learning_rate=LEARNING_RATE,
        bf16=dtype == "bfloat16",
        gradient_checkpointing=False,
        use_cpu=True,
        seed=0,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
    )
    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seconds.append(time.perf_counter() - self.began)

    snapshot_prompts = policy.prompts_of(Workspace.open(words.folder / "workspace"), "demo")
    rows = [{"prompt": [m.as_json() for m in prompt.messages]} for prompt in snapshot_prompts]
    trainer = trainer_kind(
        model=model,
        args=args,
        reward_funcs=[scorer],
        reward_processing_classes=[scorer_tokenizer],
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=shape,
        callbacks=[Clock()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return summary(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


if __name__ == "__main__":
    main()
