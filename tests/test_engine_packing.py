"""Promises 2 and 3: one scorer, and packed equals padded, for any lengths."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.engine import rewards, scoring
from rlhf.engine.attention import by_span, packed_attention
from rlhf.engine.bases import Base
from rlhf.engine.packing import Group, Packing, pack
from rlhf.engine.placement import Placement
from rlhf.engine.rendering import Renderer
from rlhf.records import Message

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


def of_lengths(lengths: list[tuple[int, list[int]]]) -> Packing:
    return pack([Group(range(n), tuple(range(m) for m in replies)) for n, replies in lengths]).packing


def seen_by_definition(packing: Packing) -> torch.Tensor:
    """(T, T) boolean: a token sees the tokens up to itself, of its prefix and of its own reply."""
    seen = torch.zeros(packing.n_tokens, packing.n_tokens, dtype=torch.bool)
    for spans in packing.groups:
        for span in spans:
            own = [*range(span.prefix_start, span.prefix_stop), *range(span.start, span.stop)]
            for at, row in enumerate(own):
                seen[row, own[: at + 1]] = True
    return seen


# One-token replies, empty prompts, one reply or many to a prompt, shorter and longer than a tile.
row_lengths = st.lists(
    st.tuples(st.integers(0, 150), st.lists(st.integers(1, 90), min_size=1, max_size=6)), min_size=1, max_size=3
)


@settings(max_examples=40, deadline=None)
@given(lengths=row_lengths)
def test_tiles_and_block_mask_see_what_the_definition_says(lengths: list[tuple[int, list[int]]]) -> None:
    packing = of_lengths(lengths)
    wanted = seen_by_definition(packing)
    tiled = torch.zeros_like(wanted)
    rows: list[int] = []
    for tile in packing.tiles:
        keys = torch.cat([torch.arange(start, stop) for start, stop in tile.stretches])
        for at, row in enumerate(range(tile.start, tile.stop)):
            tiled[row, keys[: len(keys) - (tile.stop - tile.start) + at + 1]] = True
            rows.append(row)
    assert sorted(rows) == list(range(packing.n_tokens)) and torch.equal(tiled, wanted)
    at = torch.arange(packing.n_tokens)
    assert torch.equal(packing.block_mask.mask_mod(0, 0, at[:, None], at[None, :]), wanted)


@settings(max_examples=30, deadline=None)
@given(lengths=row_lengths, heads=st.sampled_from([(4, 2), (3, 3), (3, 1)]), wide=st.booleans())
def test_tiled_attention_and_its_gradients_are_those_of_torchs_kernel(
    lengths: list[tuple[int, list[int]]], heads: tuple[int, int], wide: bool
) -> None:
    packing = of_lengths(lengths)
    torch.manual_seed(packing.n_tokens)
    kind = torch.float64
    shapes = ((heads[0], 8), (heads[1], 8), (heads[1], 12 if wide else 8))
    states = [torch.randn(1, packing.n_tokens, *shape, dtype=kind).transpose(1, 2) for shape in shapes]
    found = []
    for way in (lambda *qkv: packed_attention(torch.nn.Module(), *qkv, None, packing=packing)[0], None):
        leaves = [state.clone().requires_grad_(True) for state in states]
        out = way(*leaves) if way else by_span(*leaves, packing, 8**-0.5)
        out.mul(torch.linspace(-1, 1, out.numel(), dtype=kind).view(out.shape)).sum().backward()
        found.append([out.detach(), *(leaf.grad for leaf in leaves)])
    assert found[0][0].shape == (1, packing.n_tokens, heads[0], shapes[2][1])
    for ours, torchs in zip(*found, strict=True):
        assert torch.allclose(ours, torchs, atol=1e-10)


def test_bfloat16_gradients_are_no_further_off_than_torchs_kernel() -> None:
    packing = of_lengths([(90, [30, 40]), (0, [70, 1])])
    torch.manual_seed(0)
    states = [torch.randn(1, heads, packing.n_tokens, 16).bfloat16() for heads in (6, 2, 2)]
    ways: list[tuple[torch.dtype, bool]] = [(torch.float64, False), (torch.bfloat16, True), (torch.bfloat16, False)]
    found = []
    for kind, ours in ways:
        leaves = [state.to(kind, copy=True).requires_grad_(True) for state in states]
        if ours:
            out, _ = packed_attention(torch.nn.Module(), *leaves, None, scaling=0.5, packing=packing)
        else:
            out = by_span(*leaves, packing, 0.5)
        out.backward(torch.linspace(-1, 1, out.numel()).view(out.shape).to(kind))
        found.append([leaf.grad.double() for leaf in leaves if leaf.grad is not None])
    for right, ours_, torchs in zip(*found, strict=True):
        assert (ours_ - right).norm() <= 1.2 * (torchs - right).norm() <= 0.03 * right.norm()


def test_dropout_in_the_attention_is_torchs() -> None:
    """GPT-2's configuration has it: the tiles know none."""
    packing = of_lengths([(5, [3, 2])])
    query, key, value = (torch.randn(1, 2, packing.n_tokens, 8) for _ in range(3))
    torch.manual_seed(1)
    ours, _ = packed_attention(torch.nn.Module(), query, key, value, None, dropout=0.5, packing=packing)
    torch.manual_seed(1)
    assert torch.equal(ours, by_span(query, key, value, packing, 8**-0.5, 0.5))
    assert not torch.allclose(ours, by_span(query, key, value, packing, 8**-0.5), atol=1e-3)


def test_a_prompt_longer_than_the_limit_scores_packed_as_padded(model: object, tiny_folder: Path) -> None:
    """Its oldest turns go, and what is left scores alike both ways; where that isn't enough there is nothing to score."""
    renderer = Renderer(Base("tiny", "0" * 64, tiny_folder, "", "", {}, {}).tokenizer(), max_length=160)
    turns = (Message("user", "x" * 120), Message("assistant", "yes"), Message("user", "And now?"))
    kept = [renderer.reply(turns, text) for text in ("red", "r", "a blue one")]
    assert all(not isinstance(one, str) and one[1] == 2 for one in kept)
    batch = [Group.of([one[0] for one in kept])]  # type: ignore[index]
    assert len(batch[0].prefix) > 60
    ours, stock = (scoring.score(way(model), batch)[0] for way in (packed, padded))
    assert ours == pytest.approx(stock, abs=1e-4) and len({round(score, 4) for score in ours}) == 3
    assert renderer.reply(turns, "r" * 200) == "too_long"


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
