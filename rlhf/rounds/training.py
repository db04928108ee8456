"""A training of a round: done already, gone on with, or started; as a job in a process of its own, or in this one.

A training is known by its settings, which name everything by number (`hh@3`, `hh-reward@2`): so a run with the same settings and
the same base is the same training, whoever started it, and a killed round finds it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from rlhf import config, jobs, registry
from rlhf.errors import Interrupted, RlhfError
from rlhf.jobs import Job
from rlhf.jobs.work import settle
from rlhf.policy.settings import PolicySettings
from rlhf.reward.settings import RewardSettings
from rlhf.rounds.stopping import Stop
from rlhf.store import Workspace, runs
from rlhf.store.heavy import heavy
from rlhf.store.runs import RunRow

Say = Callable[[str], None]
Role = Literal["reward", "policy"]
_POLL_S = 1.0
# A version that is gone on from keeps its shape, whatever the settings say; the run records the shape that it got.
_SHAPE = ("lora_r", "lora_alpha", "lora_dropout", "top_layers")


class TrainingFailed(RlhfError):
    """A round's training ended without a version; its own words say why."""

    code = "training_failed"


def trained(
    workspace: Workspace,
    settings: RewardSettings | PolicySettings,
    folder: Path,
    *,
    child: bool,
    stop: Stop,
    say: Say,
) -> dict[str, Any]:
    """The training's version, digest and run; trained now unless a run with these settings has published it.

    folder: the round's, where the settings are written for the child. Raises TrainingFailed for a job that failed, Interrupted,
    and in this process what the training raises.
    """
    role: Role = "reward" if isinstance(settings, RewardSettings) else "policy"
    file = folder / f"{role}.yaml"
    if child:
        _finish_job(workspace, file, stop, say)
    found = _run_of(workspace, role, settings)
    if found is None or found.state != "done":
        if child:
            _as_job(workspace, role, settings, file, resume=found is not None, stop=stop, say=say)
        else:
            _here(workspace, settings, resume=found is not None, say=say)
        found = _run_of(workspace, role, settings)
        assert found is not None and found.version_digest is not None, "a training that is done has a run and a version"
    else:
        say(f"run {found.id} has trained it already")
    version = registry.resolve(workspace, f"sha256:{found.version_digest}", role=role)
    return {"version": str(version), "digest": version.digest, "run": found.id}


def _run_of(workspace: Workspace, role: Role, settings: RewardSettings | PolicySettings) -> RunRow | None:
    """The run with these settings on this base: one that is done, else the last one."""
    from rlhf.engine import bases

    free = _SHAPE if settings.from_version is not None else ()
    wanted = {key: value for key, value in settings.model_dump(mode="json").items() if key not in free}
    wanted["base_digest"] = bases.get(workspace, settings.base).digest
    same = [
        row
        for row in runs.list_runs(workspace)
        if (row.kind, row.name) == (role, settings.name)
        and all(row.settings.get(key) == value for key, value in wanted.items())
    ]
    return next((row for row in same if row.state == "done"), same[-1] if same else None)


def _here(workspace: Workspace, settings: RewardSettings | PolicySettings, *, resume: bool, say: Say) -> None:
    with heavy(workspace, f"loop: {settings.name}", wait=True, say=say):
        if isinstance(settings, RewardSettings):
            from rlhf import reward

            reward.train(workspace, settings, resume=resume, say=say)
        else:
            from rlhf import policy

            policy.train(workspace, settings, resume=resume, say=say)


def _as_job(
    workspace: Workspace,
    role: Role,
    settings: RewardSettings | PolicySettings,
    file: Path,
    *,
    resume: bool,
    stop: Stop,
    say: Say,
) -> None:
    words = [role, "train", settings.name, "--config", str(file), *(["--resume"] if resume else [])]
    file.write_text(config.to_yaml(settings, command=f"rlhf {' '.join(words)}"), "utf-8")
    job = jobs.enqueue(workspace, words)
    say(f"job {job.id} trains {settings.name}; its progress is in {job.folder / 'log'}")
    ended = _waited(workspace, job, stop, say)
    if ended.state != "done":
        raise TrainingFailed(
            f"job {ended.id}, which trains {settings.name}, is {ended.state}: {ended.error or 'it said nothing'}",
            fix=f"look at it with: rlhf run show {ended.id}; the same command goes on, or begin again with --anew",
        )


def _finish_job(workspace: Workspace, file: Path, stop: Stop, say: Say) -> None:
    """A job of this round may outlive the round's process: then it is waited for, never started beside."""
    mine = [job for job in jobs.list_jobs(workspace) if str(file) in job.words]
    if mine and jobs.state_now(mine[-1]) in ("queued", "running", "stopping"):
        say(f"job {mine[-1].id} of this round is still {mine[-1].state}")
        _waited(workspace, mine[-1], stop, say)


def _waited(workspace: Workspace, job: Job, stop: Stop, say: Say) -> Job:
    """The job as it ended. Whoever works the queue off may run it; where nobody does, the queue is worked off here."""
    try:
        with stop.paused():
            while (seen := jobs.state_now(job)) in ("queued", "running", "stopping"):
                if seen == "queued":
                    jobs.work(workspace, once=True, say=say)
                else:
                    time.sleep(_POLL_S)
                job = jobs.find(workspace, job.id)
    except KeyboardInterrupt:
        raise Interrupted(
            f"the loop stopped; job {job.id} goes on",
            fix=f"the same command goes on with it; stop it too with: rlhf run cancel {job.id}",
        ) from None
    settle(workspace)  # records how one ended whose worker is gone
    return jobs.find(workspace, job.id)
