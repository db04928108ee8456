"""Promises 2 and 3: one scorer, and packed equals padded, for any lengths."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.engine import rewards, scoring
from rlhf.engine.bases import Base
from rlhf.engine.packing import Group, Packing, pack, packed_attention
from rlhf.engine.placement import Placement

CPU = Placement("cpu", "float32", "test")


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> object:
    base = Base("tiny", "0" * 64, tiny_folder, "", "", {}, {})
    made = rewards.fresh(base, CPU, rewards.LoraShape(4, 8, 0.0, 0), seed=1)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
        if "score.modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=1.0)
    return made


def padded(model: object) -> object:
    model.get_base_model().set_attn_implementation("sdpa")  # type: ignore[attr-defined]
    return model


def packed(model: object) -> object:
    model.get_base_model().set_attn_implementation("packed")  # type: ignore[attr-defined]
    return model


tokens = st.lists(st.integers(0, 255), min_size=1, max_size=9).map(tuple)
groups = st.lists(
    st.builds(
        Group,
        st.lists(st.integers(0, 255), max_size=12).map(tuple),
        st.lists(tokens, min_size=1, max_size=4).map(tuple),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=40, deadline=None)
@given(batch=groups)
def test_packed_equals_padded_scores_and_gradients(model: object, batch: list[Group]) -> None:
    found = []
    for way in (packed, padded):
        way(model).zero_grad()  # type: ignore[attr-defined]
        scores = scoring.scores_of(model, batch)
        (scores * torch.linspace(1, 2, len(scores))).sum().backward()
        found.append((scores.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))  # type: ignore[attr-defined]
    (scores_a, grads_a), (scores_b, grads_b) = found
    assert torch.allclose(scores_a, scores_b, atol=1e-4)
    assert grads_a.keys() == grads_b.keys() and grads_a
    total = torch.stack([gradient.norm() for gradient in grads_b.values()]).norm()
    for name, gradient in grads_b.items():
        assert (grads_a[name] - gradient).norm() <= 1e-4 * total, name


@settings(max_examples=25, deadline=None)
@given(batch=groups, budget=st.integers(1, 60))
def test_a_score_does_not_depend_on_its_batch(model: object, batch: list[Group], budget: int) -> None:
    packed(model)
    alone = [scoring.score(model, [group])[0] for group in batch]
    together = scoring.score(model, batch, token_budget=budget)
    assert torch.allclose(
        torch.tensor([s for row in alone for s in row]), torch.tensor([s for row in together for s in row]), atol=1e-4
    )


def test_replies_that_end_in_the_pad_token_are_scored_at_their_end(model: object) -> None:
    """pad == eos == 2 here: stock pooling would read an earlier token."""
    group = Group((1, 7, 8), ((9, 2, 2), (9, 2)))
    by_end = scoring.score(packed(model), [group])[0]
    assert by_end == pytest.approx(scoring.score(padded(model), [group])[0], abs=1e-5)
    assert abs(by_end[0] - by_end[1]) > 1e-5


def test_block_mask_for_flex_attention_sees_what_the_loop_sees() -> None:
    """The CUDA path's mask, evaluated eagerly on a CPU, gives the CPU path's attention."""
    from torch.nn.attention.flex_attention import flex_attention

    torch.manual_seed(0)
    batch = pack([Group(range(5), (range(3), range(2))), Group((), (range(4), range(1))), Group(range(2), (range(1),))])
    packing: Packing = batch.packing
    query, key, value = (torch.randn(1, heads, packing.n_tokens, 16) for heads in (4, 2, 2))
    ours, _ = packed_attention(torch.nn.Module(), query, key, value, None, scaling=0.25, packing=packing)
    flex = flex_attention(query, key, value, block_mask=packing.block_mask, scale=0.25, enable_gqa=True).transpose(1, 2)
    assert torch.allclose(ours, flex, atol=1e-5)


def test_positions_restart_after_the_prefix_for_every_reply() -> None:
    batch = pack([Group((10, 11), ((12, 13), (14,)))])
    assert batch.input_ids.tolist() == [[10, 11, 12, 13, 14]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2]]
    assert batch.ends.tolist() == [3, 4]


def test_every_layer_reads_the_packing(model: object) -> None:
    """A model that drops the argument on the way would silently let replies see each other."""
    batch = pack([Group((1, 2), ((3,), (4,)))])
    packed(model)(**batch.arguments())
    assert batch.packing.calls == [3]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible")
def test_packed_on_cuda_equals_packed_on_the_cpu(tiny_folder: Path) -> None:
    """Flex attention's kernel against the loop, float32, same weights."""
    base = Base("tiny", "0" * 64, tiny_folder, "", "", {}, {})
    batch = [Group((1, 7, 8), ((9, 2, 2), (9, 2))), Group((5,), ((6,), (7, 8)))]
    found = []
    for device in ("cpu", "cuda"):
        made = rewards.fresh(base, Placement(device, "float32", "test"), rewards.LoraShape(4, 8, 0.0, 0), seed=1)
        found.append(torch.tensor(scoring.score(made, batch)[0]))
    assert torch.allclose(found[0], found[1], atol=1e-4)
