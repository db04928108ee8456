"""GRPO and RLOO with replies drawn by the engine: what TRL makes of them is what it makes of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from policies import parts, settings
from trl import GRPOConfig, GRPOTrainer

from rlhf.engine.generation import seed_of
from rlhf.engine.on_policy import OnPolicy
from rlhf.errors import BadInput, BadUsage
from rlhf.policy.drawn_by_engine import DrawnByEngine
from rlhf.policy.methods import rollout_trainer
from rlhf.policy.setup import freeze_others
from rlhf.store import Workspace

METHODS = ("grpo", "rloo")
GREEDY = 1e-4  # a temperature at which chance decides nothing
STEP = {"samples": 2, "pairs_per_step": 4, "max_new_tokens": 12, "from_version": "start@1", "beta": 0.1}


class Kept:
    """Mixed in first: keeps what each generation gave."""

    output: dict[str, Any]

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self.output = dict(super()._generate_and_score_completions(inputs))  # type: ignore[misc]
        return self.output


def first_step(
    workspace: Workspace, folder: Path, ends: list[int] | None = None, *, stirred: bool = False, **more: Any
) -> Any:
    """A trainer after one step. stirred: on a base whose likeliest token isn't the same one after every other."""
    chosen = settings(**{**STEP, "max_steps": 1, **more})
    material, setup = parts(workspace, folder, chosen)
    if stirred:
        for name, parameter in setup.model.named_parameters():
            if "proj.base_layer" in name or "proj.weight" in name:
                parameter.data.mul_(12.0)
    if ends:
        setup.model.generation_config.eos_token_id = ends
    trainer: Any = rollout_trainer(material, setup, 1, folder)
    trainer.__class__ = type("Kept", (Kept, type(trainer)), {})
    freeze_others(setup.model)
    trainer.train()
    return trainer


def _firsts(rows: list[list[int]], token: int) -> list[int]:
    """Where each row has the token first; its length where it hasn't."""
    return [row.index(token) if token in row else len(row) for row in rows]


@pytest.mark.parametrize("method", METHODS)
def test_ids_masks_and_padding_are_those_of_trls_own_generation(
    policies: Workspace, tmp_path: Path, method: str
) -> None:
    """Where chance decides nothing both draw the same: replies that end early, late and not at all, padded and masked alike."""
    free = first_step(policies, tmp_path / "a", method=method, temperature=GREEDY, stirred=True).output[
        "completion_ids"
    ]
    firsts = {token: _firsts(free.tolist(), token) for token in set(free.flatten().tolist())}
    ends = [2, max(firsts, key=lambda token: (len(set(firsts[token])), token))]
    ours, theirs = (
        first_step(policies, tmp_path / way, ends, method=method, temperature=GREEDY, rollouts=way, stirred=True)
        for way in ("engine", "trl")
    )
    assert ours._drawn is not None and theirs._drawn is None
    for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages"):
        assert torch.equal(ours.output[name], theirs.output[name]), name
    lengths = set(ours.output["completion_mask"].sum(1).tolist())
    assert len(lengths) > 1, lengths
    for figure in ("completions/mean_length", "completions/clipped_ratio", "reward"):
        one, other = (next(row[figure] for row in t.state.log_history if figure in row) for t in (ours, theirs))
        assert one == pytest.approx(other, abs=1e-5), figure


@pytest.mark.parametrize("more", [{}, {"beta": 0.0}, {"lora_dropout": 0.2}, {"temperature": 0.7}])
@pytest.mark.parametrize("method", METHODS)
def test_what_the_engine_said_is_what_the_trainers_forward_says(
    policies: Workspace, tmp_path: Path, method: str, more: dict[str, Any]
) -> None:
    """The KL's part of the policy is not computed again: here it is, before the step moves anything (learning rate 0 at first)."""
    trainer = first_step(policies, tmp_path / "run", method=method, learning_rate=1e-12, **more)
    mask = trainer.output["completion_mask"]
    trainer.model.eval()
    with torch.no_grad():
        own = trainer._logps(trainer.output)
    drawn = trainer.drawn_logps(mask)
    assert ((own - drawn) * mask).abs().max() < 1e-4
    assert (drawn * (1 - mask)).abs().max() == 0 and drawn.abs().max() > 1
    if method == "grpo":
        assert torch.equal(trainer.output["sampling_per_token_logps"], drawn), "TRL has them too"
    logged = next(row for row in trainer.state.log_history if "kl_reply" in row)
    assert logged["kl_reply"] == pytest.approx(0.0, abs=1e-3), "the first replies are the reference's own"


def test_chance_is_the_steps_and_the_replys_and_not_the_processs(policies: Workspace, tmp_path: Path) -> None:
    one = first_step(policies, tmp_path / "a", method="grpo")
    torch.manual_seed(99)
    again = first_step(policies, tmp_path / "b", method="grpo")
    other = first_step(policies, tmp_path / "c", method="grpo", seed=1)
    assert [r.ids for r in one._drawn] == [r.ids for r in again._drawn] != [r.ids for r in other._drawn]
    assert len({tuple(r.ids) for r in one._drawn}) > 4, "replies to one prompt differ"
    seeds = one._seeds(8)
    assert seeds == [seed_of(0, "rollout", "1", "0", str(i)) for i in range(8)]
    assert not set(one._seeds(8)) & set(seeds), "a second generation in a step has other chance"


def test_stock_trl_takes_its_replies_from_the_engine(policies: Workspace, tmp_path: Path) -> None:
    """Nothing of ours but the mixin: the trainer that the module's first lines show."""
    material, setup = parts(policies, tmp_path / "run", settings(method="grpo", **STEP))

    class Trainer(DrawnByEngine, GRPOTrainer):
        """As a user writes it."""

    def trainer(**more: Any) -> Trainer:
        args = GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=4,
            num_generations=2,
            max_completion_length=6,
            max_steps=2,
            learning_rate=1e-2,
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            save_strategy="no",
            **more,
        )
        rows = [{"prompt": [m.as_json() for m in row.kept]} for row in material.prompts]
        return Trainer(
            model=setup.model,
            reward_funcs=[lambda completion_ids, **_: [float(sum(ids)) for ids in completion_ids]],
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=material.base.tokenizer(),
        )

    stock = trainer()
    stock.draw_from(OnPolicy(setup.model))
    stock.train()
    assert stock._drawn is not None and stock.state.global_step == 2
    with pytest.raises(BadUsage, match="top_k, repetition_penalty"):
        trainer(top_k=5, repetition_penalty=1.2).draw_from(OnPolicy(setup.model))


def test_a_base_that_does_not_fit_is_trained_by_trls_generation_and_said_or_refused(
    policies: Workspace, tmp_path: Path
) -> None:
    chosen = settings(method="grpo", **STEP)
    material, setup = parts(policies, tmp_path / "run", chosen)
    setup.model.get_base_model().config.max_position_embeddings = 20
    said: list[str] = []
    trainer = rollout_trainer(material, setup, 1, tmp_path / "run", said.append)
    assert trainer._engine is None and "the base takes 20" in said[0]
    material, setup = parts(policies, tmp_path / "asked", settings(method="grpo", **STEP, rollouts="engine"))
    setup.model.get_base_model().config.max_position_embeddings = 20
    with pytest.raises(BadInput, match="the base takes 20"):
        rollout_trainer(material, setup, 1, tmp_path / "asked", said.append)
