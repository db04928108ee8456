"""Workers, their children, and what is left when either is killed; cancelling either. Real processes, a real training."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import FAST

from rlhf import jobs
from rlhf.errors import Conflict, NotFound
from rlhf.jobs.launch import launch
from rlhf.jobs.queue import Job, claim, finish
from rlhf.jobs.work import settle
from rlhf.registry import list_versions
from rlhf.store import Workspace, audit, runs
from rlhf.store.holding import holder_of

LIST = ("adapter", "list")
TRAIN = ("reward", "train", "long", "--snapshot", "polite@1", "--base", "tiny", "dtype=float32", "pairs_per_step=8")
SLOW = (*TRAIN, "max_steps=100000", "save_steps=50000")
_WORKER = """
import sys
from rlhf import jobs
from rlhf.store import Workspace
from rlhf.errors import Interrupted
try:
    jobs.work(Workspace.open(sys.argv[1], actor="worker"), once=True, say=lambda text: print(text, flush=True))
except Interrupted as stop:
    print(f"{stop.message} ({stop.fix})", flush=True)
"""
# Stands for a training: holds a run's lock, and stops at SIGTERM as a trainer does, unless it is told to be stubborn.
_TRAINER = """
import signal, sys, time
from rlhf.store import Workspace, runs
from rlhf.store.holding import holding
workspace = Workspace.open(sys.argv[1])
stops = []
signal.signal(signal.SIGTERM, lambda *_: stops.append(1))
run = runs.start(workspace, "reward", "hh", None, {})
with holding(workspace.root / "runs" / run / "lock", "reward hh", run=run):
    print(run, flush=True)
    while not stops or sys.argv[2] == "stubborn":
        time.sleep(0.02)
    runs.finish(workspace, run, "interrupted", error="stopped at step 3")
"""


def until(is_so: Callable[[], object], seconds: float = 60.0) -> None:
    for _ in range(int(seconds / 0.05)):
        if is_so():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to be")


@pytest.fixture
def trained(trained_root: Path, tmp_path: Path) -> Iterator[Workspace]:
    """A copy of the workspace in which the main job was done once, without its runs."""
    workspace = Workspace.open(shutil.copytree(trained_root, tmp_path / "ws"), actor="ann")
    yield workspace
    for job in jobs.list_jobs(workspace):
        if job.process is not None and job.process.is_alive:
            os.killpg(job.process.pid, signal.SIGKILL)
    workspace.close()


@pytest.fixture
def worker(trained: Workspace) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts workers, and ends them."""
    started: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(trained.root)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def trainer(workspace: Workspace) -> Iterator[Callable[[str], tuple[subprocess.Popen[str], str]]]:
    """Starts stand-ins for a training: the process and its run's id."""
    started: list[subprocess.Popen[str]] = []

    def begin(how: str) -> tuple[subprocess.Popen[str], str]:
        words = [sys.executable, "-c", _TRAINER, str(workspace.root), how]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def _is_training(workspace: Workspace, job: Job) -> Callable[[], bool]:
    """Its run has a first step behind it: it listens to signals."""

    def look() -> bool:
        run_id = jobs.find(workspace, job.id).run_id
        return run_id is not None and (workspace.root / "runs" / run_id / "metrics.jsonl").exists()

    return look


