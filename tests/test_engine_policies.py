"""Policies on one base: replies that depend on their seed alone, and rewards that share the base and leave no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf.engine import generation, policies, rewards, scoring
from rlhf.engine.bases import Base
from rlhf.engine.generation import Sampling
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement
from rlhf.engine.rewards import LoraShape
from rlhf.engine.shared import SharedReward
from rlhf.errors import BadInput
from rlhf.store import Workspace

CPU = Placement("cpu", "float32", "tests")
SHAPE = LoraShape(4, 8, 0.0, 0)


@pytest.fixture
def base(workspace: Workspace, tiny_base: Base) -> Base:
    return tiny_base


@pytest.fixture
def reward_folder(base: Base, tmp_path: Path) -> Path:
    """A reward whose LoRA does something, on the two upper layers only."""
    model = rewards.fresh(base, CPU, LoraShape(4, 8, 0.0, 2), seed=3)
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / "reward")
    return tmp_path / "reward"


def moved(model: Any, seed: int = 1) -> Any:
    """Give a fresh LoRA weights that change the replies."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B.default" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def groups() -> list[Group]:
    return [Group((5, 9, 11, 40), ((60, 61, 62), (70, 71))), Group((5, 9), ((80, 81, 82, 83), (90,)))]


def prompts_of(n: int) -> list[list[int]]:
    return [[1, 10 + i, *range(20, 20 + i % 5), 30] for i in range(n)]


def test_a_reply_depends_on_its_seed_and_not_on_its_batch(base: Base) -> None:
    model = moved(policies.fresh(base, CPU, SHAPE, seed=0))
    prompts, seeds = prompts_of(6), [generation.seed_of(0, str(i)) for i in range(6)]
    together = generation.generate(model, prompts, seeds, Sampling(max_new_tokens=12))
    alone = [
        generation.generate(model, [p], [s], Sampling(max_new_tokens=12))[0]
        for p, s in zip(prompts, seeds, strict=True)
    ]
    assert together == alone
    other = generation.generate(model, prompts, [s + 1 for s in seeds], Sampling(max_new_tokens=12))
    assert other != together


