"""Reward training speed: TRL's own path at its best dtype against ours, in one run.

    .venv/bin/python scripts/bench_reward.py            SmolLM2-135M, HH pairs from ../shared/data where it is there

Same pairs in the same order, same base, same LoRA on all layers, same optimiser, steps of 8 pairs. Each side and dtype runs in
a process of its own, so that peak memory is its own; the first step warms up and isn't counted. TRL's side is its
`RewardTrainer` as it stands, without gradient checkpointing (slower) and with bfloat16 both ways it can have it. The limit is
what a matrix multiply measured in the same run would allow. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rlhf.cli.boundary import quiet_libraries

PROJECT = Path(__file__).parent.parent
STEP = 8
SIDES = (("trl", "float32"), ("trl", "bfloat16"), ("trl", "autocast"), ("ours", "float32"), ("ours", "bfloat16"))


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="counted steps of 8 pairs")
    parser.add_argument(
        "--top-layers", type=int, default=0, help="layers from the top with a LoRA, both sides; 0 = all"
    )
    parser.add_argument("--base", type=Path, default=PROJECT / ".bases" / "smollm2-135m")
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "DTYPE"), help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.side:
        print(json.dumps(gradients(words) if words.side[0] == "gradients" else measured(words)))
        return
    from rlhf.engine.placement import bfloat16_speedup

    speedup = bfloat16_speedup()
    found: dict[str, list[dict[str, Any]]] = {"trl": [], "ours": []}
    for side, dtype in SIDES:
        if dtype != "float32" and speedup < 1.3:
            print(f"{side} {dtype}: left out, bfloat16 is {speedup:.1f} times as fast as float32 here", file=sys.stderr)
            continue
        result = child(words, side, dtype)
        print(
            f"{side:<5} {dtype:<9} {result['pairs_per_s']:.3f} pairs/s  peak {result['peak_gib']:.2f} GiB",
            file=sys.stderr,
        )
        found[side].append(result)
    best = {side: max(results, key=lambda r: r["pairs_per_s"]) for side, results in found.items()}
    exact = child(words, "gradients", "float32")
    limit = pairs_limit(words, best["ours"])
    print(
        json.dumps(
            {
                "name": "reward_training",
                "ours": best["ours"]["pairs_per_s"],
                "peer": best["trl"]["pairs_per_s"],
                "ratio": round(best["ours"]["pairs_per_s"] / best["trl"]["pairs_per_s"], 2),
                "unit": "pairs/s",
                "ours_dtype": best["ours"]["dtype"],
                "peer_dtype": best["trl"]["dtype"],
                "ours_peak_gib": best["ours"]["peak_gib"],
                "peer_peak_gib": best["trl"]["peak_gib"],
                "memory_ratio": round(best["ours"]["peak_gib"] / best["trl"]["peak_gib"], 3),
                "gradient_difference": exact["gradient_difference"],
                "loss_difference": exact["loss_difference"],
                "limit": limit,
                "of_limit": round(best["ours"]["pairs_per_s"] / limit, 2),
                "pairs": words.steps * STEP,
                "top_layers": words.top_layers,
                "all": found,
            }
        )
    )


def child(words: argparse.Namespace, side: str, dtype: str) -> dict[str, Any]:
    command = [
        sys.executable,
        __file__,
        "--steps",
        str(words.steps),
        "--top-layers",
        str(words.top_layers),
        "--base",
        str(words.base),
        "--side",
        side,
        dtype,
    ]
    out = subprocess.run(command, capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"{side} {dtype} failed:\n{out.stderr[-2000:]}")
    return json.loads(out.stdout.strip().splitlines()[-1])


def material(words: argparse.Namespace) -> tuple[Any, list[Any]]:
    """The base and the pairs as training rows: (steps + 1) * 8 of them, drawn evenly over the data."""
    from rlhf import demo, feedback
    from rlhf.engine.bases import Base
    from rlhf.engine.rendering import Renderer
    from rlhf.records import Judgement, SnapshotRow
    from rlhf.reward.rows import training_rows
    from rlhf.store import Workspace

    base = Base("base", "0" * 64, words.base, "", "", {}, {})
    hh = PROJECT.parent / "shared" / "data" / "hh_harmless.jsonl.gz"
    if hh.exists():
        with tempfile.TemporaryDirectory() as folder:
            workspace = Workspace.create(Path(folder) / "w")
            feedback.import_files(workspace, [hh])
            with workspace.read() as connection:
                rows = [
                    SnapshotRow(pair, judgements, "train", sources, pair.id)
                    for pair, judgements, sources in feedback.read_pairs(connection)
                ]
            workspace.close()
    else:
        rows = [SnapshotRow(p, (Judgement(p.id, "a", "demo"),), "train", ("demo",), p.id) for p in demo.demo_pairs()]
    taken, _ = training_rows(rows, Renderer(base.tokenizer(), 1024), "majority", 0.0)
    wanted = (words.steps + 1) * STEP
    return base, taken[:: max(1, len(taken) // wanted)][:wanted]


def arguments(words: argparse.Namespace, folder: str, **more: Any) -> Any:
    from trl import RewardConfig

    return RewardConfig(
        output_dir=folder,
        max_steps=words.steps + 1,
        learning_rate=2e-4,
        per_device_train_batch_size=STEP,
        activation_checkpointing=False,
        use_cpu=True,
        center_rewards_coefficient=0.01,
        max_length=None,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        seed=0,
        train_sampling_strategy="sequential",
        **more,
    )


def model_of(words: argparse.Namespace, base: Any, dtype: str) -> Any:
    from rlhf.engine import rewards
    from rlhf.engine.placement import Placement

    place = Placement("cpu", "bfloat16" if dtype == "bfloat16" else "float32", "benchmark")
    return rewards.fresh(base, place, rewards.LoraShape(16, 32, 0.0, words.top_layers), seed=0)


def measured(words: argparse.Namespace) -> dict[str, Any]:
    """Pairs/s over the counted steps, and the process's peak memory."""
    from transformers import PrinterCallback, TrainerCallback

    side, dtype = words.side
    base, rows = material(words)

    class Clock(TrainerCallback):
        seconds: list[float] = []

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.seconds.append(time.perf_counter() - self.start)

    with tempfile.TemporaryDirectory() as folder:
        trainer = (trl_trainer if side == "trl" else our_trainer)(words, base, rows, folder, dtype, Clock())
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    seconds = sum(Clock.seconds[1:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    tokens = sum(row.n_tokens for row in rows[STEP:])
    return {
        "side": side,
        "dtype": dtype,
        "pairs_per_s": round(words.steps * STEP / seconds, 3),
        "peak_gib": round(peak, 2),
        "packed_tokens": tokens,
    }


def trl_trainer(words: argparse.Namespace, base: Any, rows: list[Any], folder: str, dtype: str, clock: Any) -> Any:
    """TRL as it stands: stock classification model, its collator, its forward, its loss."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, TaskType
    from transformers import AutoModelForSequenceClassification
    from trl import RewardTrainer

    from rlhf.engine.rewards import linear_names

    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    model = AutoModelForSequenceClassification.from_pretrained(words.base, num_labels=1, dtype=kind)
    n_layers = model.config.num_hidden_layers
    top = list(range(n_layers - words.top_layers, n_layers)) if words.top_layers else None
    lora = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=16,
        lora_alpha=32,
        target_modules=linear_names(model),
        modules_to_save=["score"],
        layers_to_transform=top,
    )
    columns = {
        "chosen_ids": [[*r.prefix, *r.chosen] for r in rows],
        "rejected_ids": [[*r.prefix, *r.rejected] for r in rows],
    }
    return RewardTrainer(
        model=model,
        args=arguments(words, folder, bf16=dtype == "autocast"),
        train_dataset=Dataset.from_dict(columns),
        processing_class=base.tokenizer(),
        peft_config=lora,
        callbacks=[clock] if clock else [],
    )


def our_trainer(words: argparse.Namespace, base: Any, rows: list[Any], folder: str, dtype: str, clock: Any) -> Any:
    from rlhf.reward.trainer import PackedRewardTrainer

    return PackedRewardTrainer(
        model=model_of(words, base, dtype),
        args=arguments(words, folder, bf16=False),
        rows=rows,
        pairs_per_step=STEP,
        token_budget=4096,
        processing_class=base.tokenizer(),
        callbacks=[clock] if clock else [],
    )


def gradients(words: argparse.Namespace) -> dict[str, Any]:
    """Largest relative difference of gradients, and of the loss, between our packed step and TRL's padded one, in float32."""
    import torch
    from trl.trainer.reward_trainer import DataCollatorForPreference

    base, rows = material(words)
    rows = sorted(rows, key=lambda row: row.n_tokens)[:4]
    with tempfile.TemporaryDirectory() as folder:
        trl_side = trl_trainer(words, base, rows, folder, "float32", None)
        collate = DataCollatorForPreference(pad_token_id=trl_side.processing_class.pad_token_id)
        theirs_model = trl_side.model
        ours = our_trainer(words, base, rows, folder, "float32", None)
        shared = dict(theirs_model.named_parameters())
        with torch.no_grad():
            for name, parameter in ours.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(len(name)))
                if parameter.requires_grad:
                    shared[name].copy_(parameter)
        batch = collate(
            [{"chosen_ids": [*r.prefix, *r.chosen], "rejected_ids": [*r.prefix, *r.rejected]} for r in rows]
        )
        theirs = trl_side.compute_loss(theirs_model, batch)
        theirs.backward()
        mine = ours.compute_loss(ours.model, rows) / len(rows)
        mine.backward()
    difference = max(
        ((p.grad - shared[n].grad).norm() / shared[n].grad.norm()).item()
        for n, p in ours.model.named_parameters()
        if p.grad is not None
    )
    return {
        "gradient_difference": float(f"{difference:.2e}"),
        "loss_difference": float(f"{abs(mine.item() - theirs.item()):.2e}"),
    }


def pairs_limit(words: argparse.Namespace, best: dict[str, Any]) -> float:
    """Pairs/s if every multiplication of the linear layers ran as a big matrix multiply does here, and nothing else took time.

    A frozen layer costs 2 operations a weight and token forward and 2 back (for the layers above a LoRA's lowest one).
    """
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(words.base)
    kind = torch.bfloat16 if best["dtype"] == "bfloat16" else torch.float32
    left, right = (
        torch.ones(4096, config.hidden_size, dtype=kind),
        torch.ones(config.hidden_size, config.intermediate_size, dtype=kind),
    )
    torch.mm(left, right)
    n_done, start = 0, time.perf_counter()
    while time.perf_counter() - start < 2:
        torch.mm(left, right)
        n_done += 1
    flops = n_done * 2 * 4096 * config.hidden_size * config.intermediate_size / (time.perf_counter() - start)
    kv = config.hidden_size * config.num_key_value_heads // config.num_attention_heads
    a_layer = (
        2 * config.hidden_size**2 + 2 * config.hidden_size * kv + 3 * config.hidden_size * config.intermediate_size
    )
    trained = words.top_layers or config.num_hidden_layers
    a_token = 2 * a_layer * (config.num_hidden_layers + trained)
    tokens_a_pair = best["packed_tokens"] / (words.steps * STEP)
    return round(flops / (a_token * tokens_a_pair), 3)


if __name__ == "__main__":
    main()
