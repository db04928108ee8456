"""The replies of a run, kept with their scores and the digest of the adapter that wrote them.

`replies.jsonl` in the run's folder, one object a line: step, phase (`train`, `watch` or `ranked`), prompt (its id), reply, tokens,
cut_off, points, scores (one a reward) and adapter; a ranked reply also has its token ids, the part of the sampling that it came
in, and how many rows that part has. `adapter` is the digest of the LoRA's tensors, made as a published version's `weights_digest`
is: a reply names what wrote it, also when that was never published.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from peft import PeftModel, get_peft_model_state_dict

from rlhf.engine.policies import TRAINED
from rlhf.ids import digest_of
from rlhf.policy.scored import Drawn, Scored
from rlhf.training.progress import METRICS, lines_of, rewrite

FILE = "replies.jsonl"
_DTYPES = {"torch.float32": "F32", "torch.bfloat16": "BF16", "torch.float16": "F16"}


def adapter_digest(model: PeftModel) -> str:
    """Digest of the trained LoRA as `store.tensors.tensors_digest` would give it for the saved file."""
    rows = []
    for name, tensor in get_peft_model_state_dict(model, adapter_name=TRAINED).items():
        raw = tensor.detach().cpu().contiguous()
        data = raw.view(-1).numpy().tobytes()  # LoRA weights are float32
        rows.append([name, _DTYPES[str(raw.dtype)], list(raw.shape), hashlib.sha256(data).hexdigest()])
    return digest_of(sorted(rows))


class ReplyLog:
    """Appends to one run's file; one process writes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def cut_back(self, step: int) -> None:
        """Drop what the run that resumes from a step writes again, and whatever a kill cut short; every process calls it.

        Replies of the training bear the number of steps done before them, so those of `step` itself come again. A measurement
        stays where metrics.jsonl has it. Ranked replies depend on no step: a part of the sampling stays where it is whole.
        """
        state = PartialState()
        if state.is_main_process and self.path.exists():
            rows = [row for row in map(_row, lines_of(self.path)) if row]
            measured = {row["step"] for row in map(_row, lines_of(self.path.with_name(METRICS))) if "watch" in row}
            n_ranked = Counter(row["part"] for row in rows if row["phase"] == "ranked")
            kept = [
                row
                for row in rows
                if (row["phase"] == "train" and row["step"] < step)
                or (row["phase"] == "watch" and row["step"] in measured and row["step"] <= max(step, 0))
                or (row["phase"] == "ranked" and n_ranked[row["part"]] == row["of"])
            ]
            rewrite(self.path, map(_text, kept))
        state.wait_for_everyone()

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(_text(row) + "\n" for row in rows))


def rows_of(
    step: int, phase: str, ids: Sequence[str], replies: Sequence[Drawn], scored: Sequence[Scored], adapter: str
) -> list[dict[str, Any]]:
    """Lines for the log; ids: of the prompts."""
    return [
        {
            "step": step,
            "phase": phase,
            "prompt": prompt,
            "reply": reply.text,
            "tokens": reply.n_tokens,
            "cut_off": reply.cut_off,
            "points": score.points,
            "scores": list(score.scores),
            "adapter": adapter,
        }
        for prompt, reply, score in zip(ids, replies, scored, strict=True)
    ]


def _text(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _row(line: str) -> dict[str, Any]:
    """A line's object; empty for one that a kill cut short."""
    try:
        return dict(json.loads(line))
    except ValueError:
        return {}
