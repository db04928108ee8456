"""Suite files for tests, in the shapes that the world has them in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf import snapshots, suites
from rlhf.store import Workspace


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


def seen_suite(workspace: Workspace, tmp_path: Path, snapshot: str = "s") -> suites.Suite:
    """The train side of the snapshot as somebody's file, which claims to be held out."""
    rows = [
        {"prompt": [m.as_json() for m in row.pair.prompt], "chosen": row.pair.reply_a, "rejected": row.pair.reply_b}
        for row in snapshots.open_snapshot(workspace, snapshot).rows("train")
    ]
    return suites.import_files(workspace, "seen", [write(tmp_path / "seen.jsonl", rows)]).suite
