"""TRL's trainers, subclassed: DPO in steps of a fixed number of pairs; GRPO and RLOO with the KL always measured.

What they share: a checkpoint holds the trained adapter alone (rewards and reference are loaded from their versions again) and
counts once it is whole. TRL's losses, sampling, advantages and optimiser steps are untouched.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from trl import DPOConfig, DPOTrainer, GRPOTrainer, RLOOTrainer

from rlhf.engine.policies import TRAINED, switched
from rlhf.errors import RlhfError
from rlhf.policy.drawn_by_engine import DrawnByEngine
from rlhf.policy.pairs import TokenPair
from rlhf.training.checkpoints import mark_whole, whole_or_gone
from rlhf.training.steps import NoStepBeyond, StepLoader, StepSampler


class OwnAdapterCheckpoints(NoStepBeyond):
    """Mixed into a TRL trainer: checkpoints of the trained adapter, whole or not there, without a model card."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """The Trainer would save every adapter of the shared base, the rewards' too, and its arguments as a pickle."""
        if self.args.should_save:  # type: ignore[attr-defined]
            self.model.save_pretrained(output_dir or self.args.output_dir, selected_adapters=[TRAINED])  # type: ignore[attr-defined]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with whole_or_gone(self.args.output_dir, self.state.global_step) as folder:  # type: ignore[attr-defined]
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
            self.accelerator.wait_for_everyone()  # type: ignore[attr-defined]
            if self.args.should_save:  # type: ignore[attr-defined]
                mark_whole(folder)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """A version's card is the registry's; TRL's would name paths and people in every checkpoint."""


