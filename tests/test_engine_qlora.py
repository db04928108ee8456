"""QLoRA: the frozen body in 4 bits, and everything that is promised of a policy all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from policies import human, parts, settings, weights, without_page

from rlhf import policy
from rlhf.engine import policies as on_base
from rlhf.engine.bases import Base
from rlhf.engine.placement import Placement
from rlhf.engine.rewards import LoraShape
from rlhf.policy.reply_log import adapter_digest
from rlhf.store import Workspace

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (pip install 'rlhf[qlora]')")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of bitsandbytes


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    ids = torch.arange(40).view(2, 20) + 5
    model.train().zero_grad()
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sampling_leaves_the_gradient_as_it_was(tiny_base: Base, dtype: str) -> None:
    """bitsandbytes repacks its weights in eval mode on some CPUs, and lets no gradient through from then on."""
    place = Placement("cpu", dtype, "")
    model = on_base.fresh(tiny_base, place, LoraShape(4, 8, 0.0, 0), seed=0, quantize="nf4")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    before = gradients(model)
    assert len(before) == 2 * 7 * 3  # A and B of seven maps in three layers: none is overlooked for being 4-bit
    model.eval()
    with torch.inference_mode():
        model(input_ids=torch.arange(12).view(1, 12))
    after = gradients(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_only_linear_maps_of_the_body_are_packed(tiny_base: Base) -> None:
    model = on_base.bare(tiny_base, Placement("cpu", "float32", ""), quantize="nf4")
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
    assert model.lm_head.weight.dtype == model.model.embed_tokens.weight.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_policy_on_a_4_bit_base_trains_is_published_and_writes(
    policies: Workspace, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    without_page(monkeypatch)
    trained = policy.train(
        policies, human(quantize="nf4", dtype=dtype, watch_steps=3, watch_prompts=2, guard_doubt=0.5)
    )
    found = weights(policies, trained.version)
    assert all(tensor.dtype == torch.float32 for tensor in found.values())  # TRL would round them to bfloat16
    assert any(bool(tensor.any()) for name, tensor in found.items() if "lora_B" in name)
    prompts = policy.prompts_of(policies, "polite", "test")[:1]
    (reply,) = policy.replies(policies, str(trained.version), prompts, policy.Sampling(max_new_tokens=4))
    assert reply.n_tokens == 4 and reply.logp != reply.logp_base


def test_going_on_from_a_version_starts_at_its_weights(policies: Workspace, tmp_path: Path) -> None:
    from rlhf.policy.methods import rollout_trainer

    material, setup = parts(policies, tmp_path / "run", settings(method="grpo", from_version="start@1", quantize="nf4"))
    before = adapter_digest(setup.model)
    with on_base.lora_kept(setup.model):
        rollout_trainer(material, setup, 1, tmp_path / "run")
    assert adapter_digest(setup.model) == before


def test_resumed_on_a_4_bit_base_equals_uninterrupted(
    policies: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_page(monkeypatch)
    whole = policy.train(policies, human(name="whole", quantize="nf4", max_steps=4, save_steps=2))
    from rlhf.errors import Interrupted
    from rlhf.training.progress import StopAtSignal

    again = human(name="again", quantize="nf4", max_steps=4, save_steps=2)
    with monkeypatch.context() as patch:
        ends = StopAtSignal.on_step_end

        def stop(self: StopAtSignal, args: object, state: object, control: object, **kwargs: object) -> None:
            self.asked = self.asked or getattr(state, "global_step", 0) == 2
            ends(self, args, state, control, **kwargs)

        patch.setattr(StopAtSignal, "on_step_end", stop)
        with pytest.raises(Interrupted):
            policy.train(policies, again)
    resumed = policy.train(policies, again, resume=True)
    expected, found = weights(policies, whole.version), weights(policies, resumed.version)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
