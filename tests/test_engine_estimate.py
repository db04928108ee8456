"""What a training is said to need: counted parameters, and activations held against what autograd keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import CommandLine

from rlhf import config, policy
from rlhf.engine import bases, policies
from rlhf.engine.architecture import Shape, shape_of
from rlhf.engine.estimate import Estimate, Part, Plan, activations, estimate, fits
from rlhf.engine.placement import Placement
from rlhf.engine.rewards import LoraShape
from rlhf.errors import BadInput
from rlhf.reward.settings import RewardSettings

PROJECT = Path(__file__).parent.parent
SEVEN_B = PROJECT / "configs" / "bases" / "qwen2.5-7b.json"
POLICIES = sorted((PROJECT / "configs" / "policy").glob("*.yaml"))


def plan(device: str = "cpu", dtype: str = "float32", **more: Any) -> Plan:
    chosen = policy.PolicySettings(name="p", reward="r@1", base="b", **{"method": "dpo", **more})
    return Plan.of("policy", chosen.model_dump(), device, dtype)


def test_parameters_and_lora_are_those_of_the_loaded_model(tiny_base: bases.Base) -> None:
    shape = shape_of(tiny_base.folder / "config.json")
    place = Placement("cpu", "float32", "")
    bare = policies.bare(tiny_base, place)
    assert shape.parameters == sum(p.numel() for p in bare.parameters())
    for top in (0, 2):
        model = policies.fresh(tiny_base, place, LoraShape(4, 8, 0.0, top), seed=0)
        assert shape.lora(4, top) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_a_model_of_seven_billion_is_counted_without_its_weights() -> None:
    shape = shape_of(SEVEN_B)
    assert shape.parameters == 7_615_616_512  # as its authors give it: 7.61 billion, 6.53 of them not embedding
    assert shape.parameters - 2 * shape.head == pytest.approx(6.53e9, rel=1e-3)


@pytest.mark.parametrize("text", ['{"model_type": "zork"}', "[1]", "{", '{"model_type": "t5"}'])
def test_what_is_no_causal_model_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadInput, match="describes no causal model"):
        shape_of(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("device", "more", "counted"),
    [
        ("cpu", {"method": "grpo"}, True),
        ("cpu", {"method": "rloo", "rollouts": "engine"}, True),
        ("cpu", {"method": "grpo", "rollouts": "trl"}, False),
        ("cpu", {"method": "grpo", "quantize": "nf4"}, False),
        ("cuda", {"method": "grpo"}, False),
        ("cpu", {"method": "dpo"}, False),
    ],
)
def test_what_the_engine_keeps_of_the_base_is_counted_where_it_draws(
    device: str, more: dict[str, Any], counted: bool
) -> None:
    """Every linear map and the map onto the vocabulary once more: of Qwen2.5-7B all but its embeddings and its small rest."""
    shape = shape_of(SEVEN_B)
    parts = [part for part in estimate(shape, plan(device, "bfloat16", **more)).parts if "engine's order" in part.name]
    assert [part.bytes for part in parts] == [pytest.approx(2 * 7.07e9, rel=1e-2)] * counted


def kept_by_autograd(base: bases.Base, dtype: str, top_layers: int, rows: int, width: int) -> float:
    """Bytes of all storages that the decoder's forward saves, parameters left out."""
    model = policies.fresh(base, Placement("cpu", dtype, ""), LoraShape(4, 8, 0.0, top_layers), seed=0).train()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    ids = torch.arange(rows * width).view(rows, width) % 250
    mask = torch.ones_like(ids)
    mask[0, -3:] = 0  # padding makes the attention keep its mask
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.get_base_model().model(input_ids=ids, attention_mask=mask, use_cache=False)
    return float(sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in own))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("top_layers", [0, 1])
def test_activations_are_what_autograd_keeps(tiny_base: bases.Base, dtype: str, top_layers: int) -> None:
    rows, width = 4, 64
    shape = shape_of(tiny_base.folder / "config.json")
    settings = {"max_length": width, "max_new_tokens": 8, "token_budget": rows * width, "lora_r": 4}
    found = activations(shape, plan(dtype=dtype, top_layers=top_layers, **settings))
    # Beside what a token takes there are tables and casts of weights: more than usual on a base as small as this.
    assert found == pytest.approx(kept_by_autograd(tiny_base, dtype, top_layers, rows, width), rel=0.1)


