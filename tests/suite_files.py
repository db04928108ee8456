"""Suite files for tests, in the shapes that the world has them in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def bench_row(i: int, subset: str = "chat", **more: Any) -> dict[str, Any]:
    """A row of RewardBench's shape."""
    return {
        "id": i,
        "prompt": f"How would you do task number {i} of the list?",
        "chosen": f"Begin with step {i}, please, and then go on",
        "rejected": f"No idea {i}",
        "subset": subset,
        **more,
    }


def style_row(i: int, domain: str = "chat") -> dict[str, Any]:
    """A row of RM-Bench's shape."""
    return {
        "id": f"s{i}",
        "prompt": f"What is the {i}th prime?",
        "chosen": [f"right {i}", f"right {i}, and here is why", f"**right {i}**, and here is why"],
        "rejected": [f"wrong {i}", f"wrong {i}, and here is why", f"**wrong {i}**, and here is why"],
        "domain": domain,
    }
