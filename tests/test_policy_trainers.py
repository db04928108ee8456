"""One base for all, and TRL's own numbers: DPO in steps whatever the budget, GRPO and RLOO on fixed completions."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from policies import parts, settings
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from rlhf.engine import policies as engine_policies
from rlhf.engine.policies import TRAINED
from rlhf.policy import training
from rlhf.policy.material import Material
from rlhf.policy.methods import common_arguments, dpo_trainer, rollout_trainer
from rlhf.policy.setup import Setup, freeze_others
from rlhf.records import Message
from rlhf.reward.score import Item, score_items
from rlhf.store import Workspace
from rlhf.training import Run
from rlhf.training.progress import StopAtSignal

METHODS = ("dpo", "grpo", "rloo")
ONE_STEP = {"max_steps": 1, "max_grad_norm": 1e9, "schedule": "constant", "warmup": 0.0, "learning_rate": 1e-3}


class Gradients(TrainerCallback):
    """Keeps what the optimiser is about to step with."""

    def __init__(self) -> None:
        self.found: dict[str, torch.Tensor] = {}
        self.trained: set[int] = set()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        self.found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        self.trained = {id(p) for group in optimizer.param_groups for p in group["params"]}


def gradients(trainer: Any) -> dict[str, torch.Tensor]:
    """Of the first step."""
    kept = Gradients()
    trainer.add_callback(kept)
    trainer.train()
    assert kept.found and all(f".{TRAINED}." in name for name in kept.found)
    return kept.found


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], atol: float = 1e-6) -> None:
    assert one.keys() == other.keys()
    assert max(float(value.abs().max()) for value in one.values()) > 1e-3, "nothing to compare"
    for name, value in one.items():
        assert torch.allclose(value, other[name], atol=atol, rtol=1e-4), (name, (value - other[name]).abs().max())


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if f".{TRAINED}." in n}


def stock_model(material: Material, folder: Path) -> PeftModel:
    """The policy as plain TRL gets it: its base and its adapter, and nothing of ours beside it."""
    model = engine_policies.bare(material.base, material.place)
    model.set_attn_implementation("sdpa")
    return PeftModel.from_pretrained(model, str(folder), is_trainable=True)


# One base


def embeddings() -> int:
    """Tensors of embeddings that are alive in this process, whoever holds them, and however many modules share them."""
    gc.collect()
    found = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.nn.Embedding)]
    return len({thing.weight.data_ptr() for thing in found})


@pytest.mark.parametrize("parent", [None, "start@1"])
@pytest.mark.parametrize("method", METHODS)
def test_one_base_is_in_memory_and_only_the_policys_adapter_is_trained(
    policies: Workspace, tmp_path: Path, method: str, parent: str | None
) -> None:
    """Policy, reference and two rewards: one embedding, one set of base tensors; TRL's copy `ref` and the rewards are frozen."""
    before = embeddings()
    chosen = settings(method=method, from_version=parent, reward=["r@1", "r@2"], pairs_per_step=2, max_steps=1)
    material, setup = parts(policies, tmp_path / "run", chosen)
    trainer, _, _ = training._trainer(material, setup, Run("x", tmp_path / "run"), StopAtSignal(), lambda _text: None)
    assert embeddings() - before == 1
    of_base = [p for n, p in setup.model.named_parameters() if "lora_" not in n]
    plain = list(engine_policies.bare(material.base, material.place).parameters())
    assert len({p.data_ptr() for p in of_base}) == len(of_base) == len(plain)
    assert getattr(trainer, "ref_model", None) is None
    adapters = set(setup.model.peft_config)
    assert {"default", "reward0", "reward1"} <= adapters <= {"default", "reward0", "reward1", "ref"}
    assert parent is None or "ref" in adapters

    frozen = {n: p.detach().clone() for n, p in setup.model.named_parameters() if f".{TRAINED}." not in n}
    start = trained_weights(setup.model)
    wanted = {n for n in start if "lora_" in n}
    assert {n for n, p in setup.model.named_parameters() if p.requires_grad} == wanted
    kept = Gradients()
    trainer.add_callback(kept)
    trainer.train()
    assert set(kept.found) <= wanted
    assert kept.trained == {id(p) for n, p in setup.model.named_parameters() if n in wanted}
    now = dict(setup.model.named_parameters())
    assert any(not torch.equal(now[n], value) for n, value in start.items())
    assert all(torch.equal(now[n], value) for n, value in frozen.items())
    if parent is not None:
        assert all(torch.equal(now[n.replace(".default.", ".ref.")], value) for n, value in start.items())


# DPO


def human(**more: Any) -> Any:
    return settings(**{"pairs": "human", "pairs_per_step": 8, **ONE_STEP, "from_version": "start@1", **more})


def dpo_of(workspace: Workspace, folder: Path, **more: Any) -> tuple[Material, Setup, Any]:
    material, setup = parts(workspace, folder, human(**more))
    trainer = dpo_trainer(material, setup, material.pairs, 1, folder)
    freeze_others(setup.model)
    return material, setup, trainer


