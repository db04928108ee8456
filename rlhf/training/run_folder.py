"""A training's run: started or found again, held by one process, and how it ended.

A killed process leaves its run `running` and its lock free; `--resume` with the same settings goes on in the same folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from rlhf import config
from rlhf.engine.placement import Placement
from rlhf.errors import Conflict, Interrupted, NotFound, RlhfError
from rlhf.ids import digest_of
from rlhf.records import VersionRef
from rlhf.store import Workspace, room, runs
from rlhf.store.heavy import heavy
from rlhf.store.holding import Held, holding
from rlhf.training.space import NoSpace, room_for

Given = TypeVar("Given")
# While the first process samples, proves or publishes the others wait; NCCL's own patience is ten minutes.
WAIT = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be. kind: 'reward' or 'policy'. identity: what makes two runs the same run for `--resume`: all settings,
    and the content that their names meant. settings: the record that config.yaml is written from. disk_bytes: what it is estimated
    to write.
    """

    kind: str
    name: str
    settings: config.Settings
    identity: Mapping[str, Any]
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """A run's id and its folder."""

    id: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training gave: the version, its run, and its figures."""

    version: VersionRef
    run_id: str
    run_folder: Path
    metrics: Mapping[str, Any]
    is_new: bool = True  # False: the same training was published before, and this is that version

    def as_json(self) -> dict[str, Any]:
        return {
            "version": str(self.version),
            "digest": self.version.digest,
            "run": self.run_id,
            "metrics": dict(self.metrics),
            "new": self.is_new,
            "report": str(self.run_folder / "report.html"),
        }


@contextlib.contextmanager
def under_way(workspace: Workspace, plan: Plan, resume: bool, state: PartialState) -> Iterator[Run]:
    """Start a run, or find the one to go on with, and hold it while the block runs; how the block ends is how the run ends.

    The first process decides, the others are told, a refusal too. Raises NoRoom where what a new run is estimated to write fits
    neither the disk nor the workspace's budget, NoSpace where the block meets a full disk, Conflict where another heavy job is
    running or another process trains this very run, NotFound where there is nothing to go on with.
    """
    found: list[Any] = [None]
    with contextlib.ExitStack() as stack:
        if state.is_main_process:
            try:
                hold = stack.enter_context(heavy(workspace, f"{plan.kind} {plan.name}"))
                if not resume:
                    room.require(workspace, plan.disk_bytes, f"the training of {plan.name}")
                found = [_resumable(workspace, plan) if resume else _started(workspace, plan)]
                hold.say(found[0][0])
            except RlhfError as error:
                found = [error]
        if state.num_processes > 1:
            broadcast_object_list(found)
        if isinstance(found[0], RlhfError):
            raise found[0]
        run_id, folder = found[0]
        run = Run(run_id, workspace.root / folder)
        with _in_charge(workspace, run, state), room_for(run.folder):
            yield run


def told_to_all(state: Any, work: Callable[[], Given]) -> Given:
    """Do the work in the first process and tell the others what came of it, a refusal included: none of them waits for ever.

    state: of the processes (`PartialState`, or the accelerator).
    """
    outcome: list[Any] = [None]
    if state.is_main_process:
        try:
            outcome = [work()]
        except Exception as error:
            if state.num_processes == 1:
                raise
            outcome = [error]
    if state.num_processes > 1:
        broadcast_object_list(outcome)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    given: Given = outcome[0]
    return given


def _started(workspace: Workspace, plan: Plan) -> tuple[str, str]:
    run_id = runs.start(workspace, plan.kind, plan.name, None, plan.identity)
    folder = workspace.root / "runs" / run_id
    command = f"rlhf {plan.kind} train {plan.name} --config runs/{folder.name}/config.yaml"
    (folder / "config.yaml").write_text(config.to_yaml(plan.settings, command=command), "utf-8")
    return run_id, f"runs/{run_id}"


def _resumable(workspace: Workspace, plan: Plan) -> tuple[str, str]:
    found = runs.latest(workspace, plan.kind, plan.name, digest_of(dict(plan.identity)))
    if found is None:
        raise NotFound(
            f"no run of '{plan.name}' with these settings to go on with",
            fix="give the interrupted run's own settings (its config.yaml), or leave --resume out",
        )
    if found.state == "done":
        raise Conflict(
            f"run {found.id} is done: it published {(found.version_digest or '')[:12]}",
            fix="leave --resume out to train anew",
        )
    return found.id, found.folder


def kept_dtype(run: Run, place: Placement, resume: bool) -> Placement:
    """The type that the run began in, written beside it: measured again on another day, `auto` could be another type."""
    kept = run.folder / "dtype"
    if resume and kept.exists():
        dtype = kept.read_text("utf-8").strip()
        return replace(place, dtype=dtype, why=f"{place.device}, {dtype} as begun")
    if PartialState().is_main_process:
        kept.write_text(place.dtype + "\n", "utf-8")
    return place


@contextlib.contextmanager
def _in_charge(workspace: Workspace, run: Run, state: PartialState) -> Iterator[None]:
    """Hold the run's lock and record how it ends. A killed process leaves it `running`, and its lock free."""
    if not state.is_main_process:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(holding(run.folder / runs.LOCK_FILE, f"run {run.id}")).say(run.id)
        except Held:
            raise Conflict(f"run {run.id} is being trained by another process", fix="wait for it, or stop it") from None
        try:
            yield
        except (Interrupted, KeyboardInterrupt) as stop:
            runs.finish(workspace, run.id, "interrupted", error=str(stop))
            if isinstance(stop, KeyboardInterrupt):
                raise Interrupted(
                    "stopped at once", fix="go on from the last checkpoint with the same command and --resume"
                ) from None
            raise
        except BaseException as error:
            try:
                runs.finish(workspace, run.id, "failed", error=f"{type(error).__name__}: {error}")
            except (
                Exception
            ):  # the database on the same full disk: the run stays as a killed one's does, and `--resume` finds it
                if not isinstance(error, NoSpace):
                    raise
            raise
