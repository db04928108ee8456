"""The watch: every so many steps, replies to the same prompts with the same chance, measured in the same way.

So that reward, fluency and drift stand side by side over the steps, whatever the method, and over-optimisation shows. The guard
reads these figures. With common chance a change of a curve is a change of the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from rlhf.engine import generation
from rlhf.engine.policies import TRAINED, switched
from rlhf.engine.sampling import Sampling
from rlhf.measures.doubt import doubt
from rlhf.measures.text import repetition
from rlhf.policy.guard import Bands
from rlhf.policy.prompts import RenderedPrompt
from rlhf.policy.reply_log import ReplyLog, adapter_digest, rows_of
from rlhf.policy.scored import Drawn, Rewards, Scored
from rlhf.training.progress import MetricsFile

_GOOD = "good.safetensors"  # the LoRA of the last measurement inside all bands
_TWO = 2  # replies a prompt: doubt is about ranking two


class Watch(TrainerCallback):
    """Measures the policy before the first step, every `every` steps, and after the last; stops it out of band."""

    def __init__(
        self,
        model: PeftModel,
        rewards: Rewards,
        prompts: Sequence[RenderedPrompt],
        sampling: Sampling,
        bands: Bands,
        *,
        every: int,
        reference: str | None,
        decode: Any,
        folder: Path,
        meter: MetricsFile,
        log: ReplyLog,
    ) -> None:
        """reference: adapter that KL is measured to (None = the bare base). decode: token ids to text, the tokenizer's."""
        self.model, self.rewards, self.prompts, self.sampling, self.bands = model, rewards, prompts, sampling, bands
        self.every, self.reference, self.decode, self.meter, self.log = every, reference, decode, meter, log
        self.good = folder / _GOOD
        self.first: dict[str, float] | None = None
        self.last: dict[str, float] = {}
        self.good_step = 0
        self.stopped: str | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A new run is measured before it moves; a resumed one reads its measurements from the file that it goes on in."""
        if not self.every:
            return
        processes = PartialState()
        known = [row for row in self.meter.rows() if "watch" in row] if processes.is_main_process else []
        if processes.num_processes > 1:  # what the file holds at that moment is for one process to say
            broadcast_object_list(asked := [known])
            known = asked[0]
        if known:
            self.first, self.last = known[0]["watch"], known[-1]["watch"]
            self.good_step = known[-1]["step"]  # had it been out of band, the run would have ended there
        else:
            self._measured(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        due = state.global_step % self.every == 0 if self.every else False
        if not due and not (self.every and state.global_step == state.max_steps):
            return
        self._measured(state.global_step)
        if self.stopped:
            control.should_training_stop = True

    def keep_good(self) -> None:
        """After a guard's stop: put the last good weights back into the model."""
        set_peft_model_state_dict(self.model, load_file(self.good), adapter_name=TRAINED)

    def _measured(self, step: int) -> None:
        """Measure in the first process; tell the others whether to stop."""
        state = PartialState()
        outcome: list[Any] = [None]
        if state.is_main_process:
            figures = self._measure(step)
            self.first = self.first or figures
            self.last = figures
            self.meter.append({"step": step, "watch": figures})
            why = self.bands.broken(self.first, figures)
            if why is None:
                self.good_step = step
                save_file(_tensors(self.model), self.good)
            outcome = [why]
        if state.num_processes > 1:
            broadcast_object_list(outcome)
        if outcome[0] is not None:
            self.stopped = f"guard at step {step}: {outcome[0]}"

    def _measure(self, step: int) -> dict[str, float]:
        ids = [prompt.ids for prompt in self.prompts for _ in range(_TWO)]
        names = [prompt.prompt.id for prompt in self.prompts for _ in range(_TWO)]
        seeds = [generation.seed_of(self.sampling.seed, "watch", name, str(i % _TWO)) for i, name in enumerate(names)]
        with switched(self.model, TRAINED):
            sampled = generation.generate(self.model, ids, seeds, self.sampling)
            own = generation.log_probabilities(self.model, ids, [s.ids for s in sampled])
        with switched(self.model, None):
            base = generation.log_probabilities(self.model, ids, [s.ids for s in sampled])
        reference = base
        if self.reference is not None:
            with switched(self.model, self.reference):
                reference = generation.log_probabilities(self.model, ids, [s.ids for s in sampled])
        drawn = [
            Drawn(self.prompts[i // _TWO].kept, self.decode(s.ids, skip_special_tokens=True), len(s.ids), s.cut_off)
            for i, s in enumerate(sampled)
        ]
        scored = self.rewards.score(drawn)
        self.log.append(rows_of(step, "watch", names, drawn, scored, adapter_digest(self.model)))
        kl = sum(own) - sum(reference)
        n_tokens = sum(len(s.ids) for s in sampled)
        return {
            **self._of_rewards(names, scored),
            "kl": kl / len(sampled),
            "kl_token": kl / n_tokens,
            "tokens": n_tokens / len(sampled),
            "cut_off": float(np.mean([s.cut_off for s in sampled])),
            "repetition": float(np.mean([repetition(d.text) for d in drawn])),
            "logp_base": sum(base) / n_tokens,
            "replies": float(len(sampled)),
        }

    def _of_rewards(self, names: Sequence[str], scored: Sequence[Scored]) -> dict[str, float]:
        """Mean points and doubt over the replies that could be scored, and how many could not."""
        whole = [i for i, s in enumerate(scored) if s.points is not None]
        figures = {"unscored": float(len(scored) - len(whole))}
        if not whole:
            return {**figures, "doubt": 0.5}
        scores = np.array([scored[i].scores for i in whole], dtype=np.float64)
        weights = np.array(self.rewards.points.weights)
        sure = doubt(scores * np.sign(weights), [names[i] for i in whole], np.abs(weights))
        return {**figures, "reward": float(np.mean([scored[i].points for i in whole])), "doubt": sure}


def _tensors(model: PeftModel) -> dict[str, torch.Tensor]:
    state = get_peft_model_state_dict(model, adapter_name=TRAINED)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
