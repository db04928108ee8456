"""Stock PEFT folders made with numpy alone: two layers of a Llama sixteen numbers wide, a hundred in no time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from sqlalchemy import insert

from rlhf.ids import digest_text, now_text
from rlhf.records import VersionRef
from rlhf.registry import Evidence, VersionDraft, list_versions, publish
from rlhf.registry.folder import LORA_DEFAULTS
from rlhf.store import Workspace
from rlhf.store.tables import reports

HIDDEN, RANK = 16, 4
BASE_DIGEST = digest_text("a base")


def tensors(seed: int, *, head: bool = True) -> dict[str, np.ndarray]:
    """LoRA weights for q_proj and v_proj of two layers, and a reward's head."""
    draw = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {}
    for layer in range(2):
        for module in ("q_proj", "v_proj"):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            made[f"{stem}.lora_A.weight"] = draw.normal(size=(RANK, HIDDEN)).astype(np.float32)
            made[f"{stem}.lora_B.weight"] = draw.normal(size=(HIDDEN, RANK)).astype(np.float32)
    if head:
        made["base_model.model.score.weight"] = draw.normal(size=(1, HIDDEN)).astype(np.float32)
    return made


def config(*, head: bool = True, **changed: Any) -> dict[str, Any]:
    saved = {k: v for k, v in LORA_DEFAULTS.items() if k != "runtime_config"}
    return {
        **saved,
        "peft_version": "0.21.2",
        "base_model_name_or_path": "somewhere/base",
        "r": RANK,
        "target_modules": ["v_proj", "q_proj"],
        "task_type": "SEQ_CLS" if head else "CAUSAL_LM",
        "inference_mode": True,
        "modules_to_save": ["score", "classifier", "score"] if head else None,
        **changed,
    }


def save(folder: Path, weights: dict[str, np.ndarray], settings: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, str(folder / "adapter_model.safetensors"))
    (folder / "adapter_config.json").write_text(json.dumps(settings), "utf-8")
    return folder


def make(folder: Path, seed: int = 0, *, head: bool = True, **changed: Any) -> Path:
    """A folder that PEFT could have saved; equal seeds give equal weights."""
    return save(folder, tensors(seed, head=head), config(head=head, **changed))


def draft(name: str = "hh", *, head: bool = True, **changed: Any) -> VersionDraft:
    fields: dict[str, Any] = {
        "role": "reward" if head else "policy",
        "kind": "lora",
        "name": name,
        "base_name": "tiny",
        "base_digest": BASE_DIGEST,
        "tokenizer_digest": digest_text("a tokenizer"),
        "template_digest": digest_text("a template"),
        "settings": {"epochs": 1},
        "seeds": {"seed": 0},
        "metrics": {"accuracy": 0.7},
        **changed,
    }
    return VersionDraft(**fields)


def evidence(**changed: Any) -> Evidence:
    fields: dict[str, Any] = {
        "probe_texts": digest_text("probes"),
        "trained_scores": (0.5, -1.25, 2.0),
        "reloaded_scores": (0.5, -1.25, 2.00002),
        **changed,
    }
    return Evidence(**fields)


def published(
    workspace: Workspace, scratch: Path, seed: int = 0, name: str = "hh", *, head: bool = True, **changed: Any
) -> VersionRef:
    """A version made of the folder with this seed."""
    staged = make(scratch / f"staged-{name}-{seed}", seed, head=head)
    return publish(workspace, staged, draft(name, head=head, **changed), evidence() if head else None)


def add_rows(workspace: Workspace, table: Any, *rows: dict[str, Any]) -> None:
    """Rows of a room that comes with another builder's tests, written as that room writes them."""
    with workspace.write() as write:
        write.connection.execute(insert(table), list(rows))


def report(
    workspace: Workspace,
    digest: str,
    figures: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    kind: str = "evaluation",
    bases: Mapping[str, str] | None = None,
    **more: Any,
) -> Path:
    """A stored report with this digest, as the evaluation room writes it: where its report.json lies.

    figures: of each version named (None = of every version there is, none). bases: digests of the names that are no
    versions. more: further keys of the content.
    """
    path = f"reports/{digest[:12]}"
    digests = {str(row.ref): row.ref.digest for row in list_versions(workspace)} | dict(bases or {})
    measured = figures if figures is not None else {name: {} for name in digests}
    content = {
        "kind": kind,
        "versions": {name: {"digest": digests[name], "figures": found} for name, found in measured.items()},
        "snapshot": {"name": "suite@1", "split": "test"},
        "prompts": {"snapshot": "suite@1"},
        "judge": {"kind": "rule", "name": "polite"},
        **more,
    }
    with workspace.artifacts.staging() as staging, workspace.write() as write:
        (staging / "report").mkdir()
        (staging / "report" / "report.json").write_text(json.dumps(content), "utf-8")
        workspace.artifacts.publish(write.connection, staging / "report", path)
        row = {"digest": digest, "kind": kind, "title": "t", "path": path, "figures": json.dumps(measured)}
        write.connection.execute(insert(reports).values(**row, actor="x", created_at=now_text()))
    return Path(workspace.artifacts.root) / path / "report.json"
