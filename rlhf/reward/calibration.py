"""Calibrate: a version's scores are divided by the temperature that makes its probabilities those of the votes.

`calibrate` is the whole road: what was set aside, its scores, the temperature, a child version, a report. Fitted on train-side
pairs that the version and its ancestors never saw; the test side is measured and never fitted on. Every figure of "after" on the
set-aside pairs is cross-fitted: no pair had a say in the temperature that it is measured under.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf import config, registry, snapshots
from rlhf.engine import bases
from rlhf.errors import BadInput, Interrupted
from rlhf.pages.calibration_report import write_calibration_report
from rlhf.records import SnapshotRow, VersionRef
from rlhf.reward import fitting, probes, trust
from rlhf.reward.aside import Aside, left_aside
from rlhf.reward.publication import is_simulated
from rlhf.reward.scaling import write_scaled
from rlhf.reward.score import OpenReward, open_reward, score_with
from rlhf.reward.settings import CalibrationSettings
from rlhf.reward.targets import target_of
from rlhf.reward.trust import Votes, votes_of
from rlhf.store import Workspace, runs
from rlhf.store.holding import holding
from rlhf.training.run_folder import Run

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a calibration gave: the child version, its parent, and report.json's content."""

    version: VersionRef
    parent: VersionRef
    run_id: str
    run_folder: Path
    report: Mapping[str, Any]
    is_new: bool = True  # False: the same calibration was published before, and this is that version

    @property
    def temperature(self) -> float:
        return float(self.report["temperature"])

    def as_json(self) -> dict[str, Any]:
        return {
            **self.report,
            "metrics": fitting.metrics(self.report),
            "new": self.is_new,
            "report": str(self.run_folder / "report.html"),
        }


def calibrate(
    workspace: Workspace,
    settings: CalibrationSettings,
    *,
    say: Say | None = None,
    on_progress: Progress | None = None,
) -> Calibrated:
    """Publish a child of a reward version whose probabilities are calibrated, with the relation `calibrates`.

    Raises BadInput where the version set nothing aside, calibrates another one already, where fewer than `fitting.MIN_PAIRS` of
    its set-aside pairs in this snapshot have scores and votes, or where its scores point away from the votes.
    """
    say = say or _silent
    ref = registry.resolve(workspace, settings.version, role="reward")
    _require_uncalibrated(workspace, ref)
    snapshot = snapshots.open_snapshot(workspace, settings.snapshot)
    aside = left_aside(workspace, ref, snapshot)
    fitting.require_enough([row.pair.group for row in aside.train if target_of(row.judgements, "soft") is not None])
    with _under_way(workspace, settings, ref, snapshot) as run:
        say(f"{snapshot.ref}: {len(aside.train)} train pairs were set aside ({aside.share:g} of the opening turns)")
        reward = open_reward(workspace, ref)
        fitted_on, measured_on = _voted(reward, aside, on_progress)
        found = fitting.fit(fitted_on, str(ref), settings.seed)
        fitted = float(found["temperature"])
        n_turns, left_out = len(set(fitted_on.groups_N.tolist())), len(aside.train) - len(fitted_on)
        rest = f"; {left_out} have no vote or no score" if left_out else ""
        say(
            f"temperature {fitted:g}, fitted on {len(fitted_on)} pairs of {n_turns} opening turns, each counting once{rest}"
        )
        content = {
            **_identity(ref, snapshot, aside, settings),
            **found,
            "test": fitting.on_test(fitted, measured_on, aside.test_why, settings.seed),
            "threshold": fitting.limit(fitted, fitted_on, measured_on, settings),
            "method": trust.METHOD,
            "simulated": is_simulated(snapshot) or bool(registry.show(workspace, ref).manifest["simulated"]),
        }
        version = _publish(workspace, ref, snapshot, reward, content, run)
        report = {"version": str(version), "digest": version.digest, "run": run.id, **content}
        (run.folder / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False), "utf-8")
        write_calibration_report(run.folder, report)
        runs.finish(workspace, run.id, "done", version_digest=version.digest)
    is_new = registry.show(workspace, version).manifest["run_id"] == run.id
    return Calibrated(version, ref, run.id, run.folder, report, is_new)


def _voted(reward: OpenReward, aside: Aside, on_progress: Progress | None) -> tuple[Votes, Votes | None]:
    """Scores and votes of the set-aside pairs and of the test side."""
    rows: Sequence[SnapshotRow] = [*aside.train, *(aside.test or ())]
    scores = score_with(reward.model, reward.renderer, [row.pair for row in rows], on_progress)
    n = len(aside.train)
    return votes_of(rows[:n], scores[:n]), None if aside.test is None else votes_of(rows[n:], scores[n:])


