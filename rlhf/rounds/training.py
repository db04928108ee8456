"""A training of a round: done already, gone on with, or started; as a job in a process of its own, or in this one.

A training is known by its settings, which name everything by number (`hh@3`, `hh-reward@2`): so a run with the same settings and
the same base is the same training, whoever started it, and a killed round finds it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlhf import config, jobs, registry
from rlhf.errors import Interrupted, RlhfError
from rlhf.jobs import Job
from rlhf.jobs.work import settle
from rlhf.policy.settings import PolicySettings
from rlhf.reward.settings import RewardSettings
from rlhf.rounds.state import Round
from rlhf.rounds.stopping import Stop
from rlhf.store import Workspace, runs
from rlhf.store.heavy import heavy
from rlhf.store.runs import RunRow

Say = Callable[[str], None]
Role = Literal["reward", "policy"]
_POLL_S = 1.0
_STOP_S = 3600.0  # a step on a CPU, and its checkpoint, may take minutes
# A version that is gone on from keeps its shape, whatever the settings say; the run records the shape that it got.
_SHAPE = ("lora_r", "lora_alpha", "lora_dropout", "top_layers")


class TrainingFailed(RlhfError):
    """A round's training ended without a version; its own words say why."""

    code = "training_failed"


def trained(
    workspace: Workspace,
    settings: RewardSettings | PolicySettings,
    one: Round,
    *,
    child: bool,
    stop: Stop,
    say: Say,
) -> dict[str, Any]:
    """The training's version, digest and run; trained now unless a run with these settings has published it.

    one: the round, in whose folder the settings are written for the child. Raises TrainingFailed for a job that failed,
    Interrupted, and in this process what the training raises.
    """
    role: Role = "reward" if isinstance(settings, RewardSettings) else "policy"
    file = one.folder / f"{role}.yaml"
    wait = Wait(workspace, one.again, stop, say)
    if child:
        _finish_job(wait, file)
    found = _run_of(workspace, role, settings)
    if found is None or found.state != "done":
        # An ensemble has no run of its own until its members are done; to go on takes what of them is there, or begins.
        resume = found is not None or (isinstance(settings, RewardSettings) and settings.members > 1)
        if child:
            _as_job(wait, role, settings, file, resume=resume)
        else:
            _here(workspace, settings, resume=resume, say=say)
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


def _as_job(wait: Wait, role: Role, settings: RewardSettings | PolicySettings, file: Path, *, resume: bool) -> None:
    words = [role, "train", settings.name, "--config", str(file), *(["--resume"] if resume else [])]
    file.write_text(config.to_yaml(settings, command=f"rlhf {' '.join(words)}"), "utf-8")
    job = jobs.enqueue(wait.workspace, words)
    wait.say(f"job {job.id} trains {settings.name}; its progress is in {job.folder / 'log'}")
    ended = wait.until_over(job)
    if ended.state != "done":
        raise TrainingFailed(
            f"job {ended.id}, which trains {settings.name}, is {ended.state}: {ended.error or 'it said nothing'}",
            fix=f"look at it with: rlhf run show {ended.id}; go on with: {wait.again}, or begin again with --anew",
        )


def _finish_job(wait: Wait, file: Path) -> None:
    """A job of this round may outlive the round's process: then it is waited for, never started beside."""
    mine = [job for job in jobs.list_jobs(wait.workspace) if str(file) in job.words]
    if mine and jobs.state_now(mine[-1]) in ("queued", "running", "stopping"):
        wait.say(f"job {mine[-1].id} of this round is still {mine[-1].state}")
        wait.until_over(mine[-1])


@dataclass(frozen=True)
class Wait:
    """Waiting for a job of the round. again: the command that goes on with the round."""

    workspace: Workspace
    again: str
    stop: Stop
    say: Say

    def until_over(self, job: Job) -> Job:
        """The job as it ended. Whoever works the queue off may run it; where nobody does, the queue is worked off here.

        Ctrl-C stops the job too, after its step, and is then raised as Interrupted.
        """
        try:
            with self.stop.interrupting():
                while (seen := jobs.state_now(job)) in ("queued", "running", "stopping"):
                    if seen == "queued":
                        jobs.work(self.workspace, once=True, say=self.say)
                    else:
                        time.sleep(_POLL_S)
                    job = jobs.find(self.workspace, job.id)
        except (KeyboardInterrupt, Interrupted):  # the second from a worker that was running it
            raise self._stopped(job) from None
        settle(self.workspace)  # records how one ended whose worker is gone
        return jobs.find(self.workspace, job.id)

    def _stopped(self, job: Job) -> Interrupted:
        """Ask the job to stop too, for nothing may run on unseen; it leaves its checkpoint. A second Ctrl-C kills it."""
        self.say(f"stopping job {job.id} after its step (Ctrl-C again = at once)")
        fix = f"go on with: {self.again}"
        try:
            with self.stop.interrupting():
                jobs.cancel(self.workspace, job.id, timeout_s=_STOP_S)
        except KeyboardInterrupt:
            jobs.cancel(self.workspace, job.id, now=True)
        except RlhfError as error:  # it is on another host, has ended by itself, or is still at its step
            return Interrupted(f"the loop stopped; {error.message}", fix=f"{fix}; about the job: {error.fix}")
        return Interrupted(f"the loop stopped, and with it job {job.id}, whose last checkpoint is kept", fix=fix)
