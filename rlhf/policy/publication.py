"""From a trained policy to a published version: save, reload on a fresh base, compare, publish, report."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel

from rlhf import registry
from rlhf.engine import generation, policies
from rlhf.engine.policies import TRAINED
from rlhf.engine.rendering import Renderer
from rlhf.errors import BadInput
from rlhf.pages.policy_report import write_policy_report
from rlhf.policy.material import Material, Say
from rlhf.policy.watch import Watch
from rlhf.records import VersionRef
from rlhf.registry import curves
from rlhf.reward.probes import FLOAT32, continuations, probe_digest
from rlhf.store import Workspace, runs
from rlhf.training import Run
from rlhf.training.progress import MetricsFile


def publish(
    workspace: Workspace, material: Material, run: Run, model: PeftModel, meter: MetricsFile, watch: Watch, say: Say
) -> tuple[VersionRef, dict[str, Any]]:
    """Publish the adapter in training. Raises BadInput where a tensor got lost in saving or nothing was trained, and the
    registry's refusals."""
    settings = material.settings
    metrics = _metrics(meter, watch)
    with workspace.artifacts.staging() as staged:
        model.save_pretrained(staged, selected_adapters=[TRAINED], safe_serialization=True)
        curves.write(staged, meter.rows())
        evidence = _evidence(material, model, staged)
        say(
            f"reloaded on a fresh base: log-probabilities of the probes differ by at most {evidence.largest_difference:.1e}"
        )
        parents = [("reward", reward.ref.digest) for reward in material.rewards]
        if material.parent is not None:
            parents.append(("from", material.parent.ref.digest))
        draft = registry.VersionDraft(
            role="policy",
            kind="lora",
            name=settings.name,
            base_name=material.base.name,
            base_digest=material.base.digest,
            tokenizer_digest=material.base.tokenizer_digest,
            template_digest=material.base.template_digest,
            snapshot_digest=material.snapshot.digest if material.snapshot else None,
            parents=tuple(parents),
            settings=_content(material, watch),
            seeds={"seed": settings.seed},
            metrics=metrics,
            simulated=is_simulated(material),
            run_id=run.id,
            details={
                "counts": material.counts,
                "placement": material.place.why,
                "stopped": watch.stopped,
                "good_step": watch.good_step if watch.stopped else None,
            },
        )
        version = registry.publish(workspace, staged, draft, evidence)
    _write_report(material, run, version, metrics, meter, watch)
    runs.finish(workspace, run.id, "done", version_digest=version.digest)
    return version, metrics


def is_simulated(material: Material) -> bool:
    """Whether any judgement behind it is a simulated labeler's."""
    parents = [*material.rewards, *([material.parent] if material.parent else [])]
    return any(bool(parent.manifest["simulated"]) for parent in parents)


def _content(material: Material, watch: Watch) -> dict[str, Any]:
    """Settings with the content that their names meant; a guard's stop is part of what made the weights."""
    kept = material.settings.content() | {
        "rewards": [reward.ref.digest for reward in material.rewards],
        "source": material.source_digest,
    }
    return kept | ({"kept_step": watch.good_step} if watch.stopped else {})


def _evidence(material: Material, model: PeftModel, staged: Path) -> registry.Evidence:
    """The live tensors against the folder on a fresh float32 base, tensor by tensor and by what they make of fixed replies."""
    live = {n: p.detach().cpu() for n, p in model.named_parameters() if f".{TRAINED}." in n}
    reloaded = policies.load(staged, material.base, FLOAT32)
    there = dict(reloaded.named_parameters())
    lost = [name for name, value in live.items() if name not in there or not bool((there[name] == value).all())]
    if lost:
        raise BadInput(
            f"{len(lost)} trained tensors are not in the saved folder, first {lost[0]}",
            fix="report this with the versions of peft and transformers (rlhf doctor)",
        )
    if material.parent is None and not any(bool(value.any()) for name, value in live.items() if "lora_B" in name):
        raise BadInput(
            f"the adapter is as it was before training, after {material.settings.name}'s last step",
            fix="train for more steps or at a higher learning_rate",
        )
    scores = _probe_scores(reloaded, material)
    if material.place.dtype == "float32" and material.settings.quantize == "none":
        with policies.switched(model, TRAINED):
            return registry.Evidence(probe_digest(), _probe_scores(model, material), scores)
    for name, parameter in there.items():  # the live body has another type: the live LoRA on the float32 one
        if name in live:
            parameter.data = live[name]
    return registry.Evidence(probe_digest(), _probe_scores(reloaded, material), scores)


def _probe_scores(model: PeftModel, material: Material) -> tuple[float, ...]:
    """Mean log-probability a token of each probe's reply."""
    openings, replies = continuations(Renderer(material.base.tokenizer(), max_length=2**31))
    sums = generation.log_probabilities(model, openings, replies, token_budget=1)
    return tuple(total / len(reply) for total, reply in zip(sums, replies, strict=True))


def _metrics(meter: MetricsFile, watch: Watch) -> dict[str, Any]:
    """Speed and memory, and the watch's figures at the first and the last good measurement."""
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    found: dict[str, Any] = {
        "steps": watch.good_step if watch.stopped else meter.steps_done,
        f"{meter.unit}_per_s": round(meter.items_per_s, 3),
        "train_seconds": round(meter.seconds, 1),
        "peak_memory_gib": round(peak, 2),
    }
    measured = {row["step"]: row["watch"] for row in meter.rows() if "watch" in row}
    if measured:
        last = measured[watch.good_step] if watch.stopped else measured[max(measured)]
        found |= {f"{name}_at_first": measured[min(measured)].get(name) for name in ("reward", "logp_base")}
        found |= {name: last.get(name) for name in last if name != "unscored"}
    return {key: value for key, value in found.items() if value is not None}


def _write_report(
    material: Material, run: Run, version: VersionRef, metrics: Mapping[str, Any], meter: MetricsFile, watch: Watch
) -> None:
    facts = {
        "version": str(version),
        "digest": version.digest,
        "method": material.settings.method,
        "reward": ", ".join(str(reward.ref) for reward in material.rewards),
        "went on from": str(material.parent.ref) if material.parent else f"the base {material.base.name}",
        "trained on": material.snapshot.ref if material.snapshot else str(material.settings.prompts),
        "run": run.id,
        "device and type": material.place.why,
        **material.counts,
    }
    rows = meter.rows()
    report = {
        "version": str(version),
        "digest": version.digest,
        "facts": facts,
        "metrics": dict(metrics),
        "stopped": watch.stopped,
        "steps": [row for row in rows if "watch" not in row],
        "watch": [{"step": row["step"], **row["watch"]} for row in rows if "watch" in row],
    }
    (run.folder / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False), "utf-8")
    write_policy_report(run.folder, title=f"Policy training {version}", report=report, simulated=is_simulated(material))
