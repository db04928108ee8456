"""TRL's `RewardTrainer`, subclassed: packed batches, and a step that is a fixed number of pairs whatever cuts it.

The loader gives one batch an optimiser step: this process's share of the step's pairs, in seeded order. `training_step` cuts
it into micro-batches by a token budget and sums; the loss is the sum over pairs divided by `pairs_per_step`, so that budget,
number of processes and micro-batches don't change the gradient, nor does memory that runs out in a step (`memory.py`, which is why
gradients are exchanged there under DDP). Everything else (optimiser, schedule, logging, callbacks, checkpoints) is the Trainer's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch.utils.data import DataLoader
from trl import RewardConfig, RewardTrainer

from rlhf.engine.packing import NAME as PACKED
from rlhf.engine.scoring import attention_of, scores_of
from rlhf.engine.trunk import Trunk
from rlhf.errors import RlhfError
from rlhf.reward.carried import Carried
from rlhf.reward.memory import Budget
from rlhf.reward.rows import TrainRow, micro_batches
from rlhf.reward.targets import Ties
from rlhf.training.checkpoints import mark_whole, whole_or_gone
from rlhf.training.steps import NoStepBeyond, StepLoader, StepSampler

_COLUMNS = ("target", "tie", "margin", "weight", "length")  # of a row, what the loss reads beside its scores


class _Rows(torch.utils.data.Dataset[TrainRow]):
    def __init__(self, rows: Sequence[TrainRow]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> TrainRow:
        if index >= 0:
            return self.rows[index]
        first = self.rows[0]
        return replace(first, weight=0.0)


class PackedRewardTrainer(NoStepBeyond, RewardTrainer):
    """Trains on `TrainRow`s. `args.per_device_train_batch_size` and accumulation are not used: a step is `pairs_per_step`."""

    def __init__(
        self,
        *,
        model: Any,
        args: RewardConfig,
        rows: Sequence[TrainRow],
        pairs_per_step: int,
        token_budget: int,
        processing_class: Any,
        callbacks: list[Any],
        trunk: Trunk | None = None,
        ties: Ties = "half",
        length_penalty: float = 0.0,
    ) -> None:
        self.rows = _Rows(rows)
        self.carried = Carried(rows, ties, length_penalty)
        self.trunk = trunk
        self.pairs_per_step = pairs_per_step
        args.ddp_broadcast_buffers = False  # they never change, and a step that starts over would send them alone
        # TRL wants a dataset of tokens; it passes over `chosen_ids` that are there already. The loader below reads `rows`.
        lengths = {"chosen_ids": [[0]] * len(rows), "rejected_ids": [[0]] * len(rows)}
        super().__init__(
            model=model,
            args=args,
            train_dataset=Dataset.from_dict(lengths),
            processing_class=processing_class,
            data_collator=list,
            callbacks=callbacks,
        )
        self.budget = Budget(token_budget, self.accelerator)

    def get_train_dataloader(self) -> DataLoader[TrainRow]:
        """One batch an optimiser step; already split over the processes, so accelerate must not split it again."""
        in_order = self.args.train_sampling_strategy == "sequential"
        sampler = StepSampler(
            len(self.rows),
            self.pairs_per_step,
            self.args.seed,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            in_order=in_order,
        )
        return StepLoader(self.rows, batch_sampler=sampler, collate_fn=list)

    def training_step(self, model: Any, inputs: list[TrainRow], num_items_in_batch: Any = None) -> torch.Tensor:
        """One optimiser step's gradients. Returns this process's part of the loss, scaled so that the processes' mean is it."""
        model.train()
        noted = {name: len(values) for name, values in self._metrics["train"].items()}

        def forget() -> None:
            model.zero_grad()
            for name, values in self._metrics["train"].items():
                del values[noted.get(name, 0) :]

        step = self.state.global_step + 1
        total = self.budget.spend(lambda tokens: self._gradients(model, inputs, tokens), forget, step)
        self._require_finite(model, total, inputs)
        self.budget.exchange(model)
        self.carried.end_step(self.accelerator, self.state.global_step)
        return total

    def _gradients(self, model: Any, inputs: list[TrainRow], tokens: int) -> torch.Tensor:
        """This process's gradients, summed over micro-batches of so many tokens; only sharded models exchange theirs here."""
        self.carried.start_step(self.args.device)
        parts = self._in_step(micro_batches(inputs, tokens, padded=attention_of(model) != PACKED))
        total = torch.zeros((), device=self.args.device)
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            self.accelerator.gradient_state._set_sync_gradients(last)
            is_synced = last and not self.budget.exchanges
            with contextlib.nullcontext() if is_synced else self.accelerator.no_sync(model):
                loss = self.compute_loss(model, part) * (self.accelerator.num_processes / self.pairs_per_step)
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _require_finite(self, model: Any, total: torch.Tensor, inputs: list[TrainRow]) -> None:
        """Stop with the step's pairs before a weight moves: from a gradient that is no number every later checkpoint would be none.

        Every process meets the same error: who went on would wait for the others for ever.
        """
        gradients = [p.grad for p in model.parameters() if p.grad is not None and not self.budget.is_sharded]
        norm = torch.nn.utils.get_total_norm(gradients)
        is_finite = torch.isfinite(total) & torch.isfinite(norm).to(total.device)
        if self.accelerator.gather(is_finite.int().reshape(1)).all():
            return
        ids = ", ".join(row.pair_id[:12] for row in inputs)
        said = f"the loss is {total.item():g} and its gradient {norm.item():g} at step {self.state.global_step + 1} on pairs {ids}"
        raise RlhfError(
            gather_object([] if is_finite else [said])[0],
            fix="lower learning_rate, or look at these pairs with: rlhf feedback show ID",
        )

    def compute_loss(
        self, model: Any, inputs: list[TrainRow], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Sum of the rows' losses (not their mean: see the module)."""
        below = self.trunk.states(inputs) if self.trunk else None
        scores_P2 = scores_of(model, [row.group for row in inputs], below).view(-1, 2)
        columns = {
            name: torch.tensor([getattr(row, name) for row in inputs], device=scores_P2.device) for name in _COLUMNS
        }
        chosen_P, rejected_P = scores_P2.unbind(1)
        loss_P = self.carried.losses(chosen_P, rejected_P, columns, self.args.center_rewards_coefficient or 0.0)
        self._note(chosen_P.detach(), rejected_P.detach(), loss_P.detach(), columns["weight"])
        loss = (loss_P * columns["weight"]).sum()
        if self.carried.length_penalty:
            loss = loss + self.carried.penalty(chosen_P - rejected_P, columns)
        return (loss, {"scores": scores_P2}) if return_outputs else loss

    def _in_step(self, parts: list[list[TrainRow]]) -> list[list[TrainRow]]:
        """Sharded models gather their weights in every forward, so each process must run as many: fill up with weight 0."""
        if not self.budget.is_sharded:
            return parts
        most = int(self.accelerator.gather(torch.tensor([len(parts)], device=self.accelerator.device)).max())
        return [[self.rows[-1]]] * (most - len(parts)) + parts

    def _note(
        self, chosen_P: torch.Tensor, rejected_P: torch.Tensor, loss_P: torch.Tensor, weight_P: torch.Tensor
    ) -> None:
        """Figures of the logged steps; this process's pairs stand for all."""
        real = weight_P > 0
        if not real.any():
            return
        noted = self._metrics["train"]
        noted["pair_loss"] += loss_P[real].tolist()
        noted["accuracy"] += ((chosen_P > rejected_P).float() + 0.5 * (chosen_P == rejected_P).float())[real].tolist()
        noted["margin"] += (chosen_P - rejected_P)[real].tolist()
        noted["mean_reward"] += ((chosen_P + rejected_P) / 2)[real].tolist()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """A checkpoint counts once its mark is there: a kill in the middle leaves a folder that looks like one."""
        with whole_or_gone(self.args.output_dir, self.state.global_step) as folder:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # each process has written its own part
            if self.args.should_save:
                self.carried.keep(folder)
                self.budget.keep(folder)
                mark_whole(folder)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Held-out pairs are measured on a published version, by `rlhf evaluate`, where every figure has its interval."""
        raise RlhfError(
            "the trainer doesn't evaluate", fix="publish the version, then: rlhf evaluate NAME@N --snapshot S"
        )

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """A version's card is the registry's; TRL's would name paths and people in every checkpoint."""
