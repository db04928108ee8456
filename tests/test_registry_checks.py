"""What a folder is refused for before anything in it is run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import adapter_folders as made
import numpy as np
import pytest

from rlhf.errors import BadInput
from rlhf.registry import checks

Q = "base_model.model.model.layers.0.self_attn.q_proj"


def test_a_folder_that_peft_saved_passes(tmp_path: Path) -> None:
    adapter, role = checks.check_folder(made.make(tmp_path / "x"))
    assert role == "reward" and checks.hidden_size(adapter) == made.HIDDEN
    assert checks.check_folder(made.make(tmp_path / "p", head=False))[1] == "policy"


@pytest.mark.parametrize(
    "name",
    [
        "adapter_model.bin",
        "training_args.bin",
        "optimizer.pt",
        "rng_state.pth",
        "x.PKL",
        "a/b.pickle",
        "last.ckpt",
        "modeling.py",
    ],
)
def test_what_could_run_code_is_refused_by_name(tmp_path: Path, name: str) -> None:
    file = made.make(tmp_path / "x") / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(pickle.dumps({"weights": 1}))
    with pytest.raises(BadInput, match=name):
        checks.check_folder(tmp_path / "x")


def test_a_pickle_in_safetensors_clothes_is_refused(tmp_path: Path) -> None:
    (made.make(tmp_path / "x") / "adapter_model.safetensors").write_bytes(pickle.dumps({"weights": [0] * 100}))
    with pytest.raises(BadInput, match="no whole safetensors file"):
        checks.check_folder(tmp_path / "x")


def test_names_that_climb_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder = made.make(tmp_path / "x")
    outside = tmp_path / "outside.safetensors"
    os.rename(folder / "adapter_model.safetensors", outside)
    (folder / "adapter_model.safetensors").symlink_to(outside)
    with pytest.raises(BadInput, match=r"adapter_model.safetensors is a link"):
        checks.check_folder(folder)


def test_a_link_to_a_folder_is_refused(tmp_path: Path) -> None:
    (made.make(tmp_path / "x") / "more").symlink_to(tmp_path)
    with pytest.raises(BadInput, match="more is a link"):
        checks.check_folder(tmp_path / "x")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"surprise": 1}, "surprise"),
        ({"auto_mapping": {"base_model_class": "X", "parent_library": "os"}}, "auto_mapping"),
        ({"peft_type": "PREFIX_TUNING"}, "peft_type"),
        ({"peft_type": None}, "peft_type"),
        ({"task_type": "FEATURE_EXTRACTION"}, "task_type"),
        ({"task_type": ["SEQ_CLS"]}, "task_type"),
        ({"megatron_core": "os.path"}, "megatron_core"),
        ({"megatron_config": {"a": 1}}, "megatron_config"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"r": "4"}, "r is '4'"),
        ({"r": True}, "r is True"),
        ({"r": 8}, "rank"),
        ({"modules_to_save": None}, "modules_to_save"),
        ({"modules_to_save": "score"}, "modules_to_save"),
        ({"rank_pattern": [4]}, "rank_pattern"),
    ],
)
def test_configuration_is_refused_naming_the_key(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        checks.check_folder(made.make(tmp_path / "x", **changed))


def _without(name: str) -> dict[str, np.ndarray]:
    return {key: value for key, value in made.tensors(0).items() if key != name}


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        (_without("base_model.model.score.weight"), "0 tensors named score.weight"),
        ({**made.tensors(0), "base_model.model.score.weight": np.ones((2, 16), np.float32)}, "one label"),
        ({**made.tensors(0), "base_model.model.score.weight": np.ones(16, np.float32)}, "one label"),
        (_without(f"{Q}.lora_B.weight"), f"{Q}.lora_B.weight is missing"),
        (_without(f"{Q}.lora_A.weight"), f"{Q}.lora_B.weight has no lora_A"),
        ({**made.tensors(0), f"{Q}.lora_A.weight": np.ones((3, 16), np.float32)}, f"{Q}.lora_A.weight has shape"),
        ({**made.tensors(0), f"{Q}.weight": np.ones((16, 16), np.float32)}, f"{Q}.weight is neither"),
        (
            {**made.tensors(0), "base_model.model.layers.0.q_proj.lora_A.weight": np.ones((4, 16), np.float32)},
            "AutoModel",
        ),
        ({**made.tensors(0), f"{Q}.lora_A.weight": np.ones((4, 16), np.int32)}, "floating point"),
        ({"base_model.model.score.weight": np.ones((1, 16), np.float32)}, "no LoRA weights"),
    ],
)
def test_weights_are_refused_naming_the_tensor(tmp_path: Path, weights: dict[str, np.ndarray], named: str) -> None:
    with pytest.raises(BadInput) as refused:
        checks.check_folder(made.save(tmp_path / "x", weights, made.config()))
    assert named in refused.value.message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_nan_and_infinity_are_refused_naming_the_tensor(tmp_path: Path, value: float, dtype: type) -> None:
    weights = made.tensors(0)
    weights[f"{Q}.lora_A.weight"] = weights[f"{Q}.lora_A.weight"].astype(dtype)
    weights[f"{Q}.lora_A.weight"][1, 2] = value
    with pytest.raises(BadInput, match=f"{Q}.lora_A.weight holds NaN or infinite"):
        checks.check_folder(made.save(tmp_path / "x", weights, made.config()))


def test_nan_in_bfloat16_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    weights = {name: torch.from_numpy(value).to(torch.bfloat16) for name, value in made.tensors(0).items()}
    folder = made.make(tmp_path / "x")
    save_file(weights, str(folder / "adapter_model.safetensors"))
    checks.check_folder(folder)
    weights["base_model.model.score.weight"][0, 0] = float("nan")
    save_file(weights, str(folder / "adapter_model.safetensors"))
    with pytest.raises(BadInput, match=r"score\.weight holds NaN"):
        checks.check_folder(folder)


def test_a_base_of_another_shape_is_refused(tmp_path: Path) -> None:
    adapter, _ = checks.check_folder(made.make(tmp_path / "x"))
    checks.check_base(adapter, {"hidden_size": 16, "layers": 2})
    checks.check_base(adapter, {})
    with pytest.raises(BadInput, match="the head reads 16 numbers, the base gives 32"):
        checks.check_base(adapter, {"hidden_size": 32})
    with pytest.raises(BadInput, match="layer 1, the base has 1"):
        checks.check_base(adapter, {"layers": 1})
    policy, _ = checks.check_folder(made.make(tmp_path / "p", head=False))
    with pytest.raises(BadInput, match=r"q_proj.lora_A.weight reads 16"):
        checks.check_base(policy, {"hidden_size": 32})


def test_what_a_version_does_not_know_is_left_behind(tmp_path: Path) -> None:
    folder = made.make(tmp_path / "x")
    (folder / "trainer_state.json").write_text("{}")
    checks.check_folder(folder)
