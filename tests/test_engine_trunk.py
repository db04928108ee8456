"""The frozen trunk: kept states stand in for the layers that computed them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf.engine import rewards
from rlhf.engine.bases import Base
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement
from rlhf.engine.scoring import scores_of
from rlhf.engine.trunk import Trunk, trunk_below
from rlhf.store.cache import Cache


@dataclass(frozen=True)
class Row:
    pair_id: str
    group: Group


ROWS = [
    Row("aa1", Group((1, 2, 3, 4), ((9, 8, 7), (5, 6)))),
    Row("aa2", Group((), ((3, 1, 4, 1, 5), (9,)))),
    Row("bb3", Group((7,), ((1,), (2,)))),
]


def base_in(folder: Path) -> Base:
    return Base("tiny", "d" * 64, folder, "t" * 64, "c" * 64, {}, {})


def model_on(base: Base, top_layers: int = 1, dtype: str = "float32") -> Any:
    model = rewards.fresh(base, Placement("cpu", dtype, "test"), rewards.LoraShape(4, 8, 0.0, top_layers), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(len(name)))
    return model


def gradients(model: Any, below: list[torch.Tensor] | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    scores = scores_of(model, [row.group for row in ROWS], below)
    (scores * torch.arange(1.0, len(scores) + 1)).sum().backward()
    return scores.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scores_and_gradients_through_kept_states_are_those_of_the_whole_model(
    tiny_folder: Path, tmp_path: Path, dtype: str
) -> None:
    base = base_in(tiny_folder)
    model = model_on(base, dtype=dtype)
    whole, wanted = gradients(model, None)
    trunk, why = trunk_below(model, 1, base, Cache(tmp_path, 2**20), ROWS[:1])
    assert trunk is not None, why
    through, found = gradients(model, trunk.states(ROWS))
    tolerance = 2e-3 if dtype == "float32" else 0.03  # float16 keeps 11 bits of a float32 state; bfloat16 sums by batch
    assert (whole - through).abs().max() <= tolerance * whole.abs().max()
    assert found.keys() == wanted.keys() and found
    for name, gradient in found.items():
        assert (gradient - wanted[name]).norm() <= 5 * tolerance * wanted[name].norm(), name
    assert 0 < trunk.error < 1e-3 if dtype == "float32" else trunk.error == 0


def test_a_whole_forward_is_what_it_was_once_a_trunk_is_there(tiny_folder: Path, tmp_path: Path) -> None:
    base = base_in(tiny_folder)
    model = model_on(base)
    before = scores_of(model, [row.group for row in ROWS])
    names = [name for name, _ in model.named_parameters()]
    trunk_below(model, 1, base, Cache(tmp_path, 2**20), ROWS)
    assert torch.equal(before, scores_of(model, [row.group for row in ROWS]))
    assert names == [name for name, _ in model.named_parameters()]


def test_states_are_computed_once_and_the_same_bits_are_read_by_the_next_run(tiny_folder: Path, tmp_path: Path) -> None:
    base = base_in(tiny_folder)
    first = Trunk(model_on(base), 1, base, Cache(tmp_path, 2**20))
    computed = first.states(ROWS)
    assert (first.n_computed, first.n_read) == (3, 0)
    second = Trunk(model_on(base), 1, base, Cache(tmp_path, 2**20))
    read = second.states(list(reversed(ROWS)))[::-1]
    assert (second.n_computed, second.n_read) == (0, 3)
    assert all(torch.equal(one, other) for one, other in zip(computed, read, strict=True))


def test_a_label_that_turns_reads_the_same_entry(tiny_folder: Path, tmp_path: Path) -> None:
    base = base_in(tiny_folder)
    trunk = Trunk(model_on(base), 1, base, Cache(tmp_path, 2**20))
    turned = [Row(r.pair_id, Group(r.group.prefix, r.group.replies[::-1])) for r in ROWS]
    trunk.fill(ROWS)
    states = trunk.states(turned)
    assert trunk.n_computed == 3
    wanted = Trunk(model_on(base), 1, base, Cache(tmp_path / "other", 2**20)).states(turned)
    for one, other in zip(states, wanted, strict=True):
        assert (one.float() - other.float()).abs().max() < 1e-3


def test_a_damaged_entry_is_computed_again(tiny_folder: Path, tmp_path: Path) -> None:
    base = base_in(tiny_folder)
    trunk = Trunk(model_on(base), 1, base, Cache(tmp_path, 2**20))
    wanted = trunk.states(ROWS)
    for file in tmp_path.glob("*/*/*"):
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 255
        file.write_bytes(raw)
    again = trunk.states(ROWS)
    assert trunk.n_computed == 6
    assert all(torch.equal(one, other) for one, other in zip(wanted, again, strict=True))


@pytest.mark.parametrize("changed", ["digest", "tokenizer_digest", "template_digest"])
def test_states_of_another_base_tokenizer_or_template_are_not_read(
    tiny_folder: Path, tmp_path: Path, changed: str
) -> None:
    from dataclasses import replace

    base = base_in(tiny_folder)
    Trunk(model_on(base), 1, base, Cache(tmp_path, 2**20)).fill(ROWS)
    other = Trunk(model_on(base), 1, replace(base, **{changed: "e" * 64}), Cache(tmp_path, 2**20))
    other.fill(ROWS)
    assert other.n_read == 0


def test_another_layer_or_type_reads_none_of_it(tiny_folder: Path, tmp_path: Path) -> None:
    base = base_in(tiny_folder)
    Trunk(model_on(base), 1, base, Cache(tmp_path, 2**20)).fill(ROWS)
    for trunk in (
        Trunk(model_on(base, dtype="bfloat16"), 1, base, Cache(tmp_path, 2**20)),
        Trunk(model_on(base), 2, base, Cache(tmp_path, 2**20)),
    ):
        trunk.fill(ROWS)
        assert trunk.n_read == 0


def test_a_cache_that_is_too_small_costs_time_and_nothing_else(tiny_folder: Path, tmp_path: Path) -> None:
    base = base_in(tiny_folder)
    wanted = Trunk(model_on(base), 1, base, Cache(tmp_path / "big", 2**20)).states(ROWS)
    small = Trunk(model_on(base), 1, base, Cache(tmp_path / "small", 1200))
    for _ in range(2):
        assert all(torch.equal(one, other) for one, other in zip(wanted, small.states(ROWS), strict=True))
    assert small.n_computed > 3


def test_there_is_no_trunk_where_every_layer_is_trained_or_rows_are_padded(tiny_folder: Path, tmp_path: Path) -> None:
    base = base_in(tiny_folder)
    assert trunk_below(model_on(base), 0, base, Cache(tmp_path, 2**20), ROWS)[0] is None
    padded = model_on(base)
    padded.get_base_model().set_attn_implementation("sdpa")
    found, why = trunk_below(padded, 1, base, Cache(tmp_path, 2**20), ROWS)
    assert found is None and "pack" in why


def test_an_architecture_whose_layers_pass_more_than_states_has_no_trunk(tiny_folder: Path, tmp_path: Path) -> None:
    base = base_in(tiny_folder)
    model = model_on(base)
    layers = model.get_base_model().model.layers
    lower, upper = layers[0], layers[-1]
    plain_lower, plain_upper = lower.forward, upper.forward
    seen: list[
        tuple[Any, torch.Tensor]
    ] = []  # of each forward its packing, which keeps it alive, and what a layer left

    def leave(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append((kwargs["packing"], hidden_states.mean(1, keepdim=True)))
        return plain_lower(hidden_states, *args, **kwargs)

    def take(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        left = [states for packing, states in seen if packing is kwargs["packing"]]
        return plain_upper(hidden_states + 3.0 * sum(left), *args, **kwargs)

    lower.forward, upper.forward = leave, take
    found, why = trunk_below(model, 1, base, Cache(tmp_path, 2**20), ROWS)
    assert found is None and "off by" in why
