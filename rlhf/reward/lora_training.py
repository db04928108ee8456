"""A LoRA's training, by steps: a model with a fresh LoRA or a parent's, the frozen trunk below it, the trainer, publication."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from transformers import PrinterCallback
from trl import RewardConfig

from rlhf import registry
from rlhf.engine import rewards
from rlhf.engine import trunk as trunks
from rlhf.engine.trunk import Trunk
from rlhf.errors import BadInput, Interrupted
from rlhf.records import VersionRef
from rlhf.reward.head import beside
from rlhf.reward.material import Material, Say
from rlhf.reward.publication import publish
from rlhf.reward.trainer import PackedRewardTrainer
from rlhf.store import Workspace
from rlhf.store.cache import Cache
from rlhf.training import WAIT, Plan, Run, Trained, kept_dtype, told_to_all, under_way
from rlhf.training.checkpoints import last_whole_checkpoint
from rlhf.training.progress import MetricsFile, ProgressBar, StopAtSignal, counting
from rlhf.training.space import of_lora

# The trainer's figures and their names in metrics.jsonl.
_NAMED = {"pair_loss": "loss"} | {
    name: name for name in ("accuracy", "margin", "mean_reward", "grad_norm", "learning_rate")
}


def train_one(workspace: Workspace, material: Material, state: PartialState, *, resume: bool, say: Say) -> Trained:
    """Train and publish one adapter. Every process trains, the first one writes. Raises as `reward.train`."""
    wanted = of_lora(material.base.folder / "config.json", material.settings.lora_r, material.settings.top_layers)
    plan = Plan("reward", material.settings.name, material.settings, material.identity, wanted)
    with under_way(workspace, plan, resume, state) as run:
        material = replace(material, place=kept_dtype(run, material.place, resume))
        model = _model(workspace, material, state)
        head_before = rewards.head_of(model).detach().clone()
        trunk = _trunk(workspace, material, model, state, say)
        trainer, meter, stop = _trainer(material, model, run.folder, trunk)
        checkpoint = last_whole_checkpoint(run.folder / "checkpoints") if resume else None
        if resume:
            say(f"going on from {checkpoint.name}" if checkpoint else "no checkpoint yet: starting over")
        if checkpoint:
            trainer.carried.restore(checkpoint)
            trainer.budget.restore(checkpoint)
        with stop.listening():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if stop.asked and trainer.state.global_step < trainer.state.max_steps:
            raise Interrupted(
                f"stopped at step {trainer.state.global_step} of {trainer.state.max_steps}; the checkpoint is in "
                f"{run.folder / 'checkpoints'}",
                fix="go on with the same command and --resume",
            )
        _require_trained(trainer, head_before)
        version, metrics = _published(workspace, material, run, trainer, meter, say)
    is_new = registry.show(workspace, version).manifest["run_id"] == run.id
    return Trained(version, run.id, run.folder, metrics, is_new)


def _require_trained(trainer: PackedRewardTrainer, head_before: torch.Tensor) -> None:
    """A head that no step has moved scores at random, or as the head did that it started from."""
    if trainer.budget.is_sharded:
        return  # no process holds it whole
    head = rewards.head_of(trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_torch_compile=False))
    if torch.equal(head, head_before):
        raise BadInput(
            f"the score head is as it was before training, after {trainer.state.global_step} steps",
            fix="train for more steps or at a higher learning_rate",
        )


def _published(
    workspace: Workspace, material: Material, run: Run, trainer: PackedRewardTrainer, meter: MetricsFile, say: Say
) -> tuple[VersionRef, Mapping[str, Any]]:
    """Publish in the first process and tell the others what came of it, a refusal included: none of them waits for ever."""
    accelerator = trainer.accelerator
    is_sharded = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    state = (
        accelerator.get_state_dict(trainer.model_wrapped) if is_sharded else None
    )  # gathered by all processes together
    model = accelerator.unwrap_model(trainer.model_wrapped, keep_torch_compile=False)
    learned = trainer.carried.as_json()
    return told_to_all(accelerator, lambda: publish(workspace, material, run, model, state, meter, say, learned))


def _model(workspace: Workspace, material: Material, state: PartialState) -> Any:
    settings = material.settings
    if material.parent is not None:
        return rewards.load(material.parent.folder, material.base, material.place, trainable=True)
    shape = rewards.LoraShape(settings.lora_r, settings.lora_alpha, settings.lora_dropout, settings.top_layers)
    model = rewards.fresh(material.base, material.place, shape, seed=settings.seed)
    if settings.head_start:
        with state.main_process_first(), counting(f"reward {settings.name}: head", len(material.rows), "pair") as show:
            found, _ = beside(workspace, material, show, at_end=True)
        rewards.head_of(model).data.copy_(found.head.at_last_token())
    return model


def _trunk(workspace: Workspace, material: Material, model: Any, state: PartialState, say: Say) -> Trunk | None:
    """The states below the trained layers, computed for all rows and kept; None where every layer is trained."""
    settings = material.settings
    if settings.trunk == "off" or settings.packing == "off" or not settings.top_layers:
        return None
    if state.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        say("states below top_layers are not kept: the model is sharded")
        return None
    cache = Cache(workspace.root / trunks.FOLDER, round(settings.trunk_gib * 2**30))
    trunk, why = trunks.trunk_below(model, settings.top_layers, material.base, cache, material.rows[:4])
    say(why if trunk else f"states below top_layers are not kept: {why}")
    if trunk is None:
        return None
    if trunk.bytes_for(material.rows) > cache.max_bytes:
        say(
            f"kept states take {trunk.bytes_for(material.rows) / 2**30:.1f} GiB, more than trunk_gib={settings.trunk_gib:g}: "
            "some are computed in every epoch"
        )
    if 0 < settings.max_steps * settings.pairs_per_step < len(material.rows):
        say("states are computed as the steps come to their pairs: max_steps ends before all of them")
        return trunk
    mine = material.rows[state.process_index :: state.num_processes]
    with counting(f"reward {settings.name}: states", len(mine), "pair") as show:
        trunk.fill(mine, show if state.is_main_process else None)
    say(
        f"states of {len(mine)} pairs: {trunk.n_read} were kept, {trunk.n_computed} computed; what is kept is off by at most "
        f"{trunk.error:.1e} of a state"
    )
    state.wait_for_everyone()
    return trunk


def _trainer(
    material: Material, model: Any, folder: Path, trunk: Trunk | None
) -> tuple[PackedRewardTrainer, MetricsFile, StopAtSignal]:
    settings = material.settings
    if settings.packing == "off":
        model.get_base_model().set_attn_implementation("sdpa")
    meter = MetricsFile(folder / "metrics.jsonl", _NAMED, "pairs", len(material.rows), settings.pairs_per_step)
    stop = StopAtSignal()
    steps = settings.max_steps or math.ceil(math.ceil(len(material.rows) / settings.pairs_per_step) * settings.epochs)
    args = RewardConfig(
        output_dir=str(folder / "checkpoints"),
        max_steps=steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=math.floor(
            settings.warmup * steps
        ),  # its first step has a learning rate of 0: none in a run of a few
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        center_rewards_coefficient=settings.centring,
        seed=settings.seed,
        data_seed=settings.seed,
        max_length=None,
        bf16=False,
        activation_checkpointing=settings.gradient_checkpointing,
        disable_dropout=settings.lora_dropout == 0,
        use_cpu=material.place.device == "cpu",
        logging_steps=settings.log_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        report_to=[name.strip() for name in settings.report_to.split(",")],
        disable_tqdm=True,
        remove_unused_columns=False,
        run_name=f"{settings.name}-{folder.name}",
        ddp_find_unused_parameters=False,
        ddp_timeout=int(WAIT.total_seconds()),
    )
    args._n_gpu = min(args.n_gpu, 1)  # one process uses one device: DataParallel can't scatter a packed row
    trainer = PackedRewardTrainer(
        model=model,
        args=args,
        rows=material.rows,
        pairs_per_step=settings.pairs_per_step,
        token_budget=settings.token_budget,
        processing_class=material.base.tokenizer(),
        callbacks=[ProgressBar(f"reward {settings.name}", {"pair_loss": "loss", "accuracy": "acc"}), meter, stop],
        trunk=trunk,
        ties=settings.ties,
        length_penalty=settings.length_penalty,
    )
    trainer.remove_callback(PrinterCallback)  # it prints to standard output, which is the result's
    return trainer, meter, stop
