"""What a run publishes and leaves: every tensor, its parents, whose judgements are behind it, its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from policies import human, lines, manifest, settings, watch_of, without_page
from safetensors.torch import load_file, save_file
from snapshot_rows import judged, pair_of, put

from rlhf import policy, registry, reward, snapshots
from rlhf.engine import bases
from rlhf.engine import policies as engine_policies
from rlhf.engine.placement import Placement
from rlhf.errors import BadInput
from rlhf.store import Workspace, runs
from rlhf.store.tensors import tensors_digest


def test_a_run_leaves_what_it_was_told_and_what_came_of_it(policies: Workspace) -> None:
    trained = policy.train(policies, settings(method="grpo", watch_steps=2, watch_prompts=2, save_steps=2))
    names = {file.name for file in trained.run_folder.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "report.json", "report.html", "replies.jsonl"} <= names
    rows = lines(trained.run_folder / "metrics.jsonl")
    assert [row["step"] for row in rows if "watch" not in row] == [1, 2, 3]
    assert {"reward", "reward_sd", "kl", "kl_token", "tokens", "cut_off", "loss", "grad_norm", "learning_rate"} <= set(
        rows[-1]
    )
    measured = watch_of(trained)
    assert [row["step"] for row in measured] == [0, 2, 3], "before the first step, when due, and after the last"
    report = json.loads((trained.run_folder / "report.json").read_text("utf-8"))
    assert report["version"] == str(trained.version) and report["digest"] == trained.version.digest
    assert report["watch"][-1]["reward"] == measured[-1]["watch"]["reward"] == trained.metrics["reward"]
    assert report["stopped"] is None and len(report["steps"]) == 3
    assert str(trained.version) in (trained.run_folder / "report.html").read_text("utf-8")
    assert runs.show(policies, trained.run_id).version_digest == trained.version.digest
    assert list((trained.run_folder / "checkpoints").glob("checkpoint-2/adapter_model.safetensors"))


def test_a_version_names_reward_parent_and_snapshot(policies: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    without_page(monkeypatch)
    trained = policy.train(policies, human(from_version="start@1", reward=["r@1", "r@2"]))
    kept = manifest(policies, trained.version)
    digests = {name: registry.resolve(policies, name).digest for name in ("r@1", "r@2", "start@1")}
    assert {tuple(parent) for parent in kept["parents"]} == {
        ("reward", digests["r@1"]),
        ("reward", digests["r@2"]),
        ("from", digests["start@1"]),
    }
    assert kept["role"] == "policy" and kept["snapshot_digest"] == snapshots.open_snapshot(policies, "polite@1").digest
    assert kept["settings"]["rewards"] == [digests["r@1"], digests["r@2"]] and kept["seeds"] == {"seed": 0}
    assert {"r@1", "r@2", "start@1", "polite@1"} <= set(
        json.dumps(registry.lineage(policies, trained.version).as_json()).split('"')
    )
    assert kept["simulated"] is False


def test_stock_peft_loads_what_was_trained(
    policies: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The export on the base in plain transformers writes the log-probabilities that the published adapter has here."""
    without_page(monkeypatch)
    trained = policy.train(policies, human())
    base = bases.get(policies, "tiny")
    registry.export_folder(policies, trained.version, tmp_path / "out", base_path=str(base.folder))
    stock = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    folder = registry.open_version(policies, trained.version).folder
    ours = engine_policies.load(folder, base, Placement("cpu", "float32", "tests"))
    ids = torch.tensor([[1, 50, 60, 70, 2]])
    with torch.no_grad():
        assert torch.allclose(stock(input_ids=ids).logits, ours(input_ids=ids).logits, atol=1e-5)
    names = set(load_file(tmp_path / "out" / "adapter_model.safetensors"))
    assert names and not [name for name in names if "reward" in name or "ref" in name or "score" in name]
    assert (
        tensors_digest([folder / "adapter_model.safetensors"]) == manifest(policies, trained.version)["weights_digest"]
    )


@pytest.mark.parametrize("how", ["lost", "changed"])
def test_a_tensor_that_got_lost_in_saving_is_refused(
    policies: Workspace, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = PeftModel.save_pretrained

    def spoilt(self: PeftModel, folder: Any, **kwargs: Any) -> None:
        save(self, folder, **kwargs)
        path = Path(folder) / "adapter_model.safetensors"
        tensors = load_file(path)
        name = sorted(name for name in tensors if "lora_B" in name)[-1]
        if how == "lost":
            del tensors[name]
        else:
            tensors[name] = tensors[name] + 1e-6
        save_file(tensors, path)

    monkeypatch.setattr(PeftModel, "save_pretrained", spoilt)
    with pytest.raises(BadInput):
        policy.train(policies, human())
    assert not [v for v in registry.list_versions(policies) if v.ref.name == "p"]
    assert [run.state for run in runs.list_runs(policies) if run.name == "p"] == ["failed"]


def test_an_adapter_that_learnt_nothing_is_refused(policies: Workspace) -> None:
    """Every reply to a prompt is the same, so no advantage is above 0, and nothing pulls back to the reference either."""
    with pytest.raises(BadInput, match="as it was before training"):
        policy.train(policies, settings(method="grpo", beta=0.0, top_p=1e-6, max_steps=2))


def test_simulated_judgements_behind_the_reward_are_said_of_the_policy_and_its_heirs(
    policies: Workspace,
) -> None:
    pairs = [pair_of(i, replies=(f"Yes {i} thanks", f"No {i}")) for i in range(20)]
    put(policies, [judged(pair, "a", source="sim", kind="simulated", labeler="l") for pair in pairs])
    snapshots.cut(policies, "sim", sources=["sim"], holdout=0.2)
    told = {"snapshot": "sim", "base": "tiny", "dtype": "float32", "max_steps": 2, "lora_r": 4}
    version = reward.train(policies, reward.RewardSettings(name="sim", **told)).version  # type: ignore[arg-type]
    assert manifest(policies, version)["simulated"] is True
    trained = policy.train(policies, human(reward="sim@1"))
    assert manifest(policies, trained.version)["simulated"] is True
    assert "SIMULATED" in (trained.run_folder / "report.html").read_text("utf-8")
    heir = policy.train(policies, human(reward="r@1", from_version=str(trained.version), name="heir"))
    assert manifest(policies, heir.version)["simulated"] is True
