"""An optimiser step is a fixed number of items over all processes, in an order that seed and epoch alone decide."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Sampler

from rlhf.ids import chance


class StepSampler(Sampler[list[int]]):
    """Batches of indices, one an optimiser step: this process's share. Order depends on seed and epoch alone.

    The last step of an epoch may be smaller. A process whose share is empty gets index -1: a row of weight 0.
    """

    def __init__(
        self, n_rows: int, pairs_per_step: int, seed: int, rank: int, n_processes: int, *, in_order: bool = False
    ) -> None:
        self.n_rows, self.pairs_per_step, self.seed, self.in_order = n_rows, pairs_per_step, seed, in_order
        self.rank, self.n_processes, self.epoch = rank, n_processes, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.n_rows / self.pairs_per_step)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(self.n_rows))
        if not self.in_order:
            chance(self.seed, "order", str(self.epoch)).shuffle(order)
        for start in range(0, self.n_rows, self.pairs_per_step):
            step = order[start : start + self.pairs_per_step]
            yield step[self.rank :: self.n_processes] or [-1]


class StepLoader(DataLoader[Any]):
    """The Trainer tells a loader its epoch; ours passes it on to the sampler."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)


class NoStepBeyond:
    """Mixed into a Trainer: one that goes on from its last step's checkpoint takes no further step.

    transformers' Trainer looks whether it is done after a step only. Where `max_steps` ends within an epoch, a run that was killed
    between its last step and its publication would be trained once too often.
    """

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:  # type: ignore[attr-defined]
            self.control.should_training_stop = True  # type: ignore[attr-defined]
            return
        super()._run_epoch(*args, **kwargs)  # type: ignore[misc]
