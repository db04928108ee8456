"""The loss of a pair, held against TRL's own and against its definition."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import RewardConfig, RewardTrainer

from rlhf.engine import rewards
from rlhf.engine.bases import Base
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement
from rlhf.engine.scoring import scores_of
from rlhf.reward.loss import length_pull, outcomes, pair_loss, tau_at_even, tied_pair_loss

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


TIES = ("davidson", "rao_kupper")


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("tau", [-6.0, -0.5, 1.5])
def test_won_lost_and_tied_are_all_that_can_happen(ties: Any, tau: float) -> None:
    d = torch.linspace(-30, 30, 601, dtype=torch.float64)
    found = outcomes(d, ties, torch.tensor(tau, dtype=torch.float64))
    assert sum(p.exp() for p in found).sub(1).abs().max() < 1e-12  # type: ignore[union-attr]
    assert all(torch.isfinite(p).all() for p in outcomes(d.float(), ties, torch.tensor(tau)))


def test_the_likelihoods_are_davidsons_and_rao_and_kuppers() -> None:
    """Both papers write them in strengths pi = exp(score)."""
    one, other, parameter = 2.5, 0.7, 1.3
    d = torch.tensor([one - other], dtype=torch.float64)
    pi, pj = math.exp(one), math.exp(other)
    tau = torch.tensor(math.log(parameter), dtype=torch.float64)
    total = pi + pj + parameter * math.sqrt(pi * pj)
    wanted = [pi / total, pj / total, parameter * math.sqrt(pi * pj) / total]
    assert [p.exp().item() for p in outcomes(d, "davidson", tau)] == pytest.approx(wanted)
    theta = math.exp(parameter)
    wanted = [pi / (pi + theta * pj), pj / (pj + theta * pi)]
    wanted.append((theta**2 - 1) * pi * pj / ((pi + theta * pj) * (theta * pi + pj)))
    assert [p.exp().item() for p in outcomes(d, "rao_kupper", tau)] == pytest.approx(wanted)


@pytest.mark.parametrize("ties", TIES)
def test_the_tied_loss_has_the_gradients_of_its_values(ties: Any) -> None:
    """Finite differences, in float64, through scores and the tie parameter."""
    torch.manual_seed(0)
    chosen, rejected = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    tau = torch.tensor(-0.4, dtype=torch.float64, requires_grad=True)
    tie = torch.tensor([0.0, 1.0, 0.25, 0.5, 0.0], dtype=torch.float64)
    target = torch.tensor([1.0, 0.5, 0.8, 0.75, 0.6], dtype=torch.float64)
    margin = torch.tensor([0.0, 0.0, 0.5, 0.0, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda c, r, t: tied_pair_loss(c, r, target, tie, margin, 0.01, ties, t), (chosen, rejected, tau)
    )


@pytest.mark.parametrize("ties", TIES)
def test_without_ties_the_tied_loss_becomes_todays(ties: Any) -> None:
    torch.manual_seed(0)
    chosen, rejected = torch.randn(2, 20, dtype=torch.float64)
    target, none = torch.rand(20, dtype=torch.float64), torch.zeros(20, dtype=torch.float64)
    ours = tied_pair_loss(chosen, rejected, target, none, none, 0.01, ties, torch.tensor(-40.0, dtype=torch.float64))
    assert torch.allclose(ours, pair_loss(chosen, rejected, target, none, 0.01), atol=1e-12)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("share", [0.05, 0.23, 0.6])
def test_the_first_tie_parameter_gives_equal_scores_the_share_of_ties(ties: Any, share: float) -> None:
    tau = torch.tensor(tau_at_even(share, ties), dtype=torch.float64)
    assert outcomes(torch.zeros(1, dtype=torch.float64), ties, tau)[2].exp().item() == pytest.approx(share)


def test_the_length_pull_has_the_gradient_of_the_squared_correlation() -> None:
    torch.manual_seed(0)
    gap = torch.randn(30, dtype=torch.float64, requires_grad=True)
    length = torch.randn(30, dtype=torch.float64) + 0.5 * gap.detach()
    a, b, c = (gap * length).mean(), (gap**2).mean(), (length**2).mean()
    (wanted,) = torch.autograd.grad(a**2 / (b * c), gap)
    (found,) = torch.autograd.grad(length_pull(gap, length, a.item(), b.item(), c.item()).mean(), gap)
    assert torch.allclose(found, wanted, atol=1e-12)


def test_nothing_pulls_before_anything_is_known_of_lengths() -> None:
    gap = torch.ones(3)
    assert not length_pull(gap, gap, 0.0, 0.0, 0.0).any()
