"""The replies of a run, kept with their scores and the digest of the adapter that wrote them.

`replies.jsonl` in the run's folder, one object a line: step, phase (`train`, `watch` or `ranked`), prompt (its id), reply, tokens,
cut_off, points, scores (one a reward) and adapter. The last is the digest of the LoRA's tensors, made as a published version's
`weights_digest` is: a reply names what wrote it, also when that was never published.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict

from rlhf.engine.policies import TRAINED
from rlhf.ids import digest_of
from rlhf.policy.scored import Drawn, Scored
from rlhf.training.progress import step_of

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

    def cut_back(self, step: int, phases: Sequence[str] = ("train", "watch")) -> None:
        """Drop what was written after the step that a run resumes from (and a line that a kill cut short)."""
        if self.path.exists():
            kept = [
                line
                for line in self.path.read_text("utf-8").splitlines()
                if step_of(line) <= step or _phase_of(line) not in phases
            ]
            self.path.write_text("".join(line + "\n" for line in kept if _phase_of(line)), "utf-8")

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


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


def _phase_of(line: str) -> str:
    try:
        return str(json.loads(line)["phase"])
    except (ValueError, KeyError, TypeError):
        return ""