def smol() -> Shape:
    linears = tuple((i, 576, n) for i in range(30) for n in (576, 192, 192, 576, 1536, 1536)) + tuple(
        (i, 1536, 576) for i in range(30)
    )
    return Shape(30, 576, 1536, 9, 576, 192, 49152, linears, 49152 * 576 + 61 * 576, 0)


@pytest.mark.parametrize(
    ("more", "less"),
    [
        ({}, {"gradient_checkpointing": True}),
        ({}, {"top_layers": 10}),
        ({"token_budget": 4096}, {"token_budget": 2048}),
        ({"lora_r": 64}, {"lora_r": 16}),
        ({"from_version": "p@1"}, {}),
        ({}, {"pairs": "human", "watch_steps": 0}),
    ],
)
def test_what_takes_more_is_said_to_take_more(more: dict[str, Any], less: dict[str, Any]) -> None:
    def total(settings: dict[str, Any]) -> float:
        return sum(part.bytes for part in estimate(smol(), plan(**settings)).parts)

    assert total(more) > total(less)


def test_four_bits_are_for_the_linear_maps_alone() -> None:
    shape = shape_of(SEVEN_B)
    whole, packed = (
        next(p.bytes for p in estimate(shape, plan("cuda", "bfloat16", quantize=q)).parts if p.name == "base, frozen")
        for q in ("none", "nf4")
    )
    assert whole == 2 * shape.parameters
    assert packed == pytest.approx(2 * (shape.parameters - shape.linear) + 4.127 / 8 * shape.linear, rel=1e-4)


def test_of_phases_the_largest_counts() -> None:
    parts = (Part("a", 5, "host"), Part("b", 3, "host", "step"), Part("c", 1, "host", "step"))
    parts += (Part("d", 2, "host", "sampling"), Part("e", 7, "device"))
    found = Estimate(parts)
    assert (found.bytes("host"), found.bytes("device")) == (9, 7)
    assert fits(found, "host", {"host": 9 * 1.21}) is True
    assert fits(found, "host", {"host": 9 * 1.19}) is False  # a fifth must be to spare
    assert fits(found, "device", {"device": None}) is None


@pytest.mark.parametrize("file", POLICIES, ids=lambda f: f.name)
def test_every_policy_configuration_loads_opens_with_its_command_and_is_estimated(
    rlhf: CommandLine, file: Path
) -> None:
    from test_docs import parse

    chosen = config.load(policy.PolicySettings, file, name="p", reward="r@1")
    words = file.read_text("utf-8").splitlines()[0].removeprefix("# ").split()
    assert parse(words[1:]) == "rlhf policy train"
    assert words[words.index("--config") + 1] == file.relative_to(PROJECT).as_posix()
    architecture = SEVEN_B if chosen.base == SEVEN_B.stem else None
    given = ["--base-config", str(architecture)] if architecture else ["base=tiny"]
    answer = rlhf.json("doctor", "--estimate", file, *given)
    assert answer["role"] == "policy" and answer["gib"]["host"] > 0.5
    assert answer["device"] == ("cuda" if architecture else "cpu")


def test_a_reward_configuration_is_estimated_with_words_over_it(rlhf: CommandLine) -> None:
    file = PROJECT / "configs" / "reward" / "tiny.yaml"
    assert config.load(RewardSettings, file, name="r", snapshot="s").base == "tiny"
    small, large = (rlhf.json("doctor", "--estimate", file, f"token_budget={n}") for n in (2048, 65536))
    assert small["role"] == "reward"
    assert small["gib"]["host"] < large["gib"]["host"]
    assert small["fits"] == {"host": True}
    (plain,) = [line for line in rlhf("doctor", "--estimate", file).out.splitlines() if "in all" in line]
    assert "fits with a fifth to spare" in plain


def test_an_estimate_refuses_what_a_training_would(rlhf: CommandLine, tmp_path: Path) -> None:
    file = PROJECT / "configs" / "policy" / "tiny.yaml"
    absent = rlhf("doctor", "--estimate", file, "base=absent", "--json")
    assert (absent.status, absent.error["code"]) == (1, "not_found")
    assert "--base-config" in absent.error["fix"]
    assert "zork" in rlhf("doctor", "--estimate", file, "zork=1", "--json").error["message"]
    assert rlhf("doctor", "--estimate", tmp_path / "none.yaml", "--json").status == 2
    assert rlhf("doctor", "base=tiny", "--json").status == 2


def test_the_architecture_file_says_nothing_but_numbers() -> None:
    values = json.loads(SEVEN_B.read_text("utf-8"))
    assert all(isinstance(value, int | bool) for key, value in values.items() if key != "model_type")
