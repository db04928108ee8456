"""Serving speed over real vLLM on this machine against the embedded engine: tokens/s at 8 clients over 4 versions, in float32.

    scripts/try_vllm .venv/bin/python scripts/bench_vllm.py

The same queue for both, one after the other while the other has nothing to do: replies of 16 to 48 greedy tokens, each client
asking again as soon as its reply has ended. Last line: one JSON object.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench_serve import drawn_versions, queue_of

from rlhf.cli.boundary import quiet_libraries

PROJECT = Path(__file__).parent.parent
CLIENTS, VERSIONS, REQUESTS = 8, 4, 24


def main() -> None:
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(compared(Path(folder))))


def compared(folder: Path) -> dict[str, Any]:
    from rlhf import engine
    from rlhf.engine.live import LiveEngine
    from rlhf.engine.placement import Placement
    from rlhf.engine.vllm.addresses import Addresses
    from rlhf.engine.vllm.engine import VllmEngine
    from rlhf.store import Workspace

    workspace = Workspace.create(folder / "workspace", actor="benchmark")
    base = engine.add_from_dir(workspace, "smollm2-135m", PROJECT / ".bases" / "smollm2-135m")
    workspace.close()
    versions, queue = drawn_versions(base, folder, 16)[:VERSIONS], queue_of(base, REQUESTS)
    vllm = VllmEngine(
        base, Addresses(os.environ["RLHF_VLLM_GENERATE"]), folder, slots=VERSIONS, max_rank=16, rows=CLIENTS
    )
    theirs = measured(vllm, versions, queue)
    print(f"vLLM: {theirs}", file=sys.stderr, flush=True)
    embedded = LiveEngine(
        base, Placement("cpu", "float32", "benchmark"), slots=VERSIONS, max_rank=16, rows=CLIENTS, prefix_tokens=0
    )
    ours = measured(embedded, versions, queue)
    return {
        "name": "serving over vLLM",
        "ours": ours["tokens_per_s"],
        "peer": theirs["tokens_per_s"],
        "ratio": round(ours["tokens_per_s"] / theirs["tokens_per_s"], 2),
        "unit": f"tokens/s of {CLIENTS} clients over {VERSIONS} versions, float32, embedded engine against vLLM",
        "embedded": ours,
        "vllm": theirs,
        "requests": REQUESTS,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
    }


def measured(engine: Any, versions: Sequence[Path], queue: Sequence[tuple[list[int], int, int]]) -> dict[str, float]:
    """tokens_per_s over the queue; first_s: median seconds to a reply's first piece; load_s: until a version could answer."""
    from rlhf.engine.wanted import Wanted

    digests = [f"{i:02x}" * 32 for i in range(len(versions))]
    try:
        loads = [engine.load(digest, folder) for digest, folder in zip(digests, versions, strict=True)]
        wanted = [
            Wanted(tuple(prompt), digests[i % len(digests)], wished, temperature=0.0)
            for i, (prompt, wished, _) in enumerate(queue)
        ]

        def ask(one: Wanted) -> tuple[int, float]:
            start = time.perf_counter()
            (stream,) = engine.reply([one])
            piece = stream.next_piece()
            first = time.perf_counter() - start
            n_tokens = piece.n_tokens
            if piece.finish is None:
                n_tokens += sum(piece.n_tokens for piece in stream)
            return n_tokens, first

        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(ask, wanted[:CLIENTS]))
            start = time.perf_counter()
            told = list(clients.map(ask, wanted))
            seconds = time.perf_counter() - start
    finally:
        engine.close()
    return {
        "tokens_per_s": round(sum(n for n, _ in told) / seconds, 1),
        "first_s": round(statistics.median(first for _, first in told), 3),
        "load_s": round(statistics.median(loads), 3),
    }


if __name__ == "__main__":
    main()
