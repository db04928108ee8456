"""Reward training, top to bottom: open, render, train, prove, publish.

`train` is the whole road. The same function runs under `accelerate launch`: every process trains, the first one writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import PrinterCallback
from trl import RewardConfig

from rlhf import config, registry, snapshots
from rlhf.engine import bases, placement, rewards
from rlhf.engine.rendering import Renderer
from rlhf.errors import BadInput, BadUsage, Conflict, Interrupted, NotFound, RlhfError
from rlhf.ids import digest_of
from rlhf.measures import intervals, ranking
from rlhf.pages import write_run_report
from rlhf.records import VersionRef
from rlhf.reward import probes
from rlhf.reward.progress import MetricsFile, ProgressBar, StopAtSignal
from rlhf.reward.rows import RowCounts, TrainRow, training_rows
from rlhf.reward.score import score_with
from rlhf.reward.settings import RewardSettings
from rlhf.reward.targets import target_of
from rlhf.reward.trainer import PackedRewardTrainer, last_whole_checkpoint
from rlhf.store import Workspace, runs

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training gave: the version, its run, and its figures."""

    version: VersionRef
    run_id: str
    run_folder: Path
    metrics: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {
            "version": str(self.version),
            "digest": self.version.digest,
            "run": self.run_id,
            "metrics": dict(self.metrics),
            "report": str(self.run_folder / "report.html"),
        }


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that a training reads, opened and checked before a run is started."""

    settings: RewardSettings
    snapshot: snapshots.Snapshot
    base: bases.Base
    parent: registry.OpenVersion | None
    place: placement.Placement
    rows: list[TrainRow]
    counts: RowCounts


def train(workspace: Workspace, settings: RewardSettings, *, resume: bool = False, say: Say | None = None) -> Trained:
    """Train a reward adapter on a snapshot and publish it as the next version of `settings.name`.

    Raises BadInput where nothing can be trained on, NotFound for an unknown snapshot, base or version, Interrupted after
    Ctrl-C (a checkpoint is kept; `resume` goes on from it), and the registry's refusal where the head did not survive.
    """
    state = PartialState(cpu=settings.device == "cpu")
    say = say if say and state.is_main_process else _silent
    material = open_material(workspace, settings, say)
    run = _run_of(workspace, material, resume, state)
    with _in_charge(workspace, run, state):
        model = _model(material)
        trainer, meter, stop = _trainer(material, model, run.folder, packed=settings.packing == "auto")
        checkpoint = last_whole_checkpoint(run.folder / "checkpoints") if resume else None
        if resume:
            say(f"going on from {checkpoint.name}" if checkpoint else "no checkpoint yet: starting over")
        with stop.listening():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if stop.asked and trainer.state.global_step < trainer.state.max_steps:
            raise Interrupted(
                f"stopped at step {trainer.state.global_step} of {trainer.state.max_steps}; the checkpoint is in "
                f"{run.folder / 'checkpoints'}",
                fix="go on with the same command and --resume",
            )
        state.wait_for_everyone()
        published: list[Any] = [None, {}]
        if state.is_main_process:
            published = list(_publish(workspace, material, trainer, run, meter, say))
        if state.num_processes > 1:
            broadcast_object_list(published)
    version, metrics = published
    return Trained(version, run.id, run.folder, metrics)


def open_material(workspace: Workspace, settings: RewardSettings, say: Say) -> Material:
    """Open what the settings name and render the train side. Raises before anything is started or written."""
    if settings.snapshot == "" or settings.base == "":
        raise BadUsage("snapshot and base must be named", fix="give --snapshot NAME and --base NAME")
    registry.check_name(settings.name)
    snapshot = snapshots.open_snapshot(workspace, settings.snapshot)
    base = bases.get(workspace, settings.base)
    parent = None
    if settings.from_version:
        parent = registry.open_version(workspace, registry.resolve(workspace, settings.from_version, role="reward"))
        if parent.manifest["base"]["digest"] != base.digest:
            raise BadInput(
                f"{settings.from_version} stands on another base than {base.name}", fix="train it on its own base"
            )
    renderer = Renderer(base.tokenizer(), settings.max_length)
    rows, counts = training_rows(snapshot.rows("train"), renderer, settings.labels, settings.margin)
    say(
        f"{snapshot.ref}: {counts.pairs} train pairs; {counts.trained_on} trained on, {counts.too_long} too long, "
        f"{counts.undecided} undecided; {counts.ties} ties, {counts.shortened} without their oldest turns"
    )
    if not rows:
        raise BadInput(
            f"{snapshot.ref} has no pair to train on: {counts.as_json()}",
            fix="raise max_length, or cut another snapshot",
        )
    place = placement.choose(settings.device, settings.dtype)
    say(f"device and type: {place.why}")
    return Material(settings, snapshot, base, parent, place, rows, counts)


@dataclass(frozen=True, slots=True)
class _Run:
    id: str
    folder: Path


def _run_of(workspace: Workspace, material: Material, resume: bool, state: PartialState) -> _Run:
    """Start a run, or find the one to go on with; the first process decides, the others are told."""
    found: list[Any] = [None]
    if state.is_main_process:
        try:
            found = [_resumable(workspace, material) if resume else _started(workspace, material)]
        except RlhfError as error:
            found = [error]
    if state.num_processes > 1:
        broadcast_object_list(found)
    if isinstance(found[0], RlhfError):
        raise found[0]
    run_id, folder = found[0]
    return _Run(run_id, workspace.root / folder)


def _identity(material: Material) -> dict[str, Any]:
    """What makes two runs the same run for `--resume`: the settings, and the content that their names meant."""
    return {
        **material.settings.model_dump(mode="json"),
        "snapshot_digest": material.snapshot.digest,
        "base_digest": material.base.digest,
        "parent": material.parent.ref.digest if material.parent else None,
    }


def _started(workspace: Workspace, material: Material) -> tuple[str, str]:
    run_id = runs.start(workspace, "reward", material.settings.name, None, _identity(material))
    folder = workspace.root / "runs" / run_id
    settings = material.settings
    command = f"rlhf reward train {settings.name} --config {folder.name}/config.yaml"
    (folder / "config.yaml").write_text(config.to_yaml(settings, command=command), "utf-8")
    return run_id, f"runs/{run_id}"


def _resumable(workspace: Workspace, material: Material) -> tuple[str, str]:
    found = runs.latest(workspace, "reward", material.settings.name, digest_of(_identity(material)))
    if found is None:
        raise NotFound(
            f"no run of '{material.settings.name}' with these settings to go on with",
            fix="give the interrupted run's own settings (its config.yaml), or leave --resume out",
        )
    if found.state == "done":
        raise Conflict(
            f"run {found.id} is done: it published {(found.version_digest or '')[:12]}",
            fix="leave --resume out to train anew",
        )
    return found.id, found.folder


@contextlib.contextmanager
def _in_charge(workspace: Workspace, run: _Run, state: PartialState) -> Iterator[None]:
    """Hold the run's lock and record how it ends. A killed process leaves it `running`, and its lock free."""
    if not state.is_main_process:
        yield
        return
    with open(run.folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"run {run.id} is being trained by another process", fix="wait for it, or stop it") from None
        try:
            yield
        except (Interrupted, KeyboardInterrupt) as stop:
            runs.finish(workspace, run.id, "interrupted", error=str(stop))
            if isinstance(stop, KeyboardInterrupt):
                raise Interrupted(
                    "stopped at once", fix="go on from the last checkpoint with the same command and --resume"
                ) from None
            raise
        except BaseException as error:
            runs.finish(workspace, run.id, "failed", error=f"{type(error).__name__}: {error}")
            raise


