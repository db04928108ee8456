"""A linear layer and its LoRA in one call give PEFT's outputs and gradients, and leave everything else to PEFT."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear as LoraLinear

from rlhf.engine import fused
from rlhf.engine.fused import FusedLoraLinear, fuse


class Two(torch.nn.Module):
    """A layer without and one with a bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.one = torch.nn.Linear(inputs, outputs, bias=False)
        self.two = torch.nn.Linear(outputs, inputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.two(torch.tanh(self.one(x)))
        return out


def made(inputs: int = 6, outputs: int = 5, *, dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    torch.manual_seed(0)
    model = get_peft_model(
        Two(inputs, outputs).to(dtype), LoraConfig(r=3, lora_alpha=5, target_modules=["one", "two"], **more)
    )
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape) * 0.5  # float32, whatever the body is
    for module in model.modules():
        if isinstance(module, LoraLinear):
            module.cast_input_dtype_enabled = dtype == torch.float32
    return model


def results(model: Any, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Output, and the gradients of input and parameters."""
    x = x.clone().requires_grad_(True)
    with torch.autocast("cpu", dtype=x.dtype, enabled=x.dtype == torch.bfloat16):
        out = model(x)
    (out.float() * torch.linspace(-1, 2, out.numel()).view(out.shape)).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return out.detach(), {**grads, "x": x.grad}


def n_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the calls of the one function, from here on."""
    calls = [0]
    apply = fused._LinearWithLora.apply

    def counted(*args: Any) -> Any:
        calls[0] += 1
        return apply(*args)

    monkeypatch.setattr(fused._LinearWithLora, "apply", counted)
    return calls


@settings(max_examples=30, deadline=None)
@given(shape=st.lists(st.integers(1, 7), min_size=1, max_size=3), inputs=st.integers(1, 9), outputs=st.integers(1, 9))
def test_outputs_and_gradients_are_pefts(shape: list[int], inputs: int, outputs: int) -> None:
    plain = made(inputs, outputs)
    one = fuse(copy.deepcopy(plain))
    assert sum(type(m) is FusedLoraLinear for m in one.modules()) == 2
    x = torch.randn(*shape, inputs)
    (out_a, grads_a), (out_b, grads_b) = results(one, x), results(plain, x)
    assert torch.allclose(out_a, out_b, atol=1e-5)
    assert grads_a.keys() == grads_b.keys() and len(grads_a) == 5
    for name, gradient in grads_b.items():
        assert torch.allclose(grads_a[name], gradient, atol=1e-4, rtol=1e-4), name


def test_a_bfloat16_body_rounds_no_more_than_peft_does() -> None:
    """Against float64: the one call's error is at most PEFT's own, with room for chance."""
    x = torch.randn(40, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    narrow = made(64, 48, dtype=torch.bfloat16)
    exact = made(64, 48).double()
    exact.load_state_dict({name: value.double() for name, value in narrow.state_dict().items()})
    one = fuse(copy.deepcopy(narrow))
    wanted, mine, pefts = results(exact, x.double()), results(one, x), results(narrow, x)
    assert mine[0].dtype == torch.bfloat16
    for name, right in {"out": wanted[0], **wanted[1]}.items():
        errors = [
            (({"out": found[0], **found[1]}[name].double() - right).norm() / right.norm()).item()
            for found in (mine, pefts)
        ]
        assert errors[0] < 1.3 * errors[1] + 1e-4 < 0.05, (name, errors)
    assert all(p.grad.dtype == torch.float32 for n, p in one.named_parameters() if "lora_" in n)


def test_the_plain_case_is_one_call_and_other_cases_are_pefts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3, 6)
    calls = n_calls(monkeypatch)
    fuse(made())(x)
    assert calls == [2]
    with_dropout = fuse(made(lora_dropout=0.5))
    with_dropout.train()(x)
    assert calls == [2], "dropout in training is PEFT's"
    with_dropout.eval()(x)
    assert calls == [4], "without training there is none"
    model = fuse(made())
    with model.disable_adapter():
        bare = model(x)
    merged = fuse(made())
    merged.merge_adapter()
    assert torch.allclose(merged(x), fuse(made())(x), atol=1e-5)
    assert not torch.allclose(bare, model(x), atol=1e-3)
    calls[0] = 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(x).dtype == torch.bfloat16, "autocast of a float32 body goes on as it did"
    model.add_adapter("second", LoraConfig(r=2, target_modules=["one"]))
    model.base_model.set_adapter(["default", "second"])
    model(x)
    assert calls == [1], "two adapters on `one` are PEFT's; `two` has one of them"
    calls[0] = 0
    fuse(made(use_dora=True))(x)
    with pytest.warns(UserWarning, match="lora_bias"):
        biased = made(lora_bias=True)
    fuse(biased)(x)
    assert calls == [0]


def test_what_is_saved_has_pefts_names_and_loads_without_us(tmp_path: Path) -> None:
    model = fuse(made())
    model.save_pretrained(tmp_path)
    from peft import PeftModel

    torch.manual_seed(0)
    stock = PeftModel.from_pretrained(Two(6, 5), tmp_path)
    x = torch.randn(2, 6)
    assert torch.allclose(stock(x), model(x), atol=1e-6)
    assert set(model.state_dict()) == set(made().state_dict())


def test_no_gradient_is_made_for_what_needs_none() -> None:
    model = fuse(made())
    x = torch.randn(2, 6)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("two.lora_A" in name)
    model(x).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is not None] == [
        "base_model.model.two.lora_A.default.weight"
    ]
    with torch.inference_mode():
        assert not model(x).requires_grad


class FixedRMSNorm(torch.nn.Module):
    """As transformers' Llama has it."""

    offset = 0.0

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter((torch.rand(width) + 0.5).to(dtype), requires_grad=False)
        self.variance_epsilon = 1e-5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        exact = x.to(torch.float32)
        exact = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return (self.offset + self.weight) * exact.to(x.dtype)


class OffsetRMSNorm(FixedRMSNorm):
    """As Gemma has it."""

    offset = 1.0


@settings(max_examples=30, deadline=None)
@given(shape=st.lists(st.integers(1, 7), min_size=1, max_size=3), width=st.integers(1, 33), wide=st.booleans())
def test_a_frozen_norm_is_the_models_own(shape: list[int], width: int, wide: bool) -> None:
    dtype = torch.float32 if wide else torch.bfloat16
    plain = FixedRMSNorm(width, dtype)
    one = fuse(copy.deepcopy(plain))  # type: ignore[arg-type]
    assert type(one).__mro__[1] is fused.FusedRmsNorm
    x = (3 * torch.randn(*shape, width)).to(dtype)
    (out_a, grads_a), (out_b, grads_b) = results(one, x), results(plain, x)
    assert torch.equal(out_a, out_b)
    tolerance = 1e-5 if wide else 2**-6
    assert torch.allclose(grads_a["x"].float(), grads_b["x"].float(), rtol=tolerance, atol=4 * tolerance)


def test_a_norm_that_is_trained_or_another_is_left_alone() -> None:
    assert type(fuse(OffsetRMSNorm(8, torch.float32))) is OffsetRMSNorm  # type: ignore[arg-type]
    trained = FixedRMSNorm(8, torch.float32)
    trained.weight.requires_grad_(True)
    assert type(fuse(trained)) is FixedRMSNorm  # type: ignore[arg-type]
    later = fuse(FixedRMSNorm(8, torch.float32))  # type: ignore[arg-type]
    later.weight.requires_grad_(True)
    later(torch.randn(2, 8, requires_grad=True)).sum().backward()
    assert later.weight.grad is not None
