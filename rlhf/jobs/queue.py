"""The queue: a job is a row, and who runs it is decided by a compare-and-set on its state."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Row, and_, or_, select

from rlhf.errors import BadInput, BadUsage, NotFound
from rlhf.ids import new_id, now, now_text
from rlhf.store import Workspace
from rlhf.store.processes import ProcessId
from rlhf.store.tables import jobs

State = Literal["queued", "running", "done", "failed", "cancelled"]
Seen = Literal["queued", "running", "done", "failed", "cancelled", "stopping", "lost"]
# What may be queued: work that comes to an end. Servers, workers and watches don't.
ROOMS = ("adapter", "alias", "base", "compare", "evaluate", "feedback", "loop", "policy", "reward", "snapshot")
_OURS = ("--workspace", "--json", "--watch")
_SHOWN = 20  # lines of a log
_IN_ORDER = (jobs.c.created_at, jobs.c.id)  # ids of one millisecond are in no order
_STARTING_S = 60  # from the claim to the child's record


@dataclass(frozen=True, slots=True)
class Job:
    """One queued command. words: without `rlhf`. process: the child that runs it. folder: where its `log` and its answer
    `out` lie. Times are ISO 8601, UTC."""

    id: str
    words: tuple[str, ...]
    cwd: str
    state: State
    folder: Path
    process: ProcessId | None
    run_id: str | None
    exit_status: int | None
    error: str | None
    actor: str
    created_at: str
    started_at: str | None
    ended_at: str | None

    @property
    def answer(self) -> dict[str, Any] | None:
        """The JSON object that the command wrote; None before it has, and for one that writes lines."""
        try:
            found = json.loads((self.folder / "out").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def log(self, lines: int = _SHOWN) -> list[str]:
        """The last lines of what it said on standard error; of a bar that was redrawn in place, its last state."""
        try:
            with open(self.folder / "log", "rb") as file:
                file.seek(max(0, file.seek(0, 2) - 200 * lines))
                text = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        return [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n") if line.strip()][-lines:]

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "words": list(self.words),
            "cwd": self.cwd,
            "state": self.state,
            "folder": str(self.folder),
            "host": self.process.host if self.process else None,
            "pid": self.process.pid if self.process else None,
            "run": self.run_id,
            "exit_status": self.exit_status,
            "error": self.error,
            "actor": self.actor,
            "created_at": self.created_at,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
        }


def enqueue(workspace: Workspace, words: Sequence[str], *, cwd: Path | str | None = None) -> Job:
    """Queue a command for a worker. words: as on the command line, without `rlhf`. cwd: where its relative paths start
    (None = the workspace). It runs in the name of `workspace.actor`. Raises BadUsage for what can't be queued."""
    if not words or words[0] not in ROOMS:
        raise BadUsage(
            f"'{' '.join(words)}' can't be queued: wanted a command of {', '.join(ROOMS)}",
            fix="write for instance: rlhf run queue -- reward train hh --snapshot s --base b",
        )
    if ours := [word for word in words if word.partition("=")[0] in _OURS]:
        raise BadUsage(f"a job can't have {ours[0]} among its words", fix="leave it out, or write it before the --")
    job_id = new_id()
    with workspace.write() as write:
        row = {
            "id": job_id,
            "words": json.dumps(list(words)),
            "cwd": str(Path(cwd or workspace.root).absolute()),
            "state": "queued",
            "folder": f"runs/jobs/{job_id}",
            "actor": write.actor,
            "created_at": now_text(),
        }
        write.connection.execute(jobs.insert().values(**row))
        write.audit("job.queue", job_id, {"words": list(words)})
    return find(workspace, job_id)


def list_jobs(workspace: Workspace, state: State | None = None) -> tuple[Job, ...]:
    """Every job, or those in a state, in order of the queue."""
    query = select(jobs) if state is None else select(jobs).where(jobs.c.state == state)
    with workspace.read() as connection:
        return tuple(_job(workspace, row) for row in connection.execute(query.order_by(*_IN_ORDER)))


