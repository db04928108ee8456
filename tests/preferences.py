"""Small preferences that a tiny model can learn, for tests."""

from __future__ import annotations

import json
import random
from pathlib import Path

from rlhf import feedback, snapshots
from rlhf.store import Workspace

WORDS = ["red", "blue", "green", "alpha", "beta", "gamma", "delta"]


def write_polite(path: Path, n: int = 60, seed: int = 0) -> Path:
    """TRL rows: chosen begins with 'Yes' and ends in 'thanks', rejected begins with 'No'; some prompts have two turns."""
    chance = random.Random(seed)
    phrase = lambda: " ".join(chance.choice(WORDS) for _ in range(chance.randint(1, 4)))  # noqa: E731
    rows = []
    for i in range(n):
        prompt = [{"role": "user", "content": f"Question {i} about {phrase()}?"}]
        if i % 5 == 0:
            prompt += [{"role": "assistant", "content": phrase()}, {"role": "user", "content": f"And {phrase()}?"}]
        rows.append(
            {
                "prompt": prompt,
                "chosen": [{"role": "assistant", "content": f"Yes {phrase()} thanks"}],
                "rejected": [{"role": "assistant", "content": f"No {phrase()}"}],
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def cut_polite(workspace: Workspace, folder: Path, n: int = 60) -> snapshots.Snapshot:
    feedback.import_files(workspace, [write_polite(folder / "polite.jsonl", n)])
    return snapshots.cut(workspace, "polite", holdout=0.2)
