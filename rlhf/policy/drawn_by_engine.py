"""TRL's GRPO and RLOO with their replies drawn by the engine, from the same distribution as TRL's own generation draws them.

    class Trainer(DrawnByEngine, GRPOTrainer): ...
    trainer.draw_from(OnPolicy(peft_model))

A reply's chance depends on the trainer's seed, the step and the reply's place in it over all processes: not on the process's
chance, so that a resumed run draws what the uninterrupted one drew, and two processes draw what one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from trl import RLOOTrainer

from rlhf.engine import generation
from rlhf.engine.on_policy import OnPolicy, Reply
from rlhf.engine.sampling import Sampling
from rlhf.errors import BadUsage

# What TRL's generation does beyond temperature and top_p, and the values at which it doesn't.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "top_k": (0, None),
    "min_p": (0.0, None),
    "repetition_penalty": (1.0, None),
    "generation_kwargs": ({}, None),
    "use_vllm": (False,),
}


class DrawnByEngine:
    """Mixed in before GRPOTrainer or RLOOTrainer; without an engine TRL generates."""

    _engine: OnPolicy | None = None
    _drawn: list[Reply] | None = None  # of the last generation
    _last = (-1, 0)  # step, and how many generations it has had

    def draw_from(self, engine: OnPolicy | None) -> None:
        """Have the engine draw from now on (None: TRL). Raises BadUsage where the trainer's arguments ask for more than it does."""
        odd = [name for name, plain in _PLAIN.items() if getattr(self.args, name, plain[0]) not in plain]  # type: ignore[attr-defined]
        if engine is not None and odd:
            raise BadUsage(
                f"{', '.join(odd)} is set, and the engine draws by temperature and top_p alone",
                fix="leave it out, or have TRL generate",
            )
        self._engine = engine

    def _generate_single_turn(self, prompt_ids: Sequence[Sequence[int]], *args: Any, **kwargs: Any) -> Any:
        """Ids up to and with the first end token, as TRL gives them; GRPO also takes their log-probabilities."""
        self._drawn = None
        if self._engine is None:
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)  # type: ignore[misc]
        how = self.args  # type: ignore[attr-defined]
        sampling = Sampling(how.max_completion_length, how.temperature, how.top_p)
        self._drawn = self._engine.draw(prompt_ids, self._seeds(len(prompt_ids)), sampling, self.eos_token_ids)  # type: ignore[attr-defined]
        ids = [list(reply.ids) for reply in self._drawn]
        return ids if isinstance(self, RLOOTrainer) else (ids, [list(reply.logps) for reply in self._drawn])

    def _seeds(self, n: int) -> list[int]:
        step = self.state.global_step  # type: ignore[attr-defined]
        self._last = (step, self._last[1] + 1 if self._last[0] == step else 0)
        first = self.accelerator.process_index * n  # type: ignore[attr-defined]
        named = ("rollout", str(step), str(self._last[1]))
        return [generation.seed_of(self.args.seed, *named, str(first + i)) for i in range(n)]  # type: ignore[attr-defined]

    def drawn_logps(self, mask: torch.Tensor) -> torch.Tensor | None:
        """(R, T) log-probabilities of the last generation, 0 behind a reply's end; None where TRL generated. mask: (R, T)."""
        if self._drawn is None:
            return None
        logps = torch.zeros(mask.shape, device=mask.device)
        for row, reply in zip(logps, self._drawn, strict=True):
            row[: len(reply.logps)] = torch.tensor(reply.logps)
        return logps