def _model(material: Material) -> Any:
    settings = material.settings
    if material.parent is not None:
        return rewards.load(material.parent.folder, material.base, material.place, trainable=True)
    shape = rewards.LoraShape(settings.lora_r, settings.lora_alpha, settings.lora_dropout, settings.top_layers)
    return rewards.fresh(material.base, material.place, shape, seed=settings.seed)


def _trainer(
    material: Material, model: Any, folder: Path, *, packed: bool
) -> tuple[PackedRewardTrainer, MetricsFile, StopAtSignal]:
    settings = material.settings
    if not packed:
        model.get_base_model().set_attn_implementation("sdpa")
    meter = MetricsFile(folder / "metrics.jsonl", len(material.rows), settings.pairs_per_step)
    stop = StopAtSignal()
    steps = settings.max_steps or math.ceil(math.ceil(len(material.rows) / settings.pairs_per_step) * settings.epochs)
    args = RewardConfig(
        output_dir=str(folder / "checkpoints"),
        max_steps=steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=math.ceil(settings.warmup * steps),
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
    )
    trainer = PackedRewardTrainer(
        model=model,
        args=args,
        rows=material.rows,
        pairs_per_step=settings.pairs_per_step,
        token_budget=settings.token_budget,
        processing_class=material.base.tokenizer(),
        callbacks=[ProgressBar(f"reward {settings.name}"), meter, stop],
    )
    trainer.remove_callback(PrinterCallback)  # it prints to standard output, which is the result's
    return trainer, meter, stop


