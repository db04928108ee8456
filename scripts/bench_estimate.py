"""Is `rlhf doctor --estimate` right? Estimate a dpo training of SmolLM2-135M-Instruct, run it, compare the peaks.

    .venv/bin/python scripts/bench_estimate.py [--base .bases/smollm2-135m] [--dtype float32] [key=value …]

A reward of one step and some steps of dpo on made-up pairs that fill `max_length` and `token_budget`, the second in a process of
its own, whose peak resident memory is what the kernel says of it (about a minute on one core). The last line is one JSON object:
estimated and measured GiB and their ratio (above 1 = the estimate is too high).

Measured on Linux, one core of an x86 with AVX512-BF16, 23.5 GiB: 1.00 as it stands, which `HEAP_KEEPS` was read from; and, which
it was not: 1.08 with --dtype bfloat16; 1.00 with top_layers=10 token_budget=512 pairs_per_step=1; 0.86 with
gradient_checkpointing=true token_budget=512 pairs_per_step=1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from rlhf.cli.boundary import quiet_libraries

PROJECT = Path(__file__).parent.parent
WORDS = [
    "the",
    "a",
    "red",
    "blue",
    "small",
    "old",
    "river",
    "stone",
    "light",
    "over",
    "then",
    "and",
    "with",
    "tree",
    "bird",
]
PAIRS = {"max_length": 256, "token_budget": 1024, "pairs_per_step": 2, "max_steps": 2, "max_new_tokens": 16}


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=PROJECT / ".bases" / "smollm2-135m")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("settings", nargs="*", help="settings of the policy training, as key=value")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        settings = {**PAIRS, "method": "dpo", "pairs": "human", "watch_steps": 0, "device": "cpu", "dtype": words.dtype}
        given = [*(f"{key}={value}" for key, value in settings.items()), *words.settings]
        common = ["--workspace", str(root / "ws"), "--json"]
        reward = prepared(root, words.base, settings)
        about = ["reward=" + reward, "base=base", *given]
        called = call("doctor", "--estimate", str(written(root / "policy.yaml")), *about, *common)[0]
        report, peak_gib = call("policy", "train", "policy", *about, *common)
    estimated = called["gib"]["host"]
    print(f"published {report['version']} after {report['metrics']['steps']} steps", file=sys.stderr)
    row = {"name": "estimate", "ours": round(estimated, 3), "peer": round(peak_gib, 3), "unit": "GiB"}
    print(
        json.dumps({**row, "ratio": round(estimated / peak_gib, 3), "what": f"dpo, {words.dtype}, peak of the process"})
    )


def prepared(root: Path, base: Path, settings: dict[str, object]) -> str:
    """A workspace with the base, pairs of full length, and a reward of one step. Returns the reward's name."""
    from rlhf import engine, feedback, reward, snapshots
    from rlhf.store import Workspace

    workspace = Workspace.create(root / "ws")
    engine.add_from_dir(workspace, "base", base)
    feedback.import_files(workspace, [write_pairs(root / "pairs.jsonl", int(str(settings["max_length"])))])
    snapshots.cut(workspace, "pairs", holdout=0.0)
    quick = {
        "baseline": False,
        "max_steps": 1,
        "pairs_per_step": 1,
        "top_layers": 1,
        "test_pairs": 0,
        "dtype": "float32",
        "device": "cpu",
    }
    chosen = reward.RewardSettings(name="reward", snapshot="pairs", base="base", **quick)
    version = reward.train(workspace, chosen).version
    workspace.close()
    return str(version)


def write_pairs(file: Path, max_length: int, n: int = 16) -> Path:
    """TRL rows whose prompt and reply come to a little under max_length tokens: a word is one, the template has 45."""
    chance = random.Random(0)
    half = (max_length - 45) // 2
    text = lambda: " ".join(chance.choice(WORDS) for _ in range(half))  # noqa: E731
    rows = [{"prompt": text(), "chosen": text(), "rejected": text()} for _ in range(n)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def written(file: Path) -> Path:
    file.write_text("method: dpo\n", "utf-8")
    return file


def call(*words: str) -> tuple[dict, float]:
    """One command's answer and its process's peak of resident memory in GiB."""
    command = [sys.executable, "-m", "rlhf.cli", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{out}")
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return json.loads(out.splitlines()[-1]), used.ru_maxrss * unit / 2**30


if __name__ == "__main__":
    main()
