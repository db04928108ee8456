"""Serving speed: our live engine against transformers' `generate` with PEFT's `adapter_names`, from one queue in one run.

    .venv/bin/python scripts/bench_serve.py             SmolLM2-135M, 8 versions, 8 rows at a time, 24 greedy replies

Versions are LoRAs of rank 16 on all linear layers, their weights drawn. Requests come from a queue, one version after the other,
and want replies of 16 to 48 tokens. The peer takes batches of 8 and generates to the longest wish of each; tokens count up to what
was wished. Ours takes a request in whenever a row is free. Each side runs in its faster type, tried on one batch. Beside it: the
same queue on one version; how long a version takes to become resident, its file in the page cache; and one stream on the bare base
beside what the memory's bandwidth, measured by summing a large tensor, allows for reading every weight once a token. `rollback`
is what scripts/bench_rollback.py says in its shorter form. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bench_rollback

from rlhf.cli.boundary import quiet_libraries

PROJECT = Path(__file__).parent.parent
N = 8
DTYPES = ("float32", "bfloat16")
ASKED = (
    "How do I keep basil alive on a windowsill?",
    "Explain to a child why the sky is blue.",
    "Write a short note that thanks a neighbour for watering the plants while I was away for two weeks in July.",
    "What should I pack for three days in the mountains?",
    "My sourdough doesn't rise. What are the three likeliest reasons, and what would you try first?",
)


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=24)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--base", type=Path, default=PROJECT / ".bases" / "smollm2-135m")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = compared(words, Path(folder))
        found["rollback"] = bench_rollback.measured(Path(folder) / "rollback", [1, 100], 60, 6, words.base)
        print(json.dumps(found))


def compared(words: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from rlhf import engine
    from rlhf.engine.placement import bfloat16_speedup
    from rlhf.store import Workspace

    workspace = Workspace.create(folder / "workspace", actor="benchmark")
    base = engine.add_from_dir(workspace, "base", words.base)
    workspace.close()
    versions = drawn_versions(base, folder, words.rank)
    queue = queue_of(base, words.requests)
    dtypes = DTYPES if bfloat16_speedup() >= 1.3 else DTYPES[:1]
    peers = {dtype: Peer(base, versions, dtype) for dtype in dtypes}
    tried = [(prompt, 8, i) for prompt, _, i in queue[:N]]
    peer_best = max(dtypes, key=lambda dtype: peers[dtype](tried))
    peer = peers[peer_best](queue)
    say(f"generate with adapter_names, {peer_best}: {peer:.1f} tokens/s")
    peers.clear()
    rates = {dtype: ours_on(base, versions, dtype, queue) for dtype in dtypes}
    best = max(dtypes, key=lambda dtype: rates[dtype]["mixed"])
    ours = rates[best]
    for dtype, found in rates.items():
        say(f"ours, {dtype}: " + ", ".join(f"{name} {value:.1f}" for name, value in found.items()))
    return {
        "name": "serving",
        "ours": round(ours["mixed"], 1),
        "peer": round(peer, 1),
        "ratio": round(ours["mixed"] / peer, 2),
        "unit": f"tokens/s at {N} rows over {N} versions",
        "ours_dtype": best,
        "peer_dtype": peer_best,
        "one_version": round(ours["one"], 1),
        "mixed_over_one": round(ours["mixed"] / ours["one"], 2),
        "cold_load_ms": round(ours["load_ms"], 1),
        "single_stream": round(ours["single"], 1),
        "single_stream_limit": round(ours["limit"], 1),
        "requests": words.requests,
        "rank": words.rank,
        "all": {dtype: {k: round(v, 2) for k, v in found.items()} for dtype, found in rates.items()},
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def drawn_versions(base: Any, folder: Path, rank: int) -> list[Path]:
    """Folders of policies whose LoRAs were drawn: they cost what trained ones cost."""
    import torch

    from rlhf.engine import policies
    from rlhf.engine.placement import Placement

    shape = policies.LoraShape(rank, 2 * rank, 0.0, 0)
    model = policies.fresh(base, Placement("cpu", "float32", "benchmark"), shape, seed=0)
    for i in range(N):
        chance = torch.Generator().manual_seed(i)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.01, generator=chance)
        model.save_pretrained(folder / f"v{i}")
    return [folder / f"v{i}" for i in range(N)]


def queue_of(base: Any, n: int) -> list[tuple[list[int], int, int]]:
    """(prompt, tokens wished, version) of each request."""
    from rlhf.engine import Renderer
    from rlhf.records import Message

    renderer, drawn = Renderer(base.tokenizer(), 2048), random.Random(0)
    prompts = [renderer.opening([Message("user", f"{ASKED[i % len(ASKED)]} ({i})")]) for i in range(n)]
    return [(prompt, drawn.randint(16, 48), i % N) for i, prompt in enumerate(prompts)]


class Peer:
    """PEFT's mixed batch under transformers' generate; a call gives tokens/s."""

    def __init__(self, base: Any, versions: list[Path], dtype: str) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=getattr(torch, dtype))
        self.model = PeftModel.from_pretrained(model, str(versions[0]), adapter_name="v0").eval()
        for i in range(1, N):
            self.model.load_adapter(str(versions[i]), adapter_name=f"v{i}")
        self.tokenizer = base.tokenizer()
        self.tokenizer.padding_side = "left"

    def __call__(self, queue: list[tuple[list[int], int, int]]) -> float:
        import torch

        n_tokens, start = 0, time.perf_counter()
        for at in range(0, len(queue), N):
            batch = queue[at : at + N]
            rows = self.tokenizer.pad({"input_ids": [prompt for prompt, _, _ in batch]}, return_tensors="pt")
            with torch.inference_mode():
                out = self.model.generate(
                    **rows,
                    adapter_names=[f"v{version}" for _, _, version in batch],
                    max_new_tokens=max(wished for _, wished, _ in batch),
                    do_sample=False,
                    pad_token_id=self.tokenizer.pad_token_id,
                )
            width = rows["input_ids"].shape[1]
            for row, (_, wished, _) in zip(out[:, width:].tolist(), batch, strict=True):
                end = row.index(self.tokenizer.eos_token_id) + 1 if self.tokenizer.eos_token_id in row else len(row)
                n_tokens += min(end, wished)
        return n_tokens / (time.perf_counter() - start)


def ours_on(base: Any, versions: list[Path], dtype: str, queue: list[tuple[list[int], int, int]]) -> dict[str, float]:
    """tokens/s: mixed, one (version), single (stream) and its limit; load_ms: median until a version is resident."""
    from rlhf.engine.live import LiveEngine
    from rlhf.engine.placement import Placement
    from rlhf.engine.wanted import Wanted

    engine = LiveEngine(base, Placement("cpu", dtype, "benchmark"), slots=N, max_rank=64, rows=N, prefix_tokens=0)
    try:
        digests = [f"{i:064x}" for i in range(N)]
        loads = []
        for _ in range(2):  # the first one's pages of the pools are new
            for digest, version in zip(digests, versions, strict=True):
                if digest in engine.resident():
                    engine.unload(digest)
                loads.append(engine.load(digest, version))

        def rate(some: list[Wanted]) -> float:
            start = time.perf_counter()
            n_tokens = sum(piece.n_tokens for stream in engine.reply(some) for piece in stream)
            return n_tokens / (time.perf_counter() - start)

        mixed = [Wanted(tuple(prompt), digests[v], wished, temperature=0.0) for prompt, wished, v in queue]
        one = [Wanted(tuple(prompt), digests[0], wished, temperature=0.0) for prompt, wished, _ in queue]
        alone = Wanted(tuple(queue[0][0]), None, 40, temperature=0.0)
        rate(mixed[:N])
        return {
            "mixed": rate(mixed),
            "one": rate(one),
            "load_ms": 1e3 * statistics.median(loads[N:]),
            "single": rate([alone]),
            "limit": bandwidth() / weight_bytes(base, dtype),
        }
    finally:
        engine.close()


def bandwidth() -> float:
    """Bytes a second that this process reads, at its best of five."""
    import torch

    large = torch.ones(64 * 2**20)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        large.sum()
        seconds.append(time.perf_counter() - start)
    return large.numel() * 4 / min(seconds)


def weight_bytes(base: Any, dtype: str) -> int:
    """Of the weights that a token reads: all but the embeddings' rows, which are read as the map onto the vocabulary."""
    from rlhf.engine.architecture import shape_of

    shape = shape_of(base.folder / "config.json")
    return shape.parameters * (2 if dtype == "bfloat16" else 4)


if __name__ == "__main__":
    main()
