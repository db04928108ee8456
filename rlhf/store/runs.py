"""Runs: each training or evaluation that was started, with its resolved settings and how it ended.

A run's state is live: `running` until `finish` says otherwise. A process that was killed says nothing, so a run stays
`running` in the table; `state_now` looks whether its lock file is held, and calls it `lost` where it isn't. `--resume` finds
a run by its settings and goes on in its folder. A run that a job's process starts is noted in the job (RLHF_JOB names it).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Row, select

from rlhf.errors import BadInput, Conflict, NotFound
from rlhf.ids import canonical_json, digest_of, new_id, now, now_text
from rlhf.store.holding import holder_of
from rlhf.store.tables import jobs, runs
from rlhf.store.workspace import Workspace, Write

State = Literal["running", "done", "failed", "interrupted", "cancelled"]
LOCK_FILE = "lock"
JOB_VARIABLE = "RLHF_JOB"
_STARTING_S = 60  # from a run's row to its lock: loading happens before or between


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run. folder: relative to the workspace where it lies inside (`runs/<id>`). Times are ISO 8601, UTC."""

    id: str
    kind: str
    name: str
    state: State
    folder: str
    settings: Mapping[str, Any]
    settings_digest: str
    version_digest: str | None
    error: str | None
    actor: str
    created_at: str
    ended_at: str | None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "settings": dict(self.settings)}


def start(workspace: Workspace, kind: str, name: str, folder: Path | str | None, settings: Mapping[str, Any]) -> str:
    """Record a run under way and make its folder (None = `runs/<id>`); returns its id."""
    run_id = new_id()
    place = workspace.root / (folder if folder is not None else Path("runs") / run_id)
    place.mkdir(parents=True, exist_ok=True)
    shown = place.relative_to(workspace.root) if place.is_relative_to(workspace.root) else place
    row = {
        "id": run_id,
        "kind": kind,
        "name": name,
        "state": "running",
        "folder": shown.as_posix(),
        "settings": canonical_json(dict(settings)).decode(),
        "settings_digest": digest_of(dict(settings)),
        "actor": workspace.actor,
        "created_at": now_text(),
    }
    with workspace.write() as write:
        write.connection.execute(runs.insert().values(**row))
        _note_in_job(write, run_id)
        write.audit("run.start", run_id, {"kind": kind, "name": name, "settings_digest": row["settings_digest"]})
    return run_id


def finish(
    workspace: Workspace, run_id: str, state: State, *, version_digest: str | None = None, error: str | None = None
) -> None:
    """Record how a run ended. Raises NotFound, or Conflict where it is done already: a result is never taken back."""
    with workspace.write() as write:
        row = write.connection.execute(select(runs).where(runs.c.id == run_id)).first()
        if row is None:
            raise NotFound(f"there is no run {run_id}", fix="see: rlhf run list")
        if row.state == "done":
            raise Conflict(f"run {run_id} is done already", fix="start a new run")
        ended = None if state == "running" else now_text()
        write.connection.execute(
            runs.update()
            .where(runs.c.id == run_id)
            .values(state=state, version_digest=version_digest, error=error, ended_at=ended)
        )
        _note_in_job(write, run_id)
        write.audit(f"run.{state}", run_id, {"version": version_digest, "error": error})


def state_now(workspace: Workspace, row: RunRow) -> State | Literal["lost"]:
    """What a run is at this moment: `running` while a process holds its lock (a resumed one too), `lost` where it should
    be running and no process holds it. Computed, never stored; a run whose folder lies on another machine is as its row
    says."""
    if row.state == "done":
        return row.state
    folder = workspace.root / row.folder
    if holder_of(folder / LOCK_FILE) is not None:
        return "running"
    if row.state != "running" or not folder.is_dir():
        return row.state
    age_s = (now() - datetime.fromisoformat(row.created_at)).total_seconds()
    is_starting = not (folder / LOCK_FILE).exists() and age_s < _STARTING_S
    return "running" if is_starting else "lost"


def list_runs(workspace: Workspace) -> tuple[RunRow, ...]:
    """Every run, oldest first."""
    with workspace.read() as connection:
        return tuple(_row(row) for row in connection.execute(select(runs).order_by(runs.c.id)))


def show(workspace: Workspace, run_id: str) -> RunRow:
    """One run by its id, or by the beginning of its id if that is no other's."""
    if not run_id:
        raise BadInput("a run's id is empty", fix="see: rlhf run list")
    query = select(runs).where(runs.c.id.startswith(run_id.lower(), autoescape=True)).limit(2)
    with workspace.read() as connection:
        rows = connection.execute(query).all()
    if len(rows) != 1:
        raise NotFound(f"there is {'no run' if not rows else 'more than one run'} {run_id}", fix="see: rlhf run list")
    return _row(rows[0])


def latest(workspace: Workspace, kind: str, name: str, settings_digest: str) -> RunRow | None:
    """The last run of this kind and name with these settings, whatever its state; None where there is none."""
    query = select(runs).where(runs.c.kind == kind, runs.c.name == name, runs.c.settings_digest == settings_digest)
    with workspace.read() as connection:
        row = connection.execute(query.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(1)).first()
    return None if row is None else _row(row)


def _note_in_job(write: Write, run_id: str) -> None:
    if job := os.environ.get(JOB_VARIABLE):
        write.connection.execute(jobs.update().where(jobs.c.id == job).values(run_id=run_id))


def _row(row: Row[Any]) -> RunRow:
    return RunRow(**{**row._mapping, "settings": json.loads(row.settings)})
