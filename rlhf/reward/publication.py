"""From trained tensors to a published version: save, reload on a fresh base, compare, measure, publish, report."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlhf import registry, snapshots
from rlhf.engine import rewards
from rlhf.engine.rendering import Renderer
from rlhf.errors import BadInput, RlhfError
from rlhf.measures import intervals, ranking
from rlhf.pages import write_run_report
from rlhf.records import VersionRef
from rlhf.registry import curves
from rlhf.registry.folder import VersionKind
from rlhf.reward import head, probes
from rlhf.reward.material import Material, Say
from rlhf.reward.score import score_with
from rlhf.reward.targets import target_of
from rlhf.store import Workspace, runs
from rlhf.training import Run
from rlhf.training.progress import MetricsFile, counting


def publish(
    workspace: Workspace,
    material: Material,
    run: Run,
    model: Any,
    state: Mapping[str, Any] | None,
    meter: MetricsFile,
    say: Say,
    learned: Mapping[str, Any],
) -> tuple[VersionRef, dict[str, Any]]:
    """Publish the trained adapter. model: the unwrapped PEFT model; state: its whole state where it is sharded, else None;
    learned: what the training learned beside the adapter (`carried.Carried.as_json`).

    The live model's modules are held against the reloaded ones without PEFT's own extraction, which would lose the same
    tensor on both sides. Raises BadInput where a tensor got lost, and the registry's refusal where the scores before saving and
    after a reload on a fresh base differ.
    """
    with workspace.artifacts.staging() as staged:
        model.save_pretrained(staged, state_dict=dict(state) if state is not None else None, safe_serialization=True)
        curves.write(staged, meter.rows())
        metrics = {**_speed(meter, material), **held_out(material, rewards.load(staged, material.base, material.place))}
        metrics |= baseline(workspace, material, say)
        evidence = _evidence(material, model, staged, is_sharded=state is not None)
        say(f"reloaded on a fresh base: probe scores differ by at most {evidence.largest_difference:.1e}")
        draft = draft_of(
            material,
            run,
            "lora",
            metrics,
            (("from", material.parent.ref.digest),) if material.parent else (),
            learned=learned,
        )
        version = registry.publish(workspace, staged, draft, evidence)
    write_report(material, run, version, metrics)
    runs.finish(workspace, run.id, "done", version_digest=version.digest)
    return version, metrics


def draft_of(
    material: Material,
    run: Run,
    kind: VersionKind,
    metrics: Mapping[str, Any],
    parents: tuple[tuple[str, str], ...] = (),
    *,
    learned: Mapping[str, Any] | None = None,
    **details: Any,
) -> registry.VersionDraft:
    """What a reward's training says of the version it wants published, whatever its kind."""
    trust = {"labelers": material.trust.as_json()} if material.trust else {}
    return registry.VersionDraft(
        role="reward",
        kind=kind,
        name=material.settings.name,
        base_name=material.base.name,
        base_digest=material.base.digest,
        tokenizer_digest=material.base.tokenizer_digest,
        template_digest=material.base.template_digest,
        snapshot_digest=material.snapshot.digest,
        settings=material.settings.content(),
        seeds={"seed": material.settings.seed},
        parents=parents,
        metrics=metrics,
        simulated=is_simulated(material.snapshot),
        run_id=run.id,
        details={
            "rows": material.counts.as_json(),
            "placement": material.place.why,
            "learned": {**(learned or {}), **trust},
            **details,
        },
    )


def _evidence(material: Material, model: Any, staged: Path, *, is_sharded: bool) -> registry.Evidence:
    """Scores of the live tensors and of the folder on a fresh base, in float32 on the CPU, after the tensors were compared."""
    # Another head seed than in training, so that a head that was lost on the way can't come out as it was.
    reloaded = rewards.load(staged, material.base, probes.FLOAT32, seed=material.settings.seed + 1)
    scores = probes.probe_scores(reloaded, material.base)
    if is_sharded:  # no process holds the live modules whole; what was gathered is what was saved
        again = probes.probe_scores(rewards.load(staged, material.base, probes.FLOAT32, seed=1), material.base)
        return registry.Evidence(probes.probe_digest(), scores, again)
    lost = rewards.lost_in(model, reloaded)
    if lost:
        raise BadInput(
            f"{len(lost)} trained tensors are not in the saved folder, first {lost[0]}",
            fix="report this with the versions of peft and transformers (rlhf doctor)",
        )
    return registry.Evidence(
        probes.probe_digest(), probes.probe_scores(rewards.widen(model, material.base), material.base), scores
    )


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


def baseline(workspace: Workspace, material: Material, say: Say) -> dict[str, Any]:
    """The instant head's figures on the same pairs, or on as many as the steps read: what a LoRA must beat. Empty where it isn't
    wanted or can't be had."""
    settings = material.settings
    if not settings.baseline:
        return {}
    material = material.as_read
    try:
        with counting(f"reward {settings.name}: baseline", len(material.rows), "pair") as show:
            _, model = head.beside(workspace, material, show)
    except (
        RlhfError,
        MemoryError,
        np.linalg.LinAlgError,
        torch.OutOfMemoryError,
    ) as error:  # the LoRA is a reward without it
        say(f"no instant head beside it: {error}")
        return {}
    found = held_out(material, model)
    return {f"baseline_{key}": found[key] for key in ("accuracy", "log_loss") if key in found}


def is_simulated(snapshot: snapshots.Snapshot) -> bool:
    """Whether any judgement of the snapshot is a simulated labeler's: then the version says so wherever it shows."""
    return any(j.kind == "simulated" for row in snapshot.rows() for j in row.judgements)


def _speed(meter: MetricsFile, material: Material) -> dict[str, Any]:
    return {
        "steps": meter.steps_done,
        "pairs_per_s": round(meter.items_per_s, 3),
        "train_seconds": round(meter.seconds, 1),
        "peak_memory_gib": peak_memory_gib(),
        "n_train": min(material.counts.trained_on, meter.steps_done * material.settings.pairs_per_step),
    }


def peak_memory_gib() -> float:
    """The most memory that this process has had, GiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)


def write_report(material: Material, run: Run, version: VersionRef, metrics: Mapping[str, Any], **more: Any) -> None:
    """report.json and report.html in the run's folder. more: facts of this kind of reward."""
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    facts = {
        "version": str(version),
        "digest": version.digest,
        "snapshot": material.snapshot.ref,
        "base": material.base.name,
        "run": run.id,
        **more,
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
