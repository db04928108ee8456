"""Reading a PEFT folder without torch."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import adapter_folders as made
import numpy as np
import pytest
from safetensors.numpy import save_file

from rlhf.errors import BadInput
from rlhf.registry import folder as folders


def test_same_weights_have_one_digest_however_the_file_was_written(tmp_path: Path) -> None:
    one = made.make(tmp_path / "one", 1)
    other = made.make(tmp_path / "other", 1)
    weights = dict(reversed(made.tensors(1).items()))
    save_file(weights, str(other / "adapter_model.safetensors"), {"format": "pt", "by": "x"})
    files = [folder / "adapter_model.safetensors" for folder in (one, other)]
    assert files[0].read_bytes() != files[1].read_bytes()
    assert folders.read(one).weights_digest == folders.read(other).weights_digest


def test_one_changed_weight_changes_the_digest(tmp_path: Path) -> None:
    weights = made.tensors(1)
    one = made.save(tmp_path / "one", weights, made.config())
    weights["base_model.model.score.weight"][0, 3] += 1e-6
    other = made.save(tmp_path / "other", weights, made.config())
    assert folders.read(one).weights_digest != folders.read(other).weights_digest


def test_configuration_digest_ignores_the_base_s_place_and_the_order_of_sets(tmp_path: Path) -> None:
    one = made.make(tmp_path / "one", target_modules=["q_proj", "v_proj"], modules_to_save=["score"])
    other = made.make(
        tmp_path / "two",
        target_modules=["v_proj", "q_proj"],
        modules_to_save=["score", "score"],
        base_model_name_or_path="/elsewhere",
        peft_version="9",
        inference_mode=False,
        revision="abc",
    )
    assert folders.read(one).config_digest == folders.read(other).config_digest
    assert folders.read(one).config_digest != folders.read(made.make(tmp_path / "three", lora_alpha=99)).config_digest


def test_a_key_that_a_later_peft_leaves_at_its_default_changes_no_digest(tmp_path: Path) -> None:
    whole = made.config()
    short = {k: v for k, v in whole.items() if k not in ("kasa_config", "use_bdlora", "qalora_group_size")}
    assert folders.canonical_config(whole) == folders.canonical_config(short)


def test_bfloat16_is_read_as_float32(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    weights = {name: torch.from_numpy(value).to(torch.bfloat16) for name, value in made.tensors(4).items()}
    made.make(tmp_path / "bf", 4)
    save_torch(weights, str(tmp_path / "bf" / "adapter_model.safetensors"))
    read = dict(folders.values(folders.read(tmp_path / "bf")))
    assert read.keys() == weights.keys()
    for name, value in weights.items():
        assert np.array_equal(read[name], value.float().numpy())


@pytest.mark.parametrize("damage", ["short", "header", "empty", "offsets"])
def test_broken_safetensors_is_refused(tmp_path: Path, damage: str) -> None:
    file = made.make(tmp_path / "x") / "adapter_model.safetensors"
    raw = file.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + n])
    next(iter(header.values()))["data_offsets"][1] += 4
    wrong = json.dumps(header).encode()
    file.write_bytes(
        {
            "short": raw[:-5],
            "header": b"\xff" * 8 + raw[8:],
            "empty": b"",
            "offsets": len(wrong).to_bytes(8, "little") + wrong + raw[8 + n :],
        }[damage]
    )
    with pytest.raises(BadInput, match=r"adapter_model\.safetensors"):
        folders.read(tmp_path / "x")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"r": NaN}', '{"r": 1e999}', '{"bias": "\\ud800"}', "[" * 9999, '{"r": 1, "r": 2}', "\ufffe"]
)
def test_configuration_that_two_readers_could_read_differently_is_refused(tmp_path: Path, text: str) -> None:
    (made.make(tmp_path / "x") / "adapter_config.json").write_text(text, "utf-8")
    with pytest.raises(BadInput, match=r"adapter_config\.json"):
        folders.read(tmp_path / "x")


def test_known_keys_are_the_installed_peft_s() -> None:
    """Contract: importing peft would import torch, so its fields stand in our code; here both are compared."""
    from peft import LoraConfig

    installed = LoraConfig()
    assert set(folders.LORA_DEFAULTS) == {field.name for field in dataclasses.fields(LoraConfig)}
    for key, default in folders.LORA_DEFAULTS.items():
        seen = getattr(installed, key)
        if key in folders.VOLATILE_KEYS or key == "peft_type":
            continue
        assert (seen if not dataclasses.is_dataclass(seen) else default) == default, key


def test_the_registry_loads_no_torch() -> None:
    code = "import sys, rlhf.registry, rlhf.cli.adapter, rlhf.cli.alias; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