def test_queued_jobs_are_run_in_order_each_in_a_process_of_its_own(trained: Workspace, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    first = jobs.enqueue(trained, ("snapshot", "export", "polite@1", "out.jsonl"), cwd=tmp_path / "here")
    second = jobs.enqueue(trained.as_actor("bob"), ("alias", "rollback", "hh@champion", "--why", "worse"))
    third = jobs.enqueue(trained, ("adapter", "show", "hh@9"))
    gone = jobs.enqueue(trained, LIST, cwd=tmp_path / "gone")
    said: list[str] = []
    ran = jobs.work(trained, once=True, say=said.append)
    assert [(job.id, job.state) for job in ran] == [
        (first.id, "done"),
        (second.id, "done"),
        (third.id, "failed"),
        (gone.id, "failed"),
    ]
    assert (tmp_path / "here" / "out.jsonl").exists()
    assert ran[1].answer is not None and ran[1].answer["to"] == "hh@1" and ran[1].answer["who"] == "bob"
    assert ran[2].exit_status == 1 and "there is no version hh@9" in (ran[2].error or "")
    assert "can't be started" in (ran[3].error or "") and len(said) == 8
    assert ran[0].process is not None and ran[0].process.pid != os.getpid() and not ran[0].process.is_alive
    assert jobs.work(trained, once=True) == ()


def test_two_workers_run_each_job_once(trained: Workspace, worker: Callable[[], subprocess.Popen[str]]) -> None:
    queued = {jobs.enqueue(trained, LIST).id for _ in range(4)}
    said = [process.communicate(timeout=60)[0] for process in (worker(), worker())]
    begun = [line.split()[1].rstrip(":") for text in said for line in text.splitlines() if "rlhf adapter" in line]
    assert sorted(begun) == sorted(queued)
    with trained.read() as connection:
        assert len(audit.entries(connection, action="job.start")) == 4
    assert {job.state for job in jobs.list_jobs(trained)} == {"done"}


def test_kill_9_of_a_job_is_told_and_the_next_one_is_run(trained: Workspace) -> None:
    jobs.enqueue(trained, SLOW)
    after = jobs.enqueue(trained, LIST)
    job = claim(trained)
    assert job is not None
    child = launch(trained, job)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert jobs.state_now(jobs.find(trained, job.id)) == "lost"
    (ran,) = jobs.work(trained, once=True)
    assert ran.id == after.id and ran.state == "done"
    lost = jobs.find(trained, job.id)
    assert lost.state == "failed" and "--resume" in (lost.error or "")


def test_a_job_outlives_its_killed_worker_and_the_next_worker_records_its_end(
    trained: Workspace, worker: Callable[[], subprocess.Popen[str]]
) -> None:
    job = jobs.enqueue(trained, (*TRAIN, FAST[0], "seed=7"))
    first = worker()
    until(lambda: jobs.find(trained, job.id).process)
    first.kill()
    first.wait()
    found = jobs.find(trained, job.id)
    assert jobs.state_now(found) == "running"
    assert jobs.work(trained, once=True) == ()  # alive: neither run again nor given up
    until(lambda: found.process and not found.process.is_alive)
    jobs.work(trained, once=True)
    ended = jobs.find(trained, job.id)
    assert (ended.state, ended.exit_status) == ("done", None), ended.log()
    assert ended.answer is not None and (ended.answer["version"], ended.answer["run"]) == ("long@1", ended.run_id)
    assert runs.show(trained, ended.run_id or "").actor == "ann" and any("step" in line for line in ended.log())
    assert [str(row.ref) for row in list_versions(trained) if row.ref.name == "long"] == ["long@1"]


def test_a_child_whose_process_was_not_recorded_does_nothing(
    trained: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.enqueue(trained, ("alias", "rollback", "hh@champion", "--why", "x"))
    claim(trained)
    finish(trained, job, "failed")  # given up meanwhile
    child = launch(trained, job)
    assert child.wait(timeout=60) != 0 and jobs.find(trained, job.id).answer is None
    assert jobs.find(trained, job.id).log() == ["not started"]


def test_a_failed_answer_without_its_worker_is_a_failed_job(trained: Workspace) -> None:
    job = jobs.enqueue(trained, ("adapter", "show", "hh@9"))
    claim(trained)
    launch(trained, job).wait()
    settle(trained)
    ended = jobs.find(trained, job.id)
    assert (ended.state, ended.exit_status, ended.error) == ("failed", None, "there is no version hh@9")


def test_an_interrupted_worker_leaves_its_job_at_work_and_a_killed_job_is_cancelled(
    trained: Workspace, worker: Callable[[], subprocess.Popen[str]]
) -> None:
    job = jobs.enqueue(trained, SLOW)
    process = worker()
    until(lambda: jobs.find(trained, job.id).process)
    time.sleep(0.2)  # it waits for its child by now
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert f"the worker stopped; job {job.id} goes on (stop it too with: rlhf run cancel {job.id})" in said
    assert jobs.state_now(jobs.find(trained, job.id)) == "running"
    assert jobs.cancel(trained, job.id, now=True).state == "cancelled"
    killed = jobs.find(trained, job.id)
    assert killed.process is not None and not killed.process.is_alive and killed.ended_at
    assert (killed.state, killed.error) == ("cancelled", "cancelled by ann")


def test_a_queued_job_is_cancelled_and_never_run(trained: Workspace) -> None:
    job = jobs.enqueue(trained, LIST)
    assert jobs.cancel(trained, job.id).as_json() == {"job": job.id, "run": None, "state": "cancelled"}
    assert jobs.work(trained, once=True) == ()
    with pytest.raises(Conflict, match="is cancelled: there is nothing to cancel"):
        jobs.cancel(trained, job.id)


def test_a_cancelled_training_leaves_a_checkpoint_to_go_on_from(
    trained: Workspace, worker: Callable[[], subprocess.Popen[str]]
) -> None:
    """And its worker goes on with the next job."""
    job, after = jobs.enqueue(trained, SLOW), jobs.enqueue(trained, LIST)
    process = worker()
    until(_is_training(trained, job))
    run_id = jobs.find(trained, job.id).run_id
    assert run_id is not None
    done = jobs.cancel(trained, run_id[:-1])
    assert (done.job, done.run, done.state) == (job.id, run_id, "interrupted")
    folder = trained.root / "runs" / run_id
    assert list((folder / "checkpoints").glob("checkpoint-*/whole")) and holder_of(folder / "lock") is None
    assert process.wait(timeout=60) == 0
    ended = jobs.find(trained, job.id)
    assert (ended.state, ended.error) == ("cancelled", "cancelled by ann") and ended.ended_at
    assert jobs.find(trained, after.id).state == "done"
    latest = runs.show(trained, run_id)
    assert runs.latest(trained, "reward", "long", latest.settings_digest) == latest


def test_a_run_that_is_no_job_is_stopped_by_its_lock(
    workspace: Workspace, trainer: Callable[[str], tuple[subprocess.Popen[str], str]]
) -> None:
    process, run = trainer("polite")
    other, other_run = trainer("polite")
    assert jobs.cancel(workspace, run).as_json() == {"job": None, "run": run, "state": "interrupted"}
    assert process.wait(timeout=10) == 0 and other.poll() is None
    assert runs.show(workspace, run).error == "stopped at step 3"
    assert runs.state_now(workspace, runs.show(workspace, other_run)) == "running"
    with pytest.raises(Conflict, match="is interrupted: there is nothing to cancel"):
        jobs.cancel(workspace, run)
    with workspace.read() as connection:
        assert audit.entries(connection, action="run.cancel")[0]["details"]["pid"] == process.pid


def test_who_does_not_stop_in_time_is_said_and_can_be_killed(
    workspace: Workspace, trainer: Callable[[str], tuple[subprocess.Popen[str], str]]
) -> None:
    process, run = trainer("stubborn")
    with pytest.raises(Conflict, match=r"still at its step after 0\.3 s") as late:
        jobs.cancel(workspace, run, timeout_s=0.3)
    assert "--now" in late.value.fix and process.poll() is None
    assert jobs.cancel(workspace, run, now=True).state == "cancelled"
    assert process.wait(timeout=10) == -signal.SIGKILL
    row = runs.show(workspace, run)
    assert (row.state, row.error) == ("cancelled", "killed by tester")


def test_a_lost_run_is_marked_and_nobody_is_killed(
    workspace: Workspace, trainer: Callable[[str], tuple[subprocess.Popen[str], str]]
) -> None:
    process, run = trainer("polite")
    process.kill()
    process.wait()
    assert runs.state_now(workspace, runs.show(workspace, run)) == "lost"
    lock = workspace.root / "runs" / run / "lock"
    said = json.loads(lock.read_text())
    lock.write_text(json.dumps({**said, "pid": os.getpid()}))  # the number is another process's by now: ours
    assert jobs.cancel(workspace, run, now=True).state == "cancelled"
    with pytest.raises(NotFound):
        jobs.cancel(workspace, "zzz")
