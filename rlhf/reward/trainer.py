"""TRL's `RewardTrainer`, subclassed: packed batches, and a step that is a fixed number of pairs whatever cuts it.

The loader gives one batch an optimiser step: this process's share of the step's pairs, in seeded order. `training_step` cuts
it into micro-batches by a token budget and sums; the loss is the sum over pairs divided by `pairs_per_step`, so that budget,
number of processes and micro-batches don't change the gradient. Everything else (optimiser, schedule, logging, callbacks,
checkpoints, DDP) is the Trainer's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import RewardConfig, RewardTrainer

from rlhf.engine.packing import NAME as PACKED
from rlhf.engine.scoring import attention_of, scores_of
from rlhf.engine.trunk import Trunk
from rlhf.errors import RlhfError
from rlhf.reward.carried import Carried
from rlhf.reward.rows import TrainRow, micro_batches
from rlhf.reward.targets import Ties
from rlhf.training.checkpoints import mark_whole
from rlhf.training.steps import StepLoader, StepSampler

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


class PackedRewardTrainer(RewardTrainer):
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
        self.token_budget = token_budget
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
        self.carried.start_step(self.args.device)
        parts = self._in_step(micro_batches(inputs, self.token_budget, padded=attention_of(model) != PACKED))
        total = torch.zeros((), device=self.args.device)
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            self.accelerator.gradient_state._set_sync_gradients(last)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                loss = self.compute_loss(model, part) * (self.accelerator.num_processes / self.pairs_per_step)
                self.accelerator.backward(loss)
            total += loss.detach()
        if not torch.isfinite(total):
            ids = ", ".join(row.pair_id[:12] for row in inputs)
            raise RlhfError(
                f"the loss is {total.item()} at step {self.state.global_step + 1} on pairs {ids}",
                fix="lower learning_rate, or look at these pairs with: rlhf feedback show ID",
            )
        self.carried.end_step(self.accelerator, self.state.global_step)
        return total

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
        if self.accelerator.num_processes == 1:
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
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process has written its own part
        if self.args.should_save:
            self.carried.keep(Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
            mark_whole(self.args.output_dir, self.state.global_step)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Held-out pairs are measured on a published version, by `rlhf evaluate`, where every figure has its interval."""
        raise RlhfError(
            "the trainer doesn't evaluate", fix="publish the version, then: rlhf evaluate NAME@N --snapshot S"
        )

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """A version's card is the registry's; TRL's would name paths and people in every checkpoint."""