def find(workspace: Workspace, text: str) -> Job:
    """One job by its id, or by the beginning of its id if that is no other's. Raises NotFound."""
    if not text:
        raise BadInput("a job's id is empty", fix="see: rlhf run list")
    query = select(jobs).where(jobs.c.id.startswith(text.lower(), autoescape=True)).limit(2)
    with workspace.read() as connection:
        rows = connection.execute(query).all()
    if len(rows) != 1:
        raise NotFound(f"there is {'no job' if not rows else 'more than one job'} {text}", fix="see: rlhf run list")
    return _job(workspace, rows[0])


def state_now(job: Job) -> Seen:
    """What a job is at this moment: `stopping` where it was cancelled and its process hasn't ended, `lost` where its
    process is gone, or was never started, and nobody has recorded how it ended."""
    is_alive = job.process is not None and job.process.is_alive
    if job.state == "cancelled" and job.ended_at is None and is_alive:
        return "stopping"
    if job.state != "running" or is_alive:
        return job.state
    return "running" if job.process is None and _is_starting(job) else "lost"


def claim(workspace: Workspace) -> Job | None:
    """Take the oldest queued job; None where none is queued. Of several claimers one gets it."""
    taken = {"host": socket.gethostname(), "started_at": now_text(), "state": "running"}
    with workspace.write() as write:
        while (job_id := _oldest(write.connection)) is not None:
            update = jobs.update().where(jobs.c.id == job_id, jobs.c.state == "queued").values(**taken)
            if write.connection.execute(update).rowcount:
                write.audit("job.start", job_id, {"host": taken["host"]})
                return _job(workspace, write.connection.execute(select(jobs).where(jobs.c.id == job_id)).one())
    return None


def hand_over(workspace: Workspace, job: Job, child: ProcessId) -> bool:
    """Record the job's process, before it does anything; False where the job was cancelled or given up meanwhile."""
    with workspace.write() as write:
        update = jobs.update().where(jobs.c.id == job.id, jobs.c.state == "running")
        return bool(write.connection.execute(update.values(pid=child.pid, pid_started=child.started)).rowcount)


def finish(
    workspace: Workspace, job: Job, state: State, *, exit_status: int | None = None, error: str | None = None
) -> None:
    """Record how a job ended. A cancelled one stays so, unless it was done before the signal came; what was concluded
    without its exit status gives way to what is said with it."""
    ended = {"exit_status": exit_status, "ended_at": now_text()}
    is_open = or_(
        jobs.c.state == "running",
        and_(jobs.c.state.in_(("done", "failed")), jobs.c.exit_status.is_(None)),
        *([jobs.c.state == "cancelled"] if state == "done" else []),
    )
    mine = jobs.update().where(jobs.c.id == job.id)
    with workspace.write() as write:
        if write.connection.execute(mine.where(is_open).values(state=state, error=error, **ended)).rowcount:
            write.audit(f"job.{state}", job.id, {"exit_status": exit_status, "error": error})
        else:
            write.connection.execute(mine.where(jobs.c.ended_at.is_(None)).values(**ended))


def mark_cancelled(workspace: Workspace, job: Job, before: State) -> bool:
    """queued or running → cancelled; False where it has gone on meanwhile. A running one's process is told afterwards."""
    ended = now_text() if before == "queued" else None
    with workspace.write() as write:
        update = jobs.update().where(jobs.c.id == job.id, jobs.c.state == before)
        values = {"state": "cancelled", "error": f"cancelled by {write.actor}", "ended_at": ended}
        is_ours = bool(write.connection.execute(update.values(**values)).rowcount)
        if is_ours:
            write.audit("job.cancelled", job.id, {"was": before})
    return is_ours


def _is_starting(job: Job) -> bool:
    """Claimed a moment ago: its worker has yet to record the child."""
    assert job.started_at is not None
    return (now() - datetime.fromisoformat(job.started_at)).total_seconds() < _STARTING_S


def _oldest(connection: Connection) -> str | None:
    query = select(jobs.c.id).where(jobs.c.state == "queued").order_by(*_IN_ORDER)
    return connection.execute(query.limit(1)).scalar()


def _job(workspace: Workspace, row: Row[Any]) -> Job:
    process = None if row.pid is None else ProcessId(row.host, row.pid, row.pid_started)
    return Job(
        row.id,
        tuple(json.loads(row.words)),
        row.cwd,
        row.state,
        workspace.root / row.folder,
        process,
        row.run_id,
        row.exit_status,
        row.error,
        row.actor,
        row.created_at,
        row.started_at,
        row.ended_at,
    )
