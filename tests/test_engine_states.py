"""Pooled inner states: those of a full forward, whatever a reply is packed with, and no layer above the highest runs."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel, GPT2Config, GPT2Model, LlamaConfig, LlamaModel, Qwen2Config, Qwen2Model

from rlhf.engine import classifiers, packing, states
from rlhf.engine.bases import Base
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement
from rlhf.engine.rendering import Renderer
from rlhf.engine.states import Reading
from rlhf.errors import BadInput
from rlhf.records import Message

CPU = Placement("cpu", "float32", "test")
READING = Reading((1, 2, 3), ("last", "mean"), ())
REPLIES = ["Yes red blue thanks", "No", "Yes\n\ngreen, and a good deal more of it", "1"]


def chats(renderer: Renderer) -> list[list[int]]:
    prompt = (Message("user", "Q?"), Message("assistant", "an answer"), Message("user", "And?"))
    return [renderer.ids((*prompt, Message("assistant", reply))) for reply in REPLIES]


def full(base: Base, ids: list[int], reading: Reading) -> torch.Tensor:
    """The same from transformers' own hidden states of the reply alone."""
    model = AutoModel.from_pretrained(base.folder, attn_implementation="sdpa").eval()
    with torch.inference_mode():
        hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    start = max(
        (
            i + len(reading.opening)
            for i in range(len(ids))
            if tuple(ids[i : i + len(reading.opening)]) == reading.opening
        ),
        default=0,
    )
    start = start if reading.opening else 0
    parts = []
    for layer in reading.layers:
        for how in reading.pooling:
            parts.append(hidden[layer][0, -1] if how == "last" else hidden[layer][0, start:].mean(dim=0))
    return torch.cat(parts)


@pytest.mark.parametrize("attention", ["packed", "sdpa"])
def test_states_equal_a_full_forwards_hidden_states(tiny_base: Base, attention: str) -> None:
    renderer = Renderer(tiny_base.tokenizer(), 1024)
    reading = Reading((1, 2, 3), ("last", "mean"), states.opening_of(renderer))
    model = classifiers.classifier(tiny_base, CPU, seed=0).eval()
    model.set_attn_implementation(attention)
    ids = chats(renderer)
    found = states.states(model, reading, [Group((), (tuple(one),)) for one in ids], token_budget=80)
    for row, one in zip(found, ids, strict=True):
        assert torch.allclose(row, full(tiny_base, one, reading), atol=1e-5)


def test_a_replys_states_do_not_depend_on_what_it_is_packed_with(tiny_base: Base) -> None:
    """Also where the shared prefix reaches into the replies, or ends long before them."""
    renderer = Renderer(tiny_base.tokenizer(), 1024)
    reading = Reading((2,), ("last", "mean"), states.opening_of(renderer))
    model = classifiers.classifier(tiny_base, CPU, seed=0).eval()
    ids = chats(renderer)
    shared = next(i for i in range(len(ids[0])) if len({one[i] for one in ids}) > 1)
    alone = states.states(model, reading, [Group((), (tuple(one),)) for one in ids])
    for cut in (5, shared - 9, shared):
        together = states.states(model, reading, [Group(ids[0][:cut], tuple(tuple(one[cut:]) for one in ids))])
        assert torch.allclose(together, alone, atol=1e-5), cut
    half = states.states(model, reading, [Group(ids[0][: shared + 3], (ids[0][shared + 3 :], ids[0][shared + 3 :]))])
    assert torch.allclose(half, alone[:1].expand(2, -1), atol=1e-5)


def test_an_opening_is_what_every_reply_comes_after(tiny_base: Base) -> None:
    tokenizer = tiny_base.tokenizer()
    opening = states.opening_of(Renderer(tokenizer, 1024))
    assert tokenizer.decode(opening) == "<|im_start|>assistant\n"


def test_no_layer_above_the_highest_that_is_read_runs(tiny_base: Base) -> None:
    model = classifiers.classifier(tiny_base, CPU, seed=0).eval()
    body = getattr(model, model.base_model_prefix)
    ran = []
    for i, layer in enumerate(states.decoder_layers(body)):
        layer.mlp.register_forward_hook(lambda *_args, i=i: ran.append(i))
    states.states(model, Reading((1, 2), ("last",), ()), [Group((), ((5, 6, 7),))])
    assert ran == [0, 1]
    assert not any(layer._forward_pre_hooks for layer in states.decoder_layers(body))


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (GPT2Model, GPT2Config(n_layer=3, n_head=2, n_embd=16, vocab_size=60, n_positions=64)),
        (
            Qwen2Model,
            Qwen2Config(
                num_hidden_layers=3, hidden_size=16, num_attention_heads=2, num_key_value_heads=1,
                intermediate_size=32, vocab_size=60,
            ),
        ),
        (
            LlamaModel,
            LlamaConfig(
                num_hidden_layers=3, hidden_size=16, num_attention_heads=2, num_key_value_heads=1,
                intermediate_size=32, vocab_size=60,
            ),
        ),
    ],
    ids=["gpt2", "qwen2", "llama"],
)  # fmt: skip
def test_states_of_other_architectures(make: type, config: object) -> None:
    torch.manual_seed(0)
    body = make(config).eval()
    rows = [[3, 4, 5, 6, 7], [9, 8, 7]]
    batch = packing.pad_rows(rows, 0)
    with torch.inference_mode():
        found = states.pooled_states(body, READING, **batch)
        for row, ids in zip(found, rows, strict=True):
            hidden = body(torch.tensor([ids]), output_hidden_states=True).hidden_states
            wanted = [part for k in READING.layers for part in (hidden[k][0, -1], hidden[k][0].mean(dim=0))]
            assert torch.allclose(row, torch.cat(wanted), atol=1e-5)


def test_layers_that_the_base_lacks_are_refused(tiny_base: Base) -> None:
    model = classifiers.classifier(tiny_base, CPU, seed=0)
    for layers in ((0,), (4,)):
        with pytest.raises(BadInput, match="1 to 3"):
            states.states(model, Reading(layers, ("last",), ()), [Group((), ((5, 6),))])
