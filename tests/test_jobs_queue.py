"""The queue: what may stand in it, in what order, and that nothing in it is taken twice."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from rlhf import jobs
from rlhf.errors import BadInput, BadUsage, NotFound
from rlhf.ids import clock_at, new_id
from rlhf.jobs.queue import claim, finish, hand_over, mark_cancelled
from rlhf.store import Workspace, audit, runs
from rlhf.store.processes import ProcessId, this_process

WORDS = ("adapter", "list")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    """A workspace on each kind of database."""
    database = "rlhf.db"
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        name = f"d{new_id()}"
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"create database {name}"))
        engine.dispose()
        before, question, after = url.partition("?")
        database = f"{before.rpartition('/')[0]}/{name}{question}{after}"
    workspace = Workspace.create(tmp_path / "either", database=database, actor="tester")
    yield workspace
    workspace.close()


def test_jobs_are_taken_in_order_and_each_once(either: Workspace) -> None:
    first, second = (jobs.enqueue(either.as_actor("ann"), (*WORDS, "--role", role)) for role in ("reward", "policy"))
    assert [job.id for job in jobs.list_jobs(either)] == [first.id, second.id]
    assert (first.state, first.actor, first.words, first.cwd) == (
        "queued",
        "ann",
        (*WORDS, "--role", "reward"),
        str(either.root),
    )
    taken = [claim(either) for _ in range(3)]
    assert [job and job.id for job in taken] == [first.id, second.id, None]
    assert [job.id for job in jobs.list_jobs(either, "running")] == [first.id, second.id]
    finish(either, first, "failed", exit_status=1, error="no")
    ended = jobs.find(either, first.id)
    assert (ended.state, ended.exit_status, ended.error) == ("failed", 1, "no") and ended.ended_at
    with either.read() as connection:
        actions = [e["action"] for e in audit.entries(connection, subject=first.id)]
    assert actions == ["job.queue", "job.start", "job.failed"]


def test_of_many_claimers_each_job_has_one(either: Workspace) -> None:
    wanted = {jobs.enqueue(either, WORDS).id for _ in range(12)}
    taken: list[str] = []

    def take() -> None:
        while (job := claim(either)) is not None:
            taken.append(job.id)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 12 and set(taken) == wanted


def test_a_cancelled_job_is_not_taken_and_a_taken_one_is_not_cancelled_as_queued(either: Workspace) -> None:
    first, second = (jobs.enqueue(either, WORDS) for _ in range(2))
    assert mark_cancelled(either, first, "queued") and not mark_cancelled(either, first, "queued")
    taken = claim(either)
    assert taken is not None and taken.id == second.id and not mark_cancelled(either, second, "queued")
    assert mark_cancelled(either, second, "running")
    assert not hand_over(either, second, this_process())  # so its child never starts


def test_how_a_cancelled_job_ended_does_not_hide_that_it_was_cancelled_unless_it_was_done(either: Workspace) -> None:
    for state, expected in (("failed", "cancelled"), ("done", "done")):
        job = jobs.enqueue(either, WORDS)
        claim(either)
        hand_over(either, job, this_process())
        mark_cancelled(either, job, "running")
        assert jobs.state_now(jobs.find(either, job.id)) == "stopping"
        finish(either, job, state, exit_status=0)  # type: ignore[arg-type]
        ended = jobs.find(either, job.id)
        assert (ended.state, ended.exit_status) == (expected, 0) and jobs.state_now(ended) == expected


def test_what_was_concluded_without_the_exit_status_gives_way_to_it(either: Workspace) -> None:
    job = jobs.enqueue(either, WORDS)
    claim(either)
    finish(either, job, "done")
    finish(either, job, "failed", exit_status=1)
    finish(either, job, "done", exit_status=0)
    assert jobs.find(either, job.id).state == "failed"


def test_a_job_is_lost_where_its_process_is_gone_or_was_never_started(workspace: Workspace) -> None:
    job = jobs.enqueue(workspace, WORDS)
    with clock_at(1.0e9):
        claim(workspace)
    assert jobs.state_now(jobs.find(workspace, job.id)) == "lost"
    hand_over(workspace, job, this_process())
    assert jobs.state_now(jobs.find(workspace, job.id)) == "running"
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    hand_over(workspace, job, ProcessId(this_process().host, child.pid, "x"))
    assert jobs.state_now(jobs.find(workspace, job.id)) == "lost"
    hand_over(workspace, job, ProcessId("elsewhere", 1, "x"))
    late = jobs.enqueue(workspace, WORDS)
    claim(workspace)
    assert jobs.state_now(jobs.find(workspace, late.id)) == "running"


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("serve",),
        ("web",),
        ("run", "work"),
        ("rlhf", "adapter", "list"),
        (*WORDS, "--workspace", "other"),
        (*WORDS, "--workspace=other"),
        (*WORDS, "--json"),
        ("loop", "run", "--watch"),
    ],
)
def test_what_has_no_end_or_another_workspace_is_not_queued(workspace: Workspace, words: tuple[str, ...]) -> None:
    with pytest.raises(BadUsage):
        jobs.enqueue(workspace, words)
    assert jobs.list_jobs(workspace) == ()


def test_runs_and_jobs_are_named_by_the_beginning_of_their_ids(workspace: Workspace) -> None:
    with clock_at(1.0e9):
        run = runs.start(workspace, "reward", "hh", None, {})
    with clock_at(1.5e9):
        job = jobs.enqueue(workspace, WORDS)
    assert jobs.named(workspace, run[:10]).id == run and jobs.named(workspace, job.id[:10].upper()).id == job.id
    with pytest.raises(NotFound, match="more than one"):
        jobs.named(workspace, "0")
    for call in (jobs.named, jobs.find):
        with pytest.raises(NotFound, match="there is no"):
            call(workspace, "zzz")
        with pytest.raises(BadInput):
            call(workspace, "")


def test_a_run_is_noted_in_the_job_whose_process_starts_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.enqueue(workspace, WORDS)
    monkeypatch.setenv(runs.JOB_VARIABLE, job.id)
    run = runs.start(workspace, "reward", "hh", None, {})
    assert jobs.find(workspace, job.id).run_id == run


def test_the_end_of_a_log_is_what_a_person_would_see(workspace: Workspace) -> None:
    job = jobs.enqueue(workspace, WORDS)
    assert job.log() == [] and job.answer is None
    job.folder.mkdir(parents=True)
    (job.folder / "log").write_text("loading\n\r 1/9\r 2/9\r 9/9\n\ndone\n")
    (job.folder / "out").write_text('{"version": "hh@1"')
    assert job.log() == ["loading", " 9/9", "done"] and job.log(1) == ["done"] and job.answer is None
    (job.folder / "out").write_text('{"version": "hh@1"}\n')
    assert job.answer == {"version": "hh@1"}
