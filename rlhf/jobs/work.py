"""A worker: queued jobs, one after the other, each in a process of its own.

A worker may be stopped or killed at any moment. Its child goes on, and the next worker records how that ended; a job that
was begun is never begun again by itself (`--resume` is for people to say).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from rlhf.errors import Interrupted
from rlhf.jobs.launch import launch
from rlhf.jobs.queue import Job, claim, find, finish, list_jobs, state_now
from rlhf.store import Workspace

Say = Callable[[str], None]
_POLL_S = 2.0
_KILLED = "its process was killed; what it published is there, and a training goes on with the same words and --resume"


def work(workspace: Workspace, *, once: bool, say: Say | None = None, poll_s: float = _POLL_S) -> tuple[Job, ...]:
    """Run queued jobs in their order. once: until none is queued, returning those that were run; else for ever.

    A job that fails is recorded and the next one is run. Raises Interrupted at Ctrl-C; the job under way goes on.
    """
    say = say or _silent
    ran: list[str] = []
    while True:
        settle(workspace)
        job = claim(workspace)
        if job is not None:
            ran.append(job.id)
            say(f"job {job.id}: rlhf {' '.join(job.words)}")
            _run(workspace, job)
            ended = find(workspace, job.id)
            say(f"job {job.id}: {ended.state}{f': {ended.error}' if ended.error else ''}")
        elif once:
            return tuple(find(workspace, job_id) for job_id in ran)
        else:
            time.sleep(poll_s)


def settle(workspace: Workspace) -> None:
    """Record how jobs ended whose worker was gone by then. Their exit status is lost; their answer says what came out."""
    for job in list_jobs(workspace, "running"):
        if state_now(job) != "lost":
            continue
        answer = find(workspace, job.id).answer  # read after the process was gone: it is whole
        if answer is None:
            finish(workspace, job, "failed", error=_KILLED)
        elif "error" in answer:
            finish(workspace, job, "failed", error=str(answer["error"].get("message")))
        else:
            finish(workspace, job, "done")


def _run(workspace: Workspace, job: Job) -> None:
    try:
        child = launch(workspace, job)
    except OSError as error:
        finish(workspace, job, "failed", error=f"it can't be started: {error}")
        return
    try:
        status = child.wait()
    except KeyboardInterrupt:
        raise Interrupted(
            f"the worker stopped; job {job.id} goes on", fix=f"stop it too with: rlhf run cancel {job.id}"
        ) from None
    finish(workspace, job, "done" if status == 0 else "failed", exit_status=status, error=_error(job, status))


def _error(job: Job, status: int) -> str | None:
    if status == 0:
        return None
    if status < 0:
        return f"{signal.Signals(-status).name}: {_KILLED}"
    said = (job.answer or {}).get("error")
    if isinstance(said, dict):
        return f"{said.get('message')} ({said.get('fix')})"
    return f"exit status {status}; see {job.folder / 'log'}"


def _silent(_text: str) -> None:
    """Nobody listens."""
