"""A training of kind head, top to bottom: open, read the states, fit, prove, publish."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from accelerate import PartialState

from rlhf import registry
from rlhf.engine import heads
from rlhf.engine.heads import HeadReward
from rlhf.errors import Interrupted
from rlhf.records import VersionRef
from rlhf.reward import head, probes
from rlhf.reward.head import Fitted
from rlhf.reward.material import Material, Say
from rlhf.reward.publication import draft_of, held_out, peak_memory_gib, write_report
from rlhf.store import Workspace, runs
from rlhf.training import Plan, Run, Trained, kept_dtype, under_way
from rlhf.training.progress import METRICS, StopAtSignal, counting


def train_head(workspace: Workspace, material: Material, state: PartialState, *, resume: bool, say: Say) -> Trained:
    """Fit a head on the material's pairs and publish it.

    Raises Interrupted after Ctrl-C: the states that were computed are kept, and `resume` reads them.
    """
    reading = head.reading_of(material.base, material.settings)
    # What the fit does is what the version records: it is logistic, so a tie is half a vote for each side unless it is dropped.
    ties = "drop" if material.settings.ties == "drop" else "half"
    settings = material.settings.model_copy(update={"head_layers": list(reading.layers), "ties": ties})
    plan = Plan(
        "reward", settings.name, material.settings, material.identity
    )  # as asked: a round looks for its run by that
    material = replace(material, settings=settings)
    with under_way(workspace, plan, resume, state) as run:
        material = replace(material, place=kept_dtype(run, material.place, resume))
        kept = head.pooled(workspace, material.base, material.place, reading, settings)
        stop, start = StopAtSignal("stopping after this pair; the states so far are kept"), time.perf_counter()
        with stop.listening(), counting(f"reward {settings.name}: states", len(material.rows), "pair") as show:
            states = kept.of(material.rows, show, lambda: stop.asked)
        if len(states) < len(material.rows):
            raise Interrupted(
                f"stopped after the states of {len(states)} of {len(material.rows)} pairs, which are kept",
                fix="go on with the same command and --resume",
            )
        seconds = time.perf_counter() - start
        say(f"states of {len(states)} pairs: {kept.n_read} were kept, {kept.n_computed} computed in {seconds:.1f} s")
        groups = head.groups_of(material)
        fitted = head.fit(states, material.rows, groups, reading, settings.head_prior, settings.length_penalty)
        say(
            f"fitted {len(fitted.head.weight)} weights in {fitted.seconds:.2f} s; log-loss on opening turns left out "
            f"{fitted.left_out_loss:.4f} nats"
        )
        _write_metrics(run, fitted, seconds)
        model = HeadReward(kept.model, fitted.head)
        version, metrics = _publish(workspace, material, run, model, fitted, seconds, say)
    is_new = registry.show(workspace, version).manifest["run_id"] == run.id
    return Trained(version, run.id, run.folder, metrics, is_new)


def _write_metrics(run: Run, fitted: Fitted, states_seconds: float) -> None:
    """One line: a fit has one step. Accuracy is on the pairs it was fitted on, eval_loss on opening turns left out."""
    row = {
        "step": 1,
        "loss": fitted.loss,
        "accuracy": fitted.accuracy,
        "eval_loss": fitted.left_out_loss,
        "seconds": round(states_seconds + fitted.seconds, 3),
        "pairs": fitted.n_pairs,
    }
    (run.folder / METRICS).write_text(json.dumps(row) + "\n", "utf-8")


def _publish(
    workspace: Workspace, material: Material, run: Run, model: HeadReward, fitted: Fitted, seconds: float, say: Say
) -> tuple[VersionRef, dict[str, Any]]:
    base = material.base
    with workspace.artifacts.staging() as staged:
        before = probes.probe_scores(heads.on_base(fitted.head, base, probes.FLOAT32), base)
        fitted.head.save(staged)
        evidence = registry.Evidence(
            probes.probe_digest(), before, probes.scores_from_disk(workspace, staged, "head", base)
        )
        say(f"reloaded on a fresh base: probe scores differ by at most {evidence.largest_difference:.1e}")
        metrics = {
            "pairs_per_s": round(fitted.n_pairs / max(seconds + fitted.seconds, 1e-3), 3),
            "train_seconds": round(seconds + fitted.seconds, 1),
            "fit_seconds": round(fitted.seconds, 3),
            "peak_memory_gib": peak_memory_gib(),
            "n_train": material.counts.trained_on,
            "left_out_log_loss": fitted.left_out_loss,
            **held_out(material, model),
        }
        draft = draft_of(material, run, "head", metrics, head=fitted.as_json())
        version = registry.publish(workspace, staged, draft, evidence)
    write_report(material, run, version, metrics)
    runs.finish(workspace, run.id, "done", version_digest=version.digest)
    return version, metrics
