"""Rows a second of `feedback import` on TRL rows, and whether memory stays flat; beside it
`datasets.load_dataset("json")`.

    python scripts/bench_import.py [--rows 200000]

The peer only parses the file into Arrow; ours also checks, masks, names, de-duplicates and stores every row in the
database. The ratio is ours / peer in rows a second, as it is.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from rlhf import feedback
from rlhf.ids import chance
from rlhf.store import Workspace

_WORDS = [
    f"{a}{b}{c}"
    for a in ("re", "mo", "ka", "ti", "su", "en")
    for b in ("la", "ri", "no", "ve", "do")
    for c in ("n", "r", "s", "t")
]


def write_rows(path: Path, n_rows: int, seed: int) -> None:
    """TRL rows of seeded words, about 600 characters each."""
    draw = chance(seed, "bench_import")
    with open(path, "w", encoding="utf-8") as file:
        for number in range(n_rows):
            row = {
                "prompt": f"Question {number}: {_text(draw, 20)}?",
                "chosen": _text(draw, 40),
                "rejected": _text(draw, 40),
                "labeler": f"u{number % 97}",
            }
            file.write(json.dumps(row) + "\n")


def _text(draw: random.Random, n_words: int) -> str:
    return " ".join(draw.choices(_WORDS, k=n_words))


def resident_mb() -> float:
    """Resident memory now, MB (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def ours(path: Path, folder: Path, n_rows: int) -> tuple[float, float]:
    """(rows a second, MB that the peak of the last tenth lies above that of the first)."""
    seen: list[tuple[int, float]] = []
    workspace = Workspace.create(folder / "ws", actor="bench")
    begin = time.perf_counter()
    receipt = feedback.import_files(workspace, [path], on_progress=lambda rows: seen.append((rows, resident_mb())))
    seconds = time.perf_counter() - begin
    workspace.close()
    if receipt.accepted != n_rows:
        raise SystemExit(f"{receipt.accepted:,} of {n_rows:,} rows were accepted")
    first = max(mb for rows, mb in seen if rows <= max(n_rows / 10, seen[0][0]))
    last = max(mb for rows, mb in seen if rows > n_rows * 0.9)
    return n_rows / seconds, last - first


def peer(path: Path, folder: Path, n_rows: int) -> float:
    """Rows a second of datasets' own reader, its cache on the same disk."""
    import datasets

    datasets.disable_progress_bars()
    begin = time.perf_counter()
    loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder / "cache"))
    seconds = time.perf_counter() - begin
    if len(loaded) != n_rows:
        raise SystemExit("the peer read another number of rows")
    return n_rows / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "rows.jsonl"
        write_rows(path, words.rows, words.seed)
        print(f"{words.rows:,} rows, {path.stat().st_size / 1e6:.0f} MB", file=sys.stderr)
        rate, growth = ours(path, folder, words.rows)
        other = peer(path, folder, words.rows)
    print(
        f"ours {rate:,.0f} rows/s, memory grew by {growth:.1f} MB between the first and the last tenth; "
        f"datasets {other:,.0f} rows/s"
    )
    print(
        json.dumps(
            {
                "name": "import",
                "ours": round(rate),
                "peer": round(other),
                "ratio": round(rate / other, 4),
                "unit": "rows/s",
                "rows": words.rows,
                "memory_growth_mb": round(growth, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