class PairTrainer(OwnAdapterCheckpoints, DPOTrainer):
    """DPO on token pairs. A step is `pairs_per_step` pairs over all processes; the token budget only cuts micro-batches."""

    def __init__(
        self,
        *,
        model: Any,
        args: DPOConfig,
        rows: Sequence[TokenPair],
        pairs_per_step: int,
        token_budget: int,
        processing_class: Any,
    ) -> None:
        self.pairs_per_step, self.token_budget = pairs_per_step, token_budget
        columns = {
            "prompt_ids": [list(row.prompt) for row in rows],
            "chosen_ids": [list(row.chosen) for row in rows],
            "rejected_ids": [list(row.rejected) for row in rows],
        }
        super().__init__(
            model=model,
            args=args,
            train_dataset=Dataset.from_dict(columns),
            processing_class=processing_class,
        )

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """Rows are tokens already: those that were sampled, a cut-off reply without the end that it never wrote."""
        return dataset

    def get_train_dataloader(self) -> DataLoader[Any]:
        """One batch an optimiser step; already split over the processes, so accelerate must not split it again."""
        rows = [dict(row) for row in self.train_dataset]
        sampler = StepSampler(
            len(rows),
            self.pairs_per_step,
            self.args.seed,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        return StepLoader(_Rows(rows), batch_sampler=sampler, collate_fn=list)

    def training_step(self, model: Any, inputs: list[dict[str, Any]], num_items_in_batch: Any = None) -> torch.Tensor:
        """One optimiser step's gradients. Returns this process's part of the loss, scaled so that the processes' mean is it."""
        model.train()
        parts = self._parts(inputs)
        total = torch.zeros((), device=self.args.device)
        for i, (rows, weight) in enumerate(parts):
            last = i == len(parts) - 1
            self.accelerator.gradient_state._set_sync_gradients(last)
            batch = self._prepare_inputs(self.data_collator(rows))
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                mean = self.compute_loss(model, batch)  # over the part's pairs
                loss = mean * (weight * self.accelerator.num_processes / self.pairs_per_step)
                self.accelerator.backward(loss)
            total += loss.detach()
        if not torch.isfinite(total):
            raise RlhfError(
                f"the loss is {total.item()} at step {self.state.global_step + 1}",
                fix="lower learning_rate; go on from the last checkpoint with --resume",
            )
        return total

    def _parts(self, inputs: list[dict[str, Any]]) -> list[tuple[list[dict[str, Any]], int]]:
        """(rows, how many pairs they stand for), in order of length, cut by the token budget (a longer pair goes alone).

        TRL gathers its figures in every forward, so all processes cut at the same places. A row that not every process has
        (the last of a step that doesn't divide) is a part of its own, and stands for no pair where it is a stand-in.
        """
        rows = sorted((row for row in inputs if row["weight"]), key=_width)
        n_most = math.ceil(self.pairs_per_step / self.accelerator.num_processes)
        widths = torch.tensor([_width(row) for row in rows] + [0] * (n_most - len(rows)), device=self.args.device)
        widths_NR = self.accelerator.gather(widths).view(-1, n_most)
        widest, narrowest = widths_NR.max(0).values.tolist(), widths_NR.min(0).values.tolist()
        parts: list[tuple[list[dict[str, Any]], int]] = []
        part: list[dict[str, Any]] = []
        for i, width in enumerate(widest):
            if part and (2 * (len(part) + 1) * width > self.token_budget or not narrowest[i]):
                parts.append((part, len(part)))
                part = []
            if narrowest[i]:
                part.append(rows[i])
            elif width:
                parts.append((rows[i : i + 1], 1) if i < len(rows) else (inputs[:1], 0))
        return [*parts, (part, len(part))] if part else parts


def _width(row: Mapping[str, Any]) -> int:
    """Tokens of the longer sequence of a pair; its padded rows hold twice as many."""
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows with their weight: 1, and 0 for what stands in where a process has no pair in a step."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.rows[max(index, 0)], "weight": int(index >= 0)}


class MeasuredRollouts(DrawnByEngine, OwnAdapterCheckpoints):
    """Mixed into GRPO or RLOO: after every generation, the KL of the sampled replies to the reference, also at beta = 0.

    kl: nats a reply, kl_token: nats a token; the mean of log pi(y) - log ref(y) over the replies sampled from pi, which is
    unbiased and may be below 0 by chance. Logged beside TRL's own figures under these names. What the engine said as it drew, and
    TRL's own figures of the reference at beta > 0, are not computed again.
    """

    reference: str | None = None  # adapter of the reference; None = the bare base

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        mask = output["completion_mask"]
        own, reference = self.drawn_logps(mask), output.get("ref_per_token_logps")
        if not self.args.disable_dropout:  # type: ignore[attr-defined]
            reference = None  # TRL's has the dropout of a step in it
        model = self.accelerator.unwrap_model(self.model)  # type: ignore[attr-defined]
        with torch.no_grad():
            if own is None:
                with switched(model, TRAINED):  # in eval mode: the dropout of a step is no drift
                    own = self._logps(output)
            if reference is None:
                with switched(model, self.reference):
                    reference = self._logps(output)
        sums = torch.stack([((own - reference) * mask).sum(), mask.sum().float(), mask.any(1).sum().float()])
        kl, n_tokens, n_replies = self.accelerator.reduce(sums, reduction="sum").tolist()  # type: ignore[attr-defined]
        noted = self._metrics["train"]  # type: ignore[attr-defined]
        noted["kl_reply"].append(kl / max(n_replies, 1.0))
        noted["kl_token"].append(kl / max(n_tokens, 1.0))
        return output

    def _logps(self, output: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(R, T) log-probabilities of the sampled tokens under the adapter that is switched on, through TRL's own function."""
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
        mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
        found: torch.Tensor = self._get_per_token_logps_and_entropies(  # type: ignore[attr-defined]
            self.model,  # type: ignore[attr-defined]
            ids,
            mask,
            output["completion_ids"].size(1),
            self.args.per_device_train_batch_size,  # type: ignore[attr-defined]
        )[0]
        return found


class GroupTrainer(MeasuredRollouts, GRPOTrainer):
    """GRPO: advantages within the replies to one prompt (Shao et al. 2024)."""


class LeaveOneOutTrainer(MeasuredRollouts, RLOOTrainer):
    """RLOO: each reply against the mean of the others to its prompt (Ahmadian et al. 2024)."""
