"""Out of memory in a step: the micro-batch budget is halved once, that is said, and the step starts over.

The loss is a sum over pairs, so a smaller budget changes no gradient but for rounding. Under DDP the processes must agree: one that
ran out of memory leaves the others in a gradient exchange for ever. So all of them run their micro-batches without DDP's exchange,
tell each other whether one ran out, and only then exchange. Sharded models (FSDP, DeepSpeed) exchange within every forward, where
nothing can be agreed on: there it is an error at once.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from accelerate.utils.memory import should_reduce_batch_size

from rlhf.errors import RlhfError

FILE = "token_budget"  # in a checkpoint, once it was halved: a resumed run cuts its steps as the uninterrupted one does
_SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)


class OutOfMemory(RlhfError):
    """A step doesn't fit, even at half the budget that was asked for."""

    code = "out_of_memory"


class Budget:
    """Tokens of one micro-batch, as they are now. asked: as the settings say."""

    def __init__(self, asked: int, accelerator: Any) -> None:
        self.asked = self.tokens = asked
        self.accelerator = accelerator
        self.is_sharded = accelerator.distributed_type in _SHARDED
        self.exchanges = accelerator.num_processes > 1 and not self.is_sharded  # itself, in DDP's place

    def spend(self, attempt: Callable[[int], torch.Tensor], forget: Callable[[], None], step: int) -> torch.Tensor:
        """What `attempt(tokens)` gives; where memory ran out, in whichever process, `forget()` and once more at half the tokens.

        Raises OutOfMemory where they were halved before, in this step or an earlier one.
        """
        while True:
            chance = _chance()
            result, ran_out = None, ""
            try:
                result = attempt(self.tokens)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                ran_out = (str(error) or type(error).__name__).splitlines()[
                    0
                ]  # the error itself would keep the step's tensors
            if self.is_sharded and ran_out:
                raise self._too_much(ran_out, step)
            if not self._anywhere(bool(ran_out)):
                assert result is not None
                return result
            forget()
            _restore(chance)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if self.tokens < self.asked:
                raise self._too_much(ran_out or "another process ran out of memory", step)
            self._halve(ran_out, step)

    def exchange(self, model: Any) -> None:
        """Mean of each gradient over the processes, as DDP's own exchange gives it: all of them in one message."""
        if not self.exchanges:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = self.accelerator.reduce(torch.cat([g.reshape(-1) for g in gradients]), "mean")
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def keep(self, checkpoint: Path) -> None:
        if self.tokens < self.asked:
            (checkpoint / FILE).write_text(str(self.tokens), "ascii")

    def restore(self, checkpoint: Path) -> None:
        if (checkpoint / FILE).exists():
            self.tokens = int((checkpoint / FILE).read_text("ascii"))

    def _anywhere(self, ran_out: bool) -> bool:
        if not self.exchanges:
            return ran_out
        mine = torch.tensor([int(ran_out)], device=self.accelerator.device)
        return bool(self.accelerator.gather(mine).any())

    def _halve(self, ran_out: str, step: int) -> None:
        self.tokens = max(1, self.tokens // 2)
        if self.accelerator.is_main_process:
            print(
                f"out of memory at step {step} ({ran_out or 'in another process'}): going on with token_budget "
                f"{self.tokens}, half of the {self.asked} that were asked for; the step starts over",
                file=sys.stderr,
                flush=True,
            )

    def _too_much(self, ran_out: str, step: int) -> OutOfMemory:
        again = "" if self.tokens == self.asked else f" again, at token_budget {self.tokens} after {self.asked},"
        return OutOfMemory(
            f"out of memory{again} at step {step}: {ran_out}",
            fix="train anew with gradient_checkpointing=true, a smaller token_budget or max_length; or go on where there is more "
            "memory with the same command and --resume",
        )


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA's own error, the CPU allocator's (a RuntimeError), Python's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, Exception) and should_reduce_batch_size(error)


def _chance() -> tuple[torch.Tensor, torch.Tensor | None]:
    """Dropout draws: the step that starts over must draw the same. Of this process's device alone; asking others wakes them."""
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _restore(chance: tuple[torch.Tensor, torch.Tensor | None]) -> None:
    torch.set_rng_state(chance[0])
    if chance[1] is not None:
        torch.cuda.set_rng_state(chance[1])