def test_sampling_follows_the_models_distribution(base: Base) -> None:
    """1,500 one-token replies to one prompt: total variation from the softmax within what chance allows."""
    model = policies.bare(base, CPU)
    prompt = [1, 50, 60, 2]
    with torch.inference_mode():
        p = model(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(-1)
    n = 1500
    drawn = generation.generate(model, [prompt] * n, list(range(n)), Sampling(max_new_tokens=1), rows_at_once=500)
    counts = torch.bincount(torch.tensor([reply.ids[0] for reply in drawn]), minlength=len(p)) / n
    expected = (p * (1 - p) / n).sqrt().sum() / 2  # about the mean absolute deviation, were it all chance
    assert (counts - p).abs().sum() / 2 < 1.5 * expected


def test_temperature_zero_takes_the_likeliest_token(base: Base) -> None:
    model = policies.bare(base, CPU)
    with torch.inference_mode():
        likeliest = int(model(input_ids=torch.tensor([[1, 50, 60]])).logits[0, -1].argmax())
    for seed in (0, 1):
        assert generation.generate(model, [[1, 50, 60]], [seed], Sampling(1, 0.0))[0].ids == (likeliest,)


def test_a_reply_ends_at_its_first_end_token() -> None:
    assert generation.up_to_end([7, 2, 2, 2], [2]) == generation.Sampled((7, 2), False)
    assert generation.up_to_end([7, 8], [2]) == generation.Sampled((7, 8), True)


def test_log_probabilities_do_not_depend_on_the_batch(base: Base) -> None:
    model = moved(policies.fresh(base, CPU, SHAPE, seed=0))
    prompts = prompts_of(5)
    replies = [[40 + j for j in range(1 + i)] for i in range(5)]
    together = generation.log_probabilities(model, prompts, replies)
    for prompt, reply, value in zip(prompts, replies, together, strict=True):
        with torch.inference_mode():
            logp = model(input_ids=torch.tensor([prompt + reply])).logits[0].log_softmax(-1)
        plain = sum(float(logp[len(prompt) - 1 + i, token]) for i, token in enumerate(reply))
        assert value == pytest.approx(plain, abs=1e-4)


def test_a_shared_reward_scores_as_the_reward_alone(base: Base, reward_folder: Path) -> None:
    alone = scoring.score(rewards.load(reward_folder, base, CPU), groups())
    model = moved(policies.fresh(base, CPU, SHAPE, seed=0))
    shared = SharedReward(model, reward_folder, "reward0")
    for one, other in zip(shared.score(groups()), alone, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_scoring_leaves_the_trainers_adapter_as_it_found_it(base: Base, reward_folder: Path) -> None:
    """Adapter, gradients and modes; a trainer whose LoRA is frozen by a switch trains nothing and says nothing."""
    model = moved(policies.fresh(base, CPU, SHAPE, seed=0))
    shared = SharedReward(model, reward_folder, "reward0")
    model.train()
    model.get_base_model().model.layers[0].eval()

    def state() -> Any:
        return (
            model.active_adapters,
            [(n, p.requires_grad) for n, p in model.named_parameters()],
            [m.training for m in model.modules()],
        )

    before = state()
    weights = {n: p.clone() for n, p in model.named_parameters() if "lora" in n}
    shared.score(groups())
    with policies.switched(model, None), torch.inference_mode():
        model(input_ids=torch.tensor([[1, 2, 3]]))
    assert state() == before
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {n for n in weights if ".default." in n}
    assert all(torch.equal(p, weights[n]) for n, p in model.named_parameters() if n in weights)


def test_loading_a_shared_reward_does_not_move_chance(base: Base, reward_folder: Path) -> None:
    model = policies.fresh(base, CPU, SHAPE, seed=0)
    torch.manual_seed(9)
    wanted = torch.rand(3)
    torch.manual_seed(9)
    SharedReward(model, reward_folder, "reward0")
    assert torch.equal(torch.rand(3), wanted)


def test_a_reward_of_another_base_is_refused(
    base: Base, reward_folder: Path, workspace: Workspace, tmp_path: Path
) -> None:
    from rlhf.engine import add_from_dir
    from rlhf.engine.tiny import write_tiny_base

    other = add_from_dir(workspace, "narrow", write_tiny_base(tmp_path / "narrow", hidden=32))
    with pytest.raises(BadInput, match="base"):
        SharedReward(policies.fresh(other, CPU, SHAPE, seed=0), reward_folder, "reward0")


def test_a_policy_reloads_as_it_was(base: Base, tmp_path: Path) -> None:
    model = moved(policies.fresh(base, CPU, SHAPE, seed=0))
    model.save_pretrained(tmp_path / "policy")
    again = policies.load(tmp_path / "policy", base, CPU)
    assert not rewards.lost_in(model, again)
    ids = torch.tensor([[1, 50, 60, 70]])
    with torch.inference_mode():
        assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)


def test_the_reference_is_the_bare_base(base: Base) -> None:
    model = moved(policies.fresh(base, CPU, SHAPE, seed=0))
    plain = policies.bare(base, CPU)
    ids = torch.tensor([[1, 50, 60, 70]])
    with torch.inference_mode(), policies.switched(model, None):
        assert torch.equal(model(input_ids=ids).logits, plain(input_ids=ids).logits)


def test_bfloat16_body_keeps_float32_lora(base: Base, reward_folder: Path) -> None:
    place = Placement("cpu", "bfloat16", "tests")
    model = policies.fresh(base, place, SHAPE, seed=0)
    shared = SharedReward(model, reward_folder, "reward0")
    assert {p.dtype for n, p in model.named_parameters() if "lora_" in n} == {torch.float32}
    alone = scoring.score(rewards.load(reward_folder, base, CPU), groups())
    assert [s for g in shared.score(groups()) for s in g] == pytest.approx([s for g in alone for s in g], abs=0.05)
    assert len(generation.generate(model, [[1, 50]], [0], Sampling(max_new_tokens=3))) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_fresh_lora_writes_what_the_bare_base_writes(base: Base, dtype: str) -> None:
    """To the last bit, so that a first sampling may leave the LoRA out."""
    model = policies.fresh(base, Placement("cpu", dtype, "tests"), SHAPE, seed=0)
    prompts, seeds = prompts_of(4), [1, 2, 3, 4]
    with policies.switched(model, policies.TRAINED):
        own = generation.generate(model, prompts, seeds, Sampling(max_new_tokens=12))
    with policies.switched(model, None):
        assert generation.generate(model, prompts, seeds, Sampling(max_new_tokens=12)) == own
