"""Policy training, top to bottom: open, share one base, sample, score, train, watch, prove, publish.

`train` is the whole road for the three methods; they differ in what TRL trainer learns from the replies. The same function runs
under `accelerate launch`: every process trains, the first one writes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from rlhf import registry, training
from rlhf.engine import placement, policies
from rlhf.errors import BadInput, BadUsage, Interrupted
from rlhf.policy.guard import Bands
from rlhf.policy.material import Material, Say, open_material
from rlhf.policy.methods import dpo_trainer, ranked_pairs, rollout_trainer
from rlhf.policy.publication import publish
from rlhf.policy.settings import PolicySettings
from rlhf.policy.setup import Setup, freeze_others, set_up
from rlhf.policy.watch import Watch
from rlhf.records import VersionRef
from rlhf.store import Workspace
from rlhf.training import WAIT, Plan, Run, kept_dtype, told_to_all, under_way
from rlhf.training.checkpoints import last_whole_checkpoint
from rlhf.training.progress import MetricsFile, ProgressBar, StopAtSignal
from rlhf.training.space import of_lora


@dataclass(frozen=True, slots=True)
class Trained(training.Trained):
    """What a policy's training gave. stopped: why the guard ended it, None where it came to its end."""

    stopped: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {**training.Trained.as_json(self), "stopped": self.stopped}


def train(workspace: Workspace, settings: PolicySettings, *, resume: bool = False, say: Say | None = None) -> Trained:
    """Train a policy adapter against the rewards and publish it as the next version of `settings.name`.

    Raises BadInput where nothing can be trained on or the guard stopped the run before any good step, NotFound for an unknown
    reward, base or version, Interrupted after Ctrl-C (a checkpoint is kept; `resume` goes on from it).
    """
    _check_whole_models()
    state = PartialState(cpu=placement.wants_cpu(settings.device), timeout=WAIT)
    say = say if say and state.is_main_process else _silent
    material = open_material(workspace, settings, state.num_processes, say)
    wanted = of_lora(material.base.folder / "config.json", material.settings.lora_r, material.settings.top_layers)
    plan = Plan("policy", settings.name, material.settings, material.identity, wanted)
    with under_way(workspace, plan, resume, state) as run:
        material = replace(material, place=kept_dtype(run, material.place, resume))
        setup = set_up(workspace, material, run.folder)
        checkpoint = last_whole_checkpoint(run.folder / "checkpoints") if resume else None
        if resume:
            say(f"going on from {checkpoint.name}" if checkpoint else "no checkpoint yet: starting over")
            setup.log.cut_back(_step_of(checkpoint))
        with (stop := StopAtSignal()).listening():
            trainer, meter, watch = _trainer(material, setup, run, stop, say)
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if stop.asked and watch.stopped is None and trainer.state.global_step < trainer.state.max_steps:
            raise Interrupted(
                f"stopped at step {trainer.state.global_step} of {trainer.state.max_steps}; the checkpoint is in "
                f"{run.folder / 'checkpoints'}",
                fix="go on with the same command and --resume",
            )
        version, metrics = _published(workspace, material, run, setup, meter, watch, say, state)
    is_new = registry.show(workspace, version).manifest["run_id"] == run.id
    return Trained(version, run.id, run.folder, metrics, is_new, watch.stopped)


def _check_whole_models() -> None:
    """Refuse what cuts a model into shards: sampling, rewards and reference all go around the wrapped forward.

    Read where accelerate reads it: its PartialState would start DeepSpeed first, and doesn't know of FSDP.
    """
    for name in ("FSDP", "DEEPSPEED"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() in ("1", "true", "yes"):
            raise BadUsage(
                f"{name} was asked for, which splits the model over the processes; a policy is trained whole on each of them",
                fix="use configs/accelerate/ddp.yaml, with quantize=nf4 where the base is too large for one device",
            )


def _trainer(
    material: Material, setup: Setup, run: Run, stop: StopAtSignal, say: Say
) -> tuple[Any, MetricsFile, Watch]:
    """The method's TRL trainer with our callbacks. For dpo on sampled pairs, the sampling is done here, before it."""
    settings = material.settings
    trainer: Any
    if settings.method == "dpo":
        pairs = material.pairs or ranked_pairs(material, setup, stop, say)
        n_items = len(pairs)
        epoch_steps = math.ceil(n_items / settings.pairs_per_step)
        steps = settings.max_steps or math.ceil(epoch_steps * settings.epochs)
        with policies.lora_kept(setup.model):
            trainer = dpo_trainer(material, setup, pairs, steps, run.folder)
        named = {"rewards/margins": "margin", "rewards/accuracies": "accuracy", "loss": "loss", "entropy": "entropy"}
        shown, unit = {"rewards/margins": "margin", "rewards/accuracies": "acc"}, "pairs"
    else:
        n_items = len(material.prompts)
        steps = settings.max_steps or math.ceil(n_items * settings.epochs / settings.pairs_per_step)
        with policies.lora_kept(setup.model):
            trainer = rollout_trainer(material, setup, steps, run.folder, say)
        named = {"reward": "reward", "reward_std": "reward_sd", "kl_reply": "kl", "kl_token": "kl_token"}
        named |= {"completions/mean_length": "tokens", "completions/clipped_ratio": "cut_off", "entropy": "entropy"}
        named |= {"loss": "loss", "frac_reward_zero_std": "groups_alike"}
        shown, unit = {"reward": "reward", "kl_token": "kl"}, "prompts"
        n_items = steps * settings.pairs_per_step
    freeze_others(setup.model)
    named |= {"grad_norm": "grad_norm", "learning_rate": "learning_rate"}
    meter = MetricsFile(run.folder / "metrics.jsonl", named, unit, n_items, settings.pairs_per_step)
    watch = Watch(
        setup.model,
        setup.rewards,
        material.watched,
        setup.sampling,
        Bands.of(settings),
        every=settings.watch_steps,
        reference=setup.reference,
        decode=setup.decode,
        folder=run.folder,
        meter=meter,
        log=setup.log,
    )
    for callback in (ProgressBar(f"policy {settings.name}", shown), meter, watch, stop):
        trainer.add_callback(callback)
    return trainer, meter, watch


def _published(
    workspace: Workspace,
    material: Material,
    run: Run,
    setup: Setup,
    meter: MetricsFile,
    watch: Watch,
    say: Say,
    state: PartialState,
) -> tuple[VersionRef, Mapping[str, Any]]:
    """Publish the run's adapter, or the last good one where the guard stopped it."""

    def work() -> tuple[VersionRef, Mapping[str, Any]]:
        if watch.stopped is not None:
            say(watch.stopped)
            if watch.good_step == 0:
                raise BadInput(
                    f"{watch.stopped}; there is no good step before it, so nothing is published",
                    fix="lower learning_rate, raise beta, watch more often (watch_steps), or widen the band",
                )
            watch.keep_good()
        return publish(workspace, material, run, setup.model, meter, watch, say)

    return told_to_all(state, work)


def _step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else -1


def _silent(_text: str) -> None:
    """Only the first process speaks."""
