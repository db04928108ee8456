"""New cuts, and trainings of the rewards that had learnt from what is gone, as jobs: nothing is trained before a worker runs.

The settings are the last version's own, on the new cut. Policies, calibrations and heads that went on from another version are not
queued: what they stand on has to be trained and looked at first.
"""

from __future__ import annotations

import json
from typing import Any

from rlhf import jobs, snapshots
from rlhf.erasure.touched import Touched
from rlhf.jobs import Job
from rlhf.reward.settings import RewardSettings
from rlhf.snapshots import SnapshotEntry
from rlhf.store import Workspace, runs
from rlhf.store.runs import RunRow

_BY_OPTION = ("name", "snapshot", "base")


def queue_retraining(workspace: Workspace, touched: Touched) -> tuple[Job, ...]:
    """A cut for each touched snapshot's name by its last rule, then a training for each touched reward's name. In that order."""
    entries = {one.name: one for one in snapshots.list_snapshots(workspace) if one.ref in touched.snapshots}
    names = {version.rpartition("@")[0] for version in touched.versions}
    trained = {
        run.name: run
        for run in runs.list_runs(workspace)
        if run.kind == "reward" and run.state == "done" and run.name in names and not run.settings.get("from_version")
    }
    queued = [_words_of_cut(entry) for entry in entries.values() if "mix" not in entry.rule]
    queued += [_words_of(run) for run in trained.values() if _snapshot_name(run) in entries]
    return tuple(jobs.enqueue(workspace, words) for words in queued)


def _words_of_cut(entry: SnapshotEntry) -> list[str]:
    rule = entry.rule
    words = ["snapshot", "cut", entry.name, "--holdout", str(rule["holdout"]), "--seed", str(rule["seed"])]
    for option in ("source", "kind"):
        words += [word for value in rule[f"{option}s"] for word in (f"--{option}", value)]
    return words


def _words_of(run: RunRow) -> list[str]:
    words = ["reward", "train", run.name, "--snapshot", _snapshot_name(run), "--base", str(run.settings["base"])]
    fields = [name for name in RewardSettings.model_fields if name not in _BY_OPTION]
    own = {name: run.settings[name] for name in fields if run.settings.get(name) is not None}
    return words + [f"{key}={_word(value)}" for key, value in own.items()]


def _snapshot_name(run: RunRow) -> str:
    return str(run.settings.get("snapshot", "")).partition("@")[0]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