def _publish(
    workspace: Workspace,
    parent: VersionRef,
    snapshot: snapshots.Snapshot,
    reward: OpenReward,
    content: Mapping[str, Any],
    run: Run,
) -> VersionRef:
    """Stage the scaled folder, prove on the probes that its scores are the parent's divided by T, publish."""
    opened = registry.open_version(workspace, parent)
    manifest, fitted = opened.manifest, content["temperature"]
    base = bases.by_digest(workspace, manifest["base"]["digest"])
    with workspace.artifacts.staging() as staged:
        write_scaled(opened.folder, opened.kind, fitted, staged)
        before = probes.scores_from_disk(workspace, opened.folder, opened.kind, base)
        evidence = registry.Evidence(
            probes.probe_digest(),
            tuple(score / fitted for score in before),
            probes.scores_from_disk(workspace, staged, opened.kind, base, seed=2),
        )
        draft = registry.VersionDraft(
            role="reward",
            kind=opened.kind,
            name=parent.name,
            base_name=base.name,
            base_digest=base.digest,
            tokenizer_digest=manifest["tokenizer_digest"],
            template_digest=manifest["template_digest"],
            snapshot_digest=snapshot.digest,
            settings={**manifest["settings"], "temperature": fitted},
            seeds={**manifest["seeds"], "calibration": content["seed"]},
            parents=(("calibrates", parent.digest), *_members(opened)),
            metrics=fitting.metrics(content),
            simulated=content["simulated"],
            run_id=run.id,
            details={"set_aside": content["set_aside"], "threshold": content["threshold"]},
        )
        return registry.publish(workspace, staged, draft, evidence)


def _members(opened: registry.OpenVersion) -> tuple[tuple[str, str], ...]:
    """An ensemble's child scores with the same members, which its folder names: they are its parents too."""
    parents = opened.manifest["parents"] if opened.kind == "ensemble" else ()
    return tuple((relation, digest) for relation, digest in parents if relation == "member")


def _identity(
    ref: VersionRef, snapshot: snapshots.Snapshot, aside: Aside, settings: CalibrationSettings
) -> dict[str, Any]:
    return {
        "parent": str(ref),
        "parent_digest": ref.digest,
        "snapshot": snapshot.ref,
        "snapshot_digest": snapshot.digest,
        "seed": settings.seed,
        "set_aside": {
            "share": aside.share,
            "pairs": len(aside.train),
            "seen_by_ancestors": aside.n_seen,
            "test_seen": aside.n_test_seen,
        },
    }


def _require_uncalibrated(workspace: Workspace, ref: VersionRef) -> None:
    parents = [
        digest for relation, digest in registry.show(workspace, ref).manifest["parents"] if relation == "calibrates"
    ]
    if parents:
        parent = registry.resolve(workspace, f"sha256:{parents[0]}")
        raise BadInput(
            f"{ref} is {parent} calibrated: a second temperature would be fitted on what the first has seen",
            fix=f"calibrate {parent} itself, on the newer snapshot",
        )


@contextlib.contextmanager
def _under_way(
    workspace: Workspace, settings: CalibrationSettings, ref: VersionRef, snapshot: snapshots.Snapshot
) -> Iterator[Run]:
    """A run that is held while the block runs; how the block ends is how it ends."""
    identity = {
        **settings.model_dump(mode="json"),
        "version_digest": ref.digest,
        "snapshot_digest": snapshot.digest,
    }
    run_id = runs.start(workspace, "calibration", ref.name, None, identity)
    folder = workspace.root / "runs" / run_id
    command = (
        f"rlhf reward calibrate {settings.version} --snapshot {settings.snapshot} {settings.words(identity)}".strip()
    )
    (folder / "config.yaml").write_text(config.to_yaml(settings, command=command), "utf-8")
    with holding(folder / runs.LOCK_FILE, f"run {run_id}", run=run_id):
        try:
            yield Run(run_id, folder)
        except KeyboardInterrupt:
            runs.finish(workspace, run_id, "interrupted", error="stopped")
            raise Interrupted("stopped: nothing was published", fix="run the same command again") from None
        except BaseException as error:
            runs.finish(workspace, run_id, "failed", error=f"{type(error).__name__}: {error}")
            raise


def _silent(_text: str) -> None:
    """Nobody listens."""