def _publish(
    workspace: Workspace, material: Material, trainer: PackedRewardTrainer, run: _Run, meter: MetricsFile, say: Say
) -> tuple[VersionRef, dict[str, Any]]:
    """Save, reload on a fresh base, compare the probes, measure on the held-out side, publish, report."""
    settings = material.settings
    trained = trainer.accelerator.unwrap_model(trainer.model)
    with workspace.artifacts.staging() as staged:
        trained.save_pretrained(staged, safe_serialization=True)
        evidence = registry.Evidence(
            probes.probe_digest(),
            probes.scores_in_memory(trained, material.base),
            probes.scores_from_disk(staged, material.base),
        )
        say(f"reloaded on a fresh base: probe scores differ by at most {evidence.largest_difference:.1e}")
        metrics = {
            **_speed(trainer, meter, material),
            **held_out(material, rewards.load(staged, material.base, probes.FLOAT32)),
        }
        draft = registry.VersionDraft(
            role="reward",
            kind="lora",
            name=settings.name,
            base_name=material.base.name,
            base_digest=material.base.digest,
            tokenizer_digest=material.base.tokenizer_digest,
            template_digest=material.base.template_digest,
            snapshot_digest=material.snapshot.digest,
            settings=settings.content(),
            seeds={"seed": settings.seed},
            parents=(("from", material.parent.ref.digest),) if material.parent else (),
            metrics=metrics,
            simulated=is_simulated(material.snapshot),
            run_id=run.id,
            details={"rows": material.counts.as_json(), "placement": material.place.why},
        )
        version = registry.publish(workspace, staged, draft, evidence)
    _write_report(material, run, version, metrics)
    runs.finish(workspace, run.id, "done", version_digest=version.digest)
    return version, metrics


def held_out(material: Material, model: Any) -> dict[str, Any]:
    """Accuracy over the decided pairs of the test side (one that can't be scored counts half) and log-loss; up to `test_pairs`."""
    margins: list[float] = []
    groups: list[str] = []
    rows = list(islice(material.snapshot.rows("test"), material.settings.test_pairs))  # in order of digest: a fair draw
    wanted = [target_of(row.judgements) for row in rows]
    scored = score_with(
        model, Renderer(material.base.tokenizer(), material.settings.max_length), [row.pair for row in rows]
    )
    for row, p_a, pair in zip(rows, wanted, scored, strict=True):
        if p_a is None or p_a == 0.5:
            continue
        gap = 0.0 if pair.score_a is None or pair.score_b is None else pair.score_a - pair.score_b
        margins.append(gap if p_a > 0.5 else -gap)
        groups.append(row.pair.group)
    if not margins:
        return {"n_test": 0}
    interval = intervals.share(ranking.hits(margins), groups_N=groups)
    return {
        "n_test": len(margins),
        "accuracy": ranking.accuracy(margins),
        "accuracy_low": None if interval.is_degenerate else interval.low,
        "accuracy_high": None if interval.is_degenerate else interval.high,
        "log_loss": ranking.log_loss(margins),
    }


def is_simulated(snapshot: snapshots.Snapshot) -> bool:
    """Whether any judgement of the snapshot is a simulated labeler's: then the version says so wherever it shows."""
    return any(j.kind == "simulated" for row in snapshot.rows() for j in row.judgements)


def _speed(trainer: PackedRewardTrainer, meter: MetricsFile, material: Material) -> dict[str, Any]:
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    return {
        "steps": trainer.state.global_step,
        "pairs_per_s": round(meter.pairs_per_s, 3),
        "train_seconds": round(meter.seconds, 1),
        "peak_memory_gib": round(peak, 2),
        "n_train": material.counts.trained_on,
    }


def _write_report(material: Material, run: _Run, version: VersionRef, metrics: Mapping[str, Any]) -> None:
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    facts = {
        "version": str(version),
        "digest": version.digest,
        "snapshot": material.snapshot.ref,
        "base": material.base.name,
        "run": run.id,
        "device and type": material.place.why,
        **material.counts.as_json(),
    }
    report = {
        "version": str(version),
        "digest": version.digest,
        "facts": facts,
        "metrics": dict(metrics),
        "steps": lines,
    }
    (run.folder / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False), "utf-8")
    write_run_report(
        run.folder,
        title=f"Reward training {version}",
        facts=facts,
        metrics=lines,
        figures=metrics,
        simulated=is_simulated(material.snapshot),
    )


def _silent(_text: str) -> None:
    """Only the first process speaks."""
