"""The loss of a pair, held against TRL's own and against its definition."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from trl import RewardConfig, RewardTrainer

from rlhf.engine import rewards
from rlhf.engine.bases import Base
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement
from rlhf.engine.scoring import scores_of
from rlhf.reward.loss import pair_loss

CPU = Placement("cpu", "float32", "test")


@pytest.mark.parametrize("margin", [0.0, 0.7])
def test_our_reward_loss_equals_trls(tiny_folder: Path, tmp_path: Path, margin: float) -> None:
    """Promise 12: the same pairs through TRL's collator, forward and loss, and through ours: loss and gradients."""
    base = Base("tiny", "0" * 64, tiny_folder, "", "", {}, {})
    model = rewards.fresh(base, CPU, rewards.LoraShape(4, 8, 0.0, 0), seed=3)
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    prefix, chosen, rejected = (5, 6, 7, 8), [(9, 10), (11, 12, 13), (14,)], [(20, 21, 22), (23,), (24, 25)]
    rows = {
        "chosen_ids": [[*prefix, *c] for c in chosen],
        "rejected_ids": [[*prefix, *r] for r in rejected],
        "margin": [margin] * 3,
    }
    args = RewardConfig(
        output_dir=str(tmp_path),
        bf16=False,
        activation_checkpointing=False,
        use_cpu=True,
        report_to=[],
        center_rewards_coefficient=0.01,
        per_device_train_batch_size=3,
    )
    tokenizer = base.tokenizer()
    trl_side = RewardTrainer(model=model, args=args, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer)
    batch = trl_side.data_collator([{k: v[i] for k, v in rows.items()} for i in range(3)])
    model.get_base_model().set_attn_implementation("sdpa")
    theirs = trl_side.compute_loss(model, dict(batch))
    theirs.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    model.get_base_model().set_attn_implementation("packed")
    scores = scores_of(model, [Group(prefix, pair) for pair in zip(chosen, rejected, strict=True)]).view(-1, 2)
    ours = pair_loss(scores[:, 0], scores[:, 1], torch.ones(3), torch.full((3,), margin), 0.01).mean()
    ours.backward()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert (parameter.grad - gradients[name]).norm() <= 1e-4 * gradients[name].norm() + 1e-7, name


def test_a_tie_pulls_the_scores_together() -> None:
    d = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    zero, half = torch.zeros(3), torch.full((3,), 0.5)
    pair_loss(d, zero, half, zero, 0.0).sum().backward()
    assert d.grad is not None
    assert d.grad[0] < 0 and d.grad[1].abs() < 1e-7 and d.grad[2] > 0


def test_a_soft_target_is_least_at_its_own_odds() -> None:
    target = torch.tensor([0.8])
    d = torch.linspace(-4, 4, 8001)
    losses = pair_loss(d, torch.zeros_like(d), target.expand_as(d), torch.zeros_like(d), 0.0)
    assert d[losses.argmin()].item() == pytest.approx(torch.logit(target).item(), abs=2e-3)


def test_a_margin_asks_for_a_wider_gap() -> None:
    one = torch.ones(1)
    assert pair_loss(2 * one, 0 * one, one, one, 0.0) > pair_loss(2 * one, 0 * one, one, 0 * one, 0.0)
