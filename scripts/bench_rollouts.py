"""GRPO with its replies from the engine against TRL's own generation, step by step in turn, in one run.

    .venv/bin/python scripts/bench_rollouts.py           SmolLM2-135M, 8 prompts x 4 replies of at most 64 tokens a step

Two trainers, each in a process of its own, take every second step with replies from the engine and every other with TRL's
generation: the one that `rlhf policy train` runs, and stock TRL with a reward that costs nothing. So both ways see the same
machine, prompts, adapter and settings, in the type that is faster here. The first step of each way isn't counted. Every way has
its seconds a step, those of them in the generation, and the processor seconds, which other work on the machine disturbs less.
Last line: one JSON object; ours and peer are the trainer of `rlhf policy train` with the engine and with TRL's generation, ratio
the median of the ratios of neighbouring steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bench_policy
from transformers import TrainerCallback

from rlhf.cli.boundary import quiet_libraries

WAYS = ("trl", "engine")


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="counted steps of each way")
    parser.add_argument("--prompts", type=int, default=8, help="prompts a step")
    parser.add_argument("--samples", type=int, default=4, help="replies to a prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens that a reply may have")
    parser.add_argument("--base", type=Path, default=bench_policy.PROJECT / ".bases" / "smollm2-135m")
    parser.add_argument("--trainers", nargs="+", default=["ours", "stock"], choices=["ours", "stock"])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--side", nargs=2, metavar=("TRAINER", "DTYPE"), help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.side:
        trainer, dtype = words.side
        print(json.dumps((ours if trainer == "ours" else stock)(words, dtype)))
        return
    from rlhf.engine.placement import bfloat16_speedup

    dtype = "bfloat16" if bfloat16_speedup() >= 1.3 else "float32"
    with tempfile.TemporaryDirectory() as folder:
        words.folder = Path(folder)
        bench_policy.prepare(words, words.folder)
        report(words, dtype, {trainer: child(words, trainer, dtype) for trainer in words.trainers})


def report(words: argparse.Namespace, dtype: str, found: dict[str, dict[str, Any]]) -> None:
    for trainer, ways in found.items():
        for way in WAYS:
            print(trainer, way, ways[way], file=sys.stderr)
    first = found[words.trainers[0]]
    print(
        json.dumps(
            {
                "name": "rollouts",
                "ours": first["engine"]["step_s"],
                "peer": first["trl"]["step_s"],
                "ratio": first["ratio"],
                "unit": "s/step",
                "dtype": dtype,
                "prompts": words.prompts,
                "samples": words.samples,
                "tokens": words.tokens,
                "steps": words.steps,
                "trainers": found,
            }
        )
    )


def child(words: argparse.Namespace, trainer: str, dtype: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--base", str(words.base), "--folder", str(words.folder)]
    for name in ("steps", "prompts", "samples", "tokens"):
        command += [f"--{name}", str(getattr(words, name))]
    out = subprocess.run([*command, "--side", trainer, dtype], capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"{trainer} failed:\n{out.stderr[-2000:]}")
    return json.loads(out.stdout.strip().splitlines()[-1])


class Turns(TrainerCallback):
    """Has TRL and the engine draw in turn, and keeps (wall, processor, generation) seconds of every step."""

    def __init__(self, trainer: Any, engine: Any) -> None:
        self.trainer, self.engine = trainer, engine
        self.steps: list[tuple[float, float, float]] = []
        generate = trainer._generate_single_turn

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            found = generate(*args, **kwargs)
            self.generation += time.perf_counter() - start
            return found

        trainer._generate_single_turn = timed

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.draw_from(self.engine if state.global_step % 2 else None)
        self.generation, self.began = 0.0, (time.perf_counter(), time.process_time())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        wall, cpu = time.perf_counter() - self.began[0], time.process_time() - self.began[1]
        self.steps.append((wall, cpu, self.generation))

    def summary(self) -> dict[str, Any]:
        """Of each way, and the ratios of neighbours; the first two steps warm up."""
        ways = {way: self.steps[2 + i :: 2] for i, way in enumerate(WAYS)}
        found: dict[str, Any] = {}
        for way, steps in ways.items():
            wall, cpu, generation = (statistics.median(column) for column in zip(*steps, strict=True))
            found[way] = {
                "step_s": round(wall, 2),
                "generation_s": round(generation, 2),
                "rest_s": round(wall - generation, 2),
                "cpu_s": round(cpu, 2),
                "steps_s": [round(step[0], 2) for step in steps],
            }
        pairs = list(zip(ways["trl"], ways["engine"], strict=True))
        for name, column in (("ratio", 0), ("ratio_cpu", 1), ("ratio_generation", 2)):
            found[name] = round(statistics.median(one[column] / other[column] for one, other in pairs), 2)
        return found


def trained(trainer: Any, engine: Any) -> dict[str, Any]:
    turns = Turns(trainer, engine)
    trainer.add_callback(turns)
    trainer.train()
    return turns.summary()


def ours(words: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """The trainer of `rlhf policy train`: reward, reference and policy on one base, the KL measured at every step."""
    from accelerate import PartialState

    from rlhf import policy
    from rlhf.policy.material import open_material
    from rlhf.policy.methods import rollout_trainer
    from rlhf.policy.setup import freeze_others, set_up
    from rlhf.store import Workspace

    PartialState(cpu=True)
    steps = 2 * words.steps + 2
    settings = policy.PolicySettings(
        name="bench",
        reward=["bench@1"],
        base="base",
        method="grpo",
        dtype=dtype,
        device="cpu",
        rollouts="engine",
        max_steps=steps,
        pairs_per_step=words.prompts,
        samples=words.samples,
        max_new_tokens=words.tokens,
        token_budget=8192,
        beta=bench_policy.BETA,
        learning_rate=bench_policy.LEARNING_RATE,
        watch_steps=0,
    )
    workspace = Workspace.open(words.folder / "workspace")
    material = open_material(workspace, settings, 1, lambda _text: None)
    folder = words.folder / "run"
    folder.mkdir()
    setup = set_up(workspace, material, folder)
    trainer: Any = rollout_trainer(material, setup, steps, folder)
    freeze_others(setup.model)
    return trained(trainer, trainer._engine)


def stock(words: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """TRL's GRPOTrainer with a LoRA as PEFT makes it; only where its replies come from changes."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    from rlhf import policy
    from rlhf.engine.on_policy import OnPolicy
    from rlhf.engine.rewards import linear_names
    from rlhf.policy.drawn_by_engine import DrawnByEngine
    from rlhf.store import Workspace

    class Trainer(DrawnByEngine, GRPOTrainer):
        """Stock, but for who draws."""

    model = AutoModelForCausalLM.from_pretrained(words.base, dtype=getattr(torch, dtype))
    args = GRPOConfig(
        output_dir=str(words.folder / "stock"),
        max_steps=2 * words.steps + 2,
        per_device_train_batch_size=words.prompts * words.samples,
        num_generations=words.samples,
        max_completion_length=words.tokens,
        beta=bench_policy.BETA,
        learning_rate=bench_policy.LEARNING_RATE,
        bf16=dtype == "bfloat16",
        gradient_checkpointing=False,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    prompts = policy.prompts_of(Workspace.open(words.folder / "workspace"), "demo")
    trainer = Trainer(
        model=model,
        args=args,
        reward_funcs=[lambda completion_ids, **_: [float(len(set(ids))) for ids in completion_ids]],
        train_dataset=Dataset.from_list([{"prompt": [m.as_json() for m in one.messages]} for one in prompts]),
        processing_class=AutoTokenizer.from_pretrained(words.base, padding_side="left"),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=linear_names(model), task_type="CAUSAL_LM"),
    )
    trainer.remove_callback(PrinterCallback)
    return trained(trainer, OnPolicy(trainer.accelerator.unwrap_model(trainer.model)))


if __name__ == "__main__":
    main()
