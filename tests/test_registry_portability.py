"""Versions out as stock PEFT folders, and folders in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import adapter_folders as made
import pytest

from rlhf.errors import BadInput, Conflict, Damaged, NotFound
from rlhf.registry import export_folder, find_published, lineage, open_version, publish, read_folder
from rlhf.store import Workspace


def test_an_export_names_the_base_and_changes_nothing_else(workspace: Workspace, tmp_path: Path) -> None:
    ref = made.published(workspace, tmp_path, 0, simulated=True)
    out = export_folder(
        workspace, ref, tmp_path / "out", base_path="/bases/tiny", extra_files={"tokenizer.json": b"{}"}
    )
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "/bases/tiny"
    stored = open_version(workspace, ref).folder / "adapter_model.safetensors"
    assert (out / "adapter_model.safetensors").read_bytes() == stored.read_bytes()
    assert (out / "tokenizer.json").read_bytes() == b"{}"
    assert ref.digest in (out / "README.md").read_text() and "simulated" in (out / "README.md").read_text()


def test_an_export_appears_whole_or_not_at_all(workspace: Workspace, tmp_path: Path) -> None:
    ref = made.published(workspace, tmp_path, 0)
    target = tmp_path / "deep" / "out"
    for extra in ({"tokenizer.json": tmp_path / "absent"}, {"../climb": b""}, {"adapter_config.json": b""}):
        with pytest.raises((BadInput, OSError)):
            export_folder(workspace, ref, target, base_path="b", extra_files=extra)
        assert list(target.parent.iterdir()) == []
    target.mkdir()
    export_folder(workspace, ref, target, base_path="b")
    assert (target / "adapter_config.json").exists()


def test_an_export_never_overwrites(workspace: Workspace, tmp_path: Path) -> None:
    ref = made.published(workspace, tmp_path, 0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for taken in ("full", "file", "link"):
        with pytest.raises(Conflict, match="is there already"):
            export_folder(workspace, ref, tmp_path / taken, base_path="b")
    assert (tmp_path / "full" / "mine").read_text() == "x"


@pytest.mark.parametrize("own", ["artifacts", "artifacts/versions/hh/9", "bases/x", "runs/x", "cache/x", "link/x"])
def test_an_export_keeps_out_of_the_workspace_s_own_folders(workspace: Workspace, tmp_path: Path, own: str) -> None:
    ref = made.published(workspace, tmp_path, 0)
    (workspace.root / "link").symlink_to(workspace.root / "bases")
    with pytest.raises(BadInput, match="keeps for itself"):
        export_folder(workspace, ref, workspace.root / own, base_path="b")
    assert own == "artifacts" or not (workspace.root / own).exists()
    assert export_folder(workspace, ref, workspace.root / "exports" / "x", base_path="b").is_dir()


def test_a_damaged_version_is_not_exported(workspace: Workspace, tmp_path: Path) -> None:
    opened = open_version(workspace, made.published(workspace, tmp_path, 0))
    (opened.folder / "adapter_config.json").write_text("{}")
    with pytest.raises(Damaged):
        export_folder(workspace, "hh@1", tmp_path / "out", base_path="b")
    assert not (tmp_path / "out").exists()


def test_what_comes_back_is_known_again(workspace: Workspace, tmp_path: Path) -> None:
    """With our manifest, without it, and written anew by another tool."""
    made.published(workspace, tmp_path, 0)
    ref = made.published(workspace, tmp_path, 0, settings={"epochs": 3})
    out = export_folder(workspace, ref, tmp_path / "out", base_path="/bases/tiny")
    found = read_folder(out)
    assert (found.role, found.hidden_size, found.base_name, found.name) == ("reward", 16, "/bases/tiny", "hh")
    assert find_published(workspace, found) == ref
    (out / "manifest.json").unlink()
    assert str(find_published(workspace, read_folder(out))) == "hh@1"
    again = read_folder(made.make(tmp_path / "again", 0, target_modules=["q_proj", "v_proj"]))
    assert again.manifest is None and str(find_published(workspace, again, base_digest=made.BASE_DIGEST)) == "hh@1"
    assert find_published(workspace, again, base_digest="0" * 64) is None
    assert find_published(workspace, read_folder(made.make(tmp_path / "new", 7))) is None


def test_a_folder_is_not_called_a_version_whose_files_are_damaged(workspace: Workspace, tmp_path: Path) -> None:
    ref = made.published(workspace, tmp_path, 0)
    out = export_folder(workspace, ref, tmp_path / "out", base_path="b")
    (open_version(workspace, ref).folder / "adapter_config.json").write_text("{}")
    with pytest.raises(Damaged, match=r"adapter_config\.json was changed"):
        find_published(workspace, read_folder(out))


def test_an_exported_folder_publishes_as_the_same_version_elsewhere(workspace: Workspace, tmp_path: Path) -> None:
    ref = made.published(workspace, tmp_path, 0)
    out = export_folder(workspace, ref, tmp_path / "out", base_path="/bases/tiny")
    elsewhere = Workspace.create(tmp_path / "elsewhere", actor="ann")
    assert publish(elsewhere, out, made.draft("mine"), made.evidence()).digest == ref.digest


def test_a_version_from_elsewhere_keeps_the_digests_of_its_parents(workspace: Workspace, tmp_path: Path) -> None:
    parent = made.published(workspace, tmp_path, 0)
    born_of = {"parents": (("from", parent.digest),), "snapshot_digest": "c" * 64}
    ref = made.published(workspace, tmp_path, 1, **born_of)
    out = export_folder(workspace, ref, tmp_path / "out", base_path="b")
    elsewhere = Workspace.create(tmp_path / "elsewhere", actor="ann")
    taken = publish(elsewhere, out, made.draft("mine", **born_of), made.evidence())
    assert taken.digest == ref.digest and open_version(elsewhere, taken).ref == taken
    line = lineage(elsewhere, taken)
    assert line.ancestors == () and line.absent == (("from", parent.digest, "mine@1"),)
    (out / "manifest.json").unlink()
    with pytest.raises(NotFound, match="no version here"):
        publish(elsewhere, out, made.draft("mine", parents=born_of["parents"]), made.evidence())


def test_a_wrong_base_is_refused_by_the_folder_s_own_manifest(workspace: Workspace, tmp_path: Path) -> None:
    out = export_folder(workspace, made.published(workspace, tmp_path, 0), tmp_path / "out", base_path="b")
    with pytest.raises(BadInput, match="the folder is for base tiny"):
        publish(workspace, out, made.draft(base_digest="f" * 64), made.evidence())


@pytest.mark.parametrize(
    "change", [{"settings": {"epochs": 9}}, {"digest": "0" * 64}, {"base": {"name": "tiny", "digest": "0" * 64}}]
)
def test_a_manifest_speaks_for_its_own_folder_only(
    workspace: Workspace, tmp_path: Path, change: dict[str, Any]
) -> None:
    out = export_folder(workspace, made.published(workspace, tmp_path, 0), tmp_path / "out", base_path="b")
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(Damaged, match="another version's"):
        read_folder(out)


OURS = {"schema_version": 1, "weights_digest": "x", "digest": "x", "name": "x"}


@pytest.mark.parametrize("manifest", [OURS, {**OURS, "role": "reward", "base": 3}])
def test_half_a_manifest_is_refused(tmp_path: Path, manifest: dict[str, Any]) -> None:
    folder = made.make(tmp_path / "x")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match="not whole"):
        read_folder(folder)


def test_another_tool_s_manifest_says_nothing(tmp_path: Path) -> None:
    folder = made.make(tmp_path / "x")
    (folder / "manifest.json").write_text('{"files": []}')
    assert read_folder(folder).manifest is None


def test_stock_peft_loads_an_export_with_the_trained_scores(workspace: Workspace, tmp_path: Path) -> None:
    """The head survives: what PEFT trained and saved, published and exported, has the same scores in stock PEFT."""
    import torch
    from peft import AutoPeftModelForSequenceClassification, LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    torch.manual_seed(0)
    shape = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
    }
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(tmp_path / "base")
    base = LlamaForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    lora = LoraConfig(r=4, task_type="SEQ_CLS", target_modules=["q_proj", "v_proj"], modules_to_save=["score"])
    trained = get_peft_model(base, lora)
    for parameter in trained.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    trained.eval().save_pretrained(tmp_path / "saved")
    tokens = torch.randint(1, 64, (3, 12))
    with torch.no_grad():
        wanted = trained(input_ids=tokens).logits.squeeze(-1)
    scores = tuple(wanted.tolist())
    evidence = made.evidence(trained_scores=scores, reloaded_scores=scores)
    ref = publish(workspace, tmp_path / "saved", made.draft(), evidence)
    out = export_folder(workspace, ref, tmp_path / "out", base_path=str(tmp_path / "base"))
    shutil.rmtree(tmp_path / "saved")
    loaded = AutoPeftModelForSequenceClassification.from_pretrained(out, num_labels=1)
    with torch.no_grad():
        assert torch.allclose(loaded.eval()(input_ids=tokens).logits.squeeze(-1), wanted, atol=1e-6)
    assert find_published(workspace, read_folder(out)) == ref
