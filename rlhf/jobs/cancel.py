"""Cancel: a queued job is taken off the queue; a running one is asked to stop after its step, or killed.

A training that is asked (SIGTERM) finishes its step, leaves a checkpoint and ends as `interrupted`: `--resume` goes on. One
that is killed (`now`) is `cancelled`, and `--resume` goes on from its last checkpoint.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rlhf.errors import Conflict, Forbidden
from rlhf.jobs import queue
from rlhf.jobs.naming import named
from rlhf.jobs.queue import Job
from rlhf.store import Workspace, runs
from rlhf.store.holding import Holder, holder_of
from rlhf.store.processes import ProcessId
from rlhf.store.runs import LOCK_FILE, RunRow

_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What was cancelled and what it is now. job and run: their ids, where there is one."""

    job: str | None
    run: str | None
    state: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def cancel(workspace: Workspace, text: str, *, now: bool = False, timeout_s: float = 60.0) -> Cancelled:
    """Stop a run or a job, named by its id or the beginning of it. now: kill it instead of waiting for the step's end.

    A lost run or job is marked as cancelled. Raises NotFound, Conflict where it isn't running (any more), runs on another
    host or hasn't stopped after timeout_s, Forbidden for another user's process.
    """
    meant = named(workspace, text)
    if isinstance(meant, Job):
        return _cancel_job(workspace, meant, now, timeout_s)
    by = next((job for job in queue.list_jobs(workspace, "running") if job.run_id == meant.id), None)
    if by is not None and queue.state_now(by) == "running":
        return _cancel_job(workspace, by, now, timeout_s)
    return Cancelled(None, meant.id, _cancel_run(workspace, meant, now, timeout_s))


def _cancel_job(workspace: Workspace, job: Job, now: bool, timeout_s: float) -> Cancelled:
    if queue.mark_cancelled(workspace, job, "queued"):
        return Cancelled(job.id, None, "cancelled")
    if job.process is not None:
        _require_here(job.process, f"job {job.id}")
    if not queue.mark_cancelled(workspace, job, "running") and queue.state_now(job) != "stopping":
        raise Conflict(
            f"job {job.id} is {queue.find(workspace, job.id).state}: there is nothing to cancel",
            fix="see: rlhf run list",
        )
    job = queue.find(workspace, job.id)  # one that is claimed and has no process by now gets none any more
    if (process := job.process) is not None:
        _send(process, now, with_session=True)
        _wait(lambda: not process.is_alive, f"job {job.id}", timeout_s)
    job = queue.find(workspace, job.id)
    queue.finish(workspace, job, "cancelled")
    run_state = None if job.run_id is None else _settled(workspace, job.run_id, now)
    return Cancelled(job.id, job.run_id, run_state or "cancelled")


def _cancel_run(workspace: Workspace, run: RunRow, now: bool, timeout_s: float) -> str:
    state = runs.state_now(workspace, run)
    if state == "lost":
        runs.finish(workspace, run.id, "cancelled", error=f"its process was gone; cancelled by {workspace.actor}")
        return "cancelled"
    if state != "running":
        raise Conflict(f"run {run.id} is {state}: there is nothing to cancel", fix="see: rlhf run list")
    lock = workspace.root / run.folder / LOCK_FILE
    holder = _holder(run, holder_of(lock))
    with workspace.write() as write:
        write.audit("run.cancel", run.id, {"now": now, "pid": holder.pid})
    _send(holder, now, with_session=False)
    _wait(lambda: holder_of(lock) is None, f"run {run.id}", timeout_s)
    return _settled(workspace, run.id, now)


def _holder(run: RunRow, holder: Holder | None) -> ProcessId:
    if holder is None or holder.process is None:
        raise Conflict(
            f"run {run.id} has only just been started, or by a program that doesn't say which process it is",
            fix="try again in a moment, or stop that program",
        )
    _require_here(holder.process, f"run {run.id}")
    return holder.process


def _settled(workspace: Workspace, run_id: str, now: bool) -> str:
    """How the run ended; where its process had no time to say so, it is said here."""
    state = runs.show(workspace, run_id).state
    if state == "done" or not (now or state == "running"):
        return state
    ended: runs.State = "cancelled" if now else "interrupted"
    runs.finish(workspace, run_id, ended, error=f"{'killed' if now else 'stopped'} by {workspace.actor}")
    return ended


def _require_here(process: ProcessId, what: str) -> None:
    if not process.is_here:
        raise Conflict(f"{what} runs on {process.host}", fix=f"cancel it there: its process is {process.pid}")


def _send(process: ProcessId, now: bool, *, with_session: bool) -> None:
    """SIGTERM to the process, or SIGKILL (to its whole session, which is what a job's child leads)."""
    if not process.is_alive:
        return
    try:
        if now and with_session:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL if now else signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError:
        raise Forbidden(
            f"process {process.pid} is another user's", fix="ask whoever started it, or the administrator"
        ) from None


def _wait(is_over: Callable[[], bool], what: str, timeout_s: float) -> None:
    for _ in range(max(1, round(timeout_s / _POLL_S))):
        if is_over():
            return
        time.sleep(_POLL_S)
    if not is_over():
        raise Conflict(
            f"{what} was told to stop and is still at its step after {timeout_s:g} s",
            fix="it stops when the step is done; kill it with --now if you can't wait",
        )