def test_the_token_budget_changes_no_gradient(policies: Workspace, tmp_path: Path) -> None:
    cut: dict[int, int] = {}
    found = {}
    for budget in (16, 500, 100_000):
        _, _, trainer = dpo_of(policies, tmp_path / str(budget), token_budget=budget)
        batch = next(iter(trainer.get_train_dataloader()))
        cut[budget] = len(trainer._parts(batch))
        assert sum(weight for _, weight in trainer._parts(batch)) == 8
        found[budget] = gradients(trainer)
    assert cut[16] == 8 and 1 < cut[500] < 8 and cut[100_000] == 1
    assert_same(found[16], found[100_000])
    assert_same(found[500], found[100_000])


def test_dpo_equals_stock_trl(policies: Workspace, tmp_path: Path) -> None:
    """The same pairs as messages through TRL's tokenising, collator, forward and loss: loss, gradients, weights after a step."""
    material, setup, ours = dpo_of(policies, tmp_path / "ours")
    batch = next(iter(ours.get_train_dataloader()))
    names = {tuple(pair.prompt): pair.id for pair in material.pairs}
    wanted = [names[tuple(row["prompt_ids"])] for row in batch]
    rows = {row.pair.id: row for row in material.snapshot.rows("train")}  # type: ignore[union-attr]
    messages = []
    for name in wanted:
        pair, choice = rows[name].pair, rows[name].judgements[0].choice
        chosen, rejected = (pair.reply_a, pair.reply_b) if choice == "a" else (pair.reply_b, pair.reply_a)
        said = [[{"role": "assistant", "content": text}] for text in (chosen, rejected)]
        messages.append({"prompt": [m.as_json() for m in pair.prompt], "chosen": said[0], "rejected": said[1]})
    folder = material.parent.folder  # type: ignore[union-attr]
    model = stock_model(material, folder)
    arguments = common_arguments(material, 1, tmp_path / "stock")
    stock = DPOTrainer(
        model=model,
        args=DPOConfig(**arguments, max_length=None, per_device_train_batch_size=8),
        train_dataset=Dataset.from_list(messages),
        processing_class=material.base.tokenizer(),
    )
    theirs, mine = gradients(stock), gradients(ours)
    assert_same(mine, theirs)
    losses = [next(row["loss"] for row in t.state.log_history if "loss" in row) for t in (ours, stock)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    one, other = trained_weights(setup.model), trained_weights(model)
    for name in one:
        sure = theirs[name].abs() > 1e-5  # Adam's first step is the gradient's sign: rounding decides it near 0
        assert torch.allclose(one[name][sure], other[name][sure], atol=1e-6), name


def test_an_odd_last_step_counts_as_its_pairs(policies: Workspace, tmp_path: Path) -> None:
    """A step of 3 of 8 pairs has 3/8 of the gradient of those 3 alone: loss = sum over pairs / pairs_per_step."""
    material, setup = parts(policies, tmp_path / "a", human())
    part = gradients(dpo_trainer(material, setup, material.pairs[:3], 1, tmp_path / "a"))
    material, setup = parts(policies, tmp_path / "b", human(pairs_per_step=3))
    whole = gradients(dpo_trainer(material, setup, material.pairs[:3], 1, tmp_path / "b"))
    assert_same({n: g * 3 / 8 for n, g in whole.items()}, part)


# GRPO, RLOO


REPLIES = [
    [40, 41, 2],
    [50, 2],
    [60, 61, 62, 63, 64, 65, 66, 67],
    [2],
    [70, 71, 72, 2],
    [80, 81],
    [90, 2],
    [99, 98, 97],
]


class Given:
    """Mixed in first: every generation gives the same token ids, one after the other."""

    seen: dict[str, Any]

    def _generate_single_turn(self, prompt_ids: Sequence[Sequence[int]], *args: Any, **kwargs: Any) -> Any:
        self.seen = {"prompt_ids": prompt_ids}
        replies = [list(REPLIES[i % len(REPLIES)]) for i in range(len(prompt_ids))]
        return replies if isinstance(self, RLOOTrainer) else (replies, None)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        self.seen |= {"advantages": output["advantages"].clone(), "output": output}
        return output


def given(trainer: Any) -> Any:
    trainer.__class__ = type("Given", (Given, type(trainer)), {})
    return trainer


def rollouts_of(workspace: Workspace, folder: Path, method: str, **more: Any) -> tuple[Material, Setup, Any]:
    chosen = settings(
        **{"method": method, "samples": 4, "pairs_per_step": 2, "from_version": "start@1", **ONE_STEP, **more}
    )
    material, setup = parts(workspace, folder, chosen)
    trainer = given(rollout_trainer(material, setup, chosen.max_steps, folder))
    freeze_others(setup.model)
    return material, setup, trainer


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_fixed_completions_give_what_stock_trl_gives(
    policies: Workspace, tmp_path: Path, method: str, beta: float
) -> None:
    """Advantages and gradients of stock TRL with the reward as a model of its own, on the same completions."""
    material, _, ours = rollouts_of(policies, tmp_path / "ours", method, beta=beta)
    mine = gradients(ours)

    def points(prompts: Any, completions: Any, **kwargs: Any) -> list[float]:
        items = [
            Item(i, tuple(Message(m["role"], m["content"]) for m in prompt), completion[0]["content"])
            for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
        ]
        return [row["score"] for row in score_items(policies, "r@1", items)]

    kind, config = (GRPOTrainer, GRPOConfig) if method == "grpo" else (RLOOTrainer, RLOOConfig)
    tokenizer = material.base.tokenizer()
    tokenizer.padding_side = "left"
    stock = kind(
        model=stock_model(material, material.parent.folder),  # type: ignore[union-attr]
        reward_funcs=[points],
        args=config(
            **common_arguments(material, 1, tmp_path / "stock"),
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=8,
            shuffle_dataset=False,
        ),
        train_dataset=Dataset.from_list([{"prompt": [m.as_json() for m in p.kept]} for p in material.prompts]),
        processing_class=tokenizer,
    )
    theirs = gradients(given(stock))
    assert ours.seen["prompt_ids"] == stock.seen["prompt_ids"]
    assert ours.seen["prompt_ids"][::4] == [list(prompt.ids) for prompt in material.prompts], (
        "prompts as we render them"
    )
    assert torch.allclose(ours.seen["advantages"], stock.seen["advantages"], atol=1e-3)
    assert float(ours.seen["advantages"].abs().max()) > 0.02
    assert_same(mine, theirs, atol=1e-4)


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_micro_batch_changes_no_gradient(policies: Workspace, tmp_path: Path, method: str) -> None:
    found, sizes = [], []
    for budget in (16, 100_000):
        _, _, trainer = rollouts_of(policies, tmp_path / str(budget), method, token_budget=budget, beta=0.3)
        sizes.append(trainer.args.per_device_train_batch_size)
        found.append(gradients(trainer))
    assert sizes == [1, 8]
    assert_same(*found)


def test_a_step_is_pairs_per_step_prompts_each_sampled_samples_times(policies: Workspace, tmp_path: Path) -> None:
    material, _, trainer = rollouts_of(policies, tmp_path / "run", "grpo", pairs_per_step=3, max_steps=2)
    gradients(trainer)
    rows = [tuple(ids) for ids in trainer.seen["prompt_ids"]]
    assert rows == [prompt.ids for prompt in material.prompts[3:6] for _ in range(4)]


@pytest.mark.parametrize("parent", [None, "start@1"])
@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_kl_is_right_at_beta_0(policies: Workspace, tmp_path: Path, method: str, parent: str | None) -> None:
    """Against a computation of our own, with dropout on: the policy after one step against its parent, or the base."""
    more = {"beta": 0.0, "from_version": parent, "lora_dropout": 0.3, "max_steps": 2, "learning_rate": 1e-2}
    material, setup, trainer = rollouts_of(policies, tmp_path / "run", method, **more)
    moved: list[dict[str, torch.Tensor]] = []

    class Keep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            moved.append(trained_weights(setup.model))

    trainer.add_callback(Keep())
    trainer.train()
    logged = [row for row in trainer.state.log_history if "kl_token" in row]
    assert logged[0]["kl_token"] == pytest.approx(0.0, abs=1e-6), "the first replies are the reference's own"

    def logps(weights: dict[str, torch.Tensor] | None) -> float:
        model = engine_policies.bare(material.base, material.place)
        if parent is not None:
            model = PeftModel.from_pretrained(model, str(material.parent.folder))  # type: ignore[union-attr]
        elif weights is not None:
            model = PeftModel(model, setup.model.peft_config[TRAINED])
        for name, value in model.named_parameters():
            if weights is not None and name in weights:
                value.data.copy_(weights[name])
        total = 0.0
        for prompt, reply in zip(trainer.seen["prompt_ids"], REPLIES, strict=True):
            with torch.no_grad():
                logp = model.eval()(input_ids=torch.tensor([[*prompt, *reply]])).logits[0].log_softmax(-1)
            total += sum(float(logp[len(prompt) - 1 + i, token]) for i, token in enumerate(reply))
        return total

    n_tokens = sum(map(len, REPLIES))
    kl = logps(moved[0]) - logps(None)
    assert abs(kl) > 0.05
    assert logged[1]["kl_token"] == pytest.approx(kl / n_tokens, abs=1e-4)
    assert logged[1]["kl_reply"] == pytest.approx(kl / len(REPLIES), abs=1e-3)


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_an_unscorable_reply_moves_nothing(
    policies: Workspace, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply without points has advantage 0 and is no sample of its siblings' mean."""
    _, setup, trainer = rollouts_of(policies, tmp_path / "run", method)
    score = setup.rewards.score

    def without_the_second(replies: Any) -> Any:
        rows = score(replies)
        rows[1] = type(rows[1])(None, (None,))
        return rows

    monkeypatch.setattr(setup.rewards, "score", without_the_second)
    trainer.train()
    advantages = trainer.seen["advantages"].tolist()
    assert advantages[1] == 0.0 and all(abs(advantages[i]) > 1e-3 for i in (0, 2, 3))
    assert sum(advantages[:4]) == pytest.approx(0.0, abs=1e-4)
