"""Policies on the tiny base: a workspace with two rewards made once, quick settings, and ways to look into what came out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from preferences import cut_polite
from safetensors.torch import load_file

from rlhf import engine, policy, registry, reward
from rlhf.policy.material import Material, open_material
from rlhf.policy.setup import Setup, set_up
from rlhf.records import VersionRef
from rlhf.store import Workspace

QUICK: dict[str, Any] = {
    "reward": "r@1",
    "base": "tiny",
    "dtype": "float32",
    "max_steps": 3,
    "pairs_per_step": 4,
    "samples": 2,
    "max_new_tokens": 8,
    "learning_rate": 3e-3,
    "lora_r": 4,
    "lora_alpha": 8,
    "watch_steps": 0,
    "guard_doubt": 0.5,
    "save_steps": 100,
}


def settings(**more: Any) -> policy.PolicySettings:
    return policy.PolicySettings(**{"name": "p", "method": "dpo", **QUICK, **more})


def human(**more: Any) -> policy.PolicySettings:
    """DPO on people's pairs: the quickest training there is."""
    return settings(pairs="human", **more)


def write_policy_workspace(root: Path, base: Path) -> Path:
    """The tiny base, the polite snapshot, two rewards (r@1, r@2) and a policy of human pairs (start@1)."""
    workspace = Workspace.create(root, actor="tester")
    engine.add_from_dir(workspace, "tiny", base)
    cut_polite(workspace, root.parent)
    for seed in (0, 1):
        reward.train(
            workspace,
            reward.RewardSettings(
                name="r",
                snapshot="polite",
                base="tiny",
                learning_rate=3e-3,
                pairs_per_step=8,
                dtype="float32",
                lora_r=4,
                lora_alpha=8,
                seed=seed,
                baseline=False,
            ),
        )
    policy.train(workspace, human(name="start", learning_rate=1e-2, max_steps=6))
    workspace.close()
    return root


def without_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out a run's page: its plots take longer than a tiny training. Where the page matters a test draws it."""
    monkeypatch.setattr("rlhf.policy.publication.write_policy_report", lambda *args, **kwargs: None)


def weights(workspace: Workspace, version: VersionRef) -> dict[str, torch.Tensor]:
    return load_file(registry.open_version(workspace, version).folder / "adapter_model.safetensors")


def manifest(workspace: Workspace, version: VersionRef | str) -> dict[str, Any]:
    ref = registry.resolve(workspace, version) if isinstance(version, str) else version
    return dict(registry.show(workspace, ref).manifest)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line] if path.exists() else []


def log_of(trained: policy.Trained, *phases: str) -> list[dict[str, Any]]:
    rows = lines(trained.run_folder / "replies.jsonl")
    return [row for row in rows if not phases or row["phase"] in phases]


def watch_of(trained: policy.Trained) -> list[dict[str, Any]]:
    return [row for row in lines(trained.run_folder / "metrics.jsonl") if "watch" in row]


def parts(workspace: Workspace, folder: Path, chosen: policy.PolicySettings) -> tuple[Material, Setup]:
    """What a run is made of, without the run."""
    folder.mkdir(exist_ok=True)
    material = open_material(workspace, chosen, 1, lambda _text: None)
    return material, set_up(workspace, material, folder)
