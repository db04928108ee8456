"""How two versions differ."""

from __future__ import annotations

from pathlib import Path

import adapter_folders as made
import numpy as np
import pytest

from rlhf.registry import diff, publish
from rlhf.store import Workspace

Q = "base_model.model.model.layers.0.self_attn.q_proj"


def test_what_is_equal_is_not_listed(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 0)
    same = diff(workspace, "hh@1", "hh@1")
    assert not (same.made_of or same.settings or same.config or same.metrics or same.tensors)
    assert all(norms["difference"] == pytest.approx(0, abs=1e-5) for norms in same.updates.values())


def test_settings_base_snapshot_and_metrics_are_compared(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 0)
    made.published(
        workspace,
        tmp_path,
        0,
        settings={"epochs": 2, "new": 1},
        base_digest="b" * 64,
        snapshot_digest="c" * 64,
        metrics={"accuracy": 0.8},
    )
    found = diff(workspace, "hh@1", "hh@2")
    assert found.settings == {"epochs": (1, 2), "new": (None, 1)} and found.metrics == {"accuracy": (0.7, 0.8)}
    assert found.made_of == {"base": (made.BASE_DIGEST, "b" * 64), "snapshot_digest": (None, "c" * 64)}
    assert not found.tensors


def test_norms_are_of_the_weights_and_of_the_change_they_make(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 0)
    staged = made.make(tmp_path / "b", 1, lora_alpha=16)
    publish(workspace, staged, made.draft(), made.evidence())
    found = diff(workspace, "hh@1", "hh@2")
    a, b = made.tensors(0), made.tensors(1)
    name = f"{Q}.lora_A.weight"
    assert found.tensors[name]["difference"] == pytest.approx(np.linalg.norm(b[name] - a[name]), rel=1e-6)
    plain_a = 8 / 4 * (a[f"{Q}.lora_B.weight"] @ a[name])
    plain_b = 16 / 4 * (b[f"{Q}.lora_B.weight"] @ b[name])
    assert found.updates[Q]["a"] == pytest.approx(np.linalg.norm(plain_a), rel=1e-5)
    assert found.updates[Q]["difference"] == pytest.approx(np.linalg.norm(plain_b - plain_a), rel=1e-5)
    assert found.config == {"lora_alpha": (None, 16)}


def test_the_same_update_in_other_factors_is_no_update_apart(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 0)
    weights = made.tensors(0)
    for name in [n for n in weights if n.endswith("lora_A.weight")]:
        weights[name] *= 2
        weights[name.replace("lora_A", "lora_B")] /= 2
    publish(workspace, made.save(tmp_path / "b", weights, made.config()), made.draft(), made.evidence())
    found = diff(workspace, "hh@1", "hh@2")
    assert len(found.tensors) == 8
    assert all(norms["difference"] < 1e-4 * norms["a"] for norms in found.updates.values())


def test_a_tensor_of_another_shape_has_no_difference(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 0)
    made.published(workspace, tmp_path, 1, head=False)
    found = diff(workspace, "hh@1", "hh@2")
    assert found.made_of["role"] == ("reward", "policy")
    assert found.tensors["base_model.model.score.weight"]["b"] is None
