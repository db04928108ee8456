"""Exposures: durable before a request ends, written in groups, nothing lost at the end, no raw id."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select

from rlhf.errors import Conflict, NotFound
from rlhf.serving import Exposure, Outcome, Recorder, pseudonym
from rlhf.serving.exposures import Closing, find
from rlhf.store import Workspace
from rlhf.store.tables import exposures, outcomes


def _exposure(number: int | str, **changed: object) -> Exposure:
    return Exposure(f"r{number}", "hh", "hh", "ab" * 32, **changed)  # type: ignore[arg-type]


def _count(workspace: Workspace) -> int:
    with workspace.read() as connection:
        return connection.scalar(select(func.count()).select_from(exposures)) or 0


def test_a_row_is_as_it_was_recorded(either: Workspace) -> None:
    recorder = Recorder(either)
    unit = pseudonym(either, "ann@example.org")
    given = _exposure(
        1, unit=unit, arm="b", rule="weights", propensity=0.3, reason={"bucket": 7}, latency_s=0.5, tokens_out=3,
        refusal=False, prompt=({"role": "user", "content": "Hi"},), reply="Hé", consent=("train", "evaluate"), seed=2**40,
    )  # fmt: skip
    recorder.record(given).durable(10)
    row = find(either, "r1")
    assert (row.unit, row.arm, row.propensity, row.refusal, row.seed) == (unit, "b", 0.3, 0, 2**40)
    assert (json.loads(row.prompt), row.reply, row.consent) == (list(given.prompt or ()), "Hé", "evaluate,train")
    assert json.loads(row.reason) == {"bucket": 7} and row.at == given.at
    recorder.close()
    with pytest.raises(NotFound, match="nothing was served as request r2"):
        find(either, "r2")


def test_many_at_once_are_few_commits_and_none_is_missing(either: Workspace) -> None:
    commits = [0]

    def count(_connection: Any) -> None:
        commits[0] += 1
        time.sleep(0.01)  # a disk's time, in which the others come

    event.listen(either.database.engine, "commit", count)
    recorder = Recorder(either)

    def ask(client: int) -> None:
        for turn in range(20):
            recorder.record(_exposure(f"{client}-{turn}")).durable(30)

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.close()
    assert _count(either) == 320 and commits[0] < 160


def test_taking_a_row_costs_the_request_next_to_nothing(either: Workspace) -> None:
    recorder = Recorder(either)
    rows = [_exposure(n) for n in range(1000)]
    began = time.perf_counter()
    tickets = [recorder.record(row) for row in rows]
    each_s = (time.perf_counter() - began) / 1000
    for ticket in tickets:
        ticket.durable(30)
    recorder.close()
    assert each_s < 1e-3


def test_close_writes_what_was_taken_and_takes_no_more(either: Workspace) -> None:
    recorder = Recorder(either)
    tickets = [recorder.record(_exposure(n)) for n in range(300)]
    recorder.close()
    assert all(ticket.future.done() for ticket in tickets) and _count(either) == 300
    with pytest.raises(Closing):
        recorder.record(_exposure(301))
    recorder.close()


def test_one_bad_row_costs_nobody_else_theirs(either: Workspace) -> None:
    recorder = Recorder(either)
    recorder.record(_exposure("twice")).durable(10)
    tickets = {name: recorder.record(_exposure(name)) for name in ("a", "twice", "b")}
    for name in ("a", "b"):
        tickets[name].durable(10)
    with pytest.raises(Conflict, match="rtwice already"):
        tickets["twice"].durable(10)
    recorder.close()
    assert _count(either) == 3


def test_an_outcome_belongs_to_what_was_served(either: Workspace) -> None:
    recorder = Recorder(either)
    exposure = recorder.record(_exposure(1))
    outcome = recorder.record_outcome(Outcome("r1", "thumb", "thumb", 1.0))
    exposure.durable(10)
    outcome.durable(10)
    with pytest.raises(NotFound, match="nothing was served"):
        recorder.record_outcome(Outcome("r9", "thumb", "thumb", 1.0)).durable(10)
    recorder.close()
    with either.read() as connection:
        assert connection.execute(select(outcomes.c.request_id, outcomes.c.state)).all() == [("r1", "quarantined")]


def test_an_event_loop_waits_without_a_thread(workspace: Workspace) -> None:
    recorder = Recorder(workspace)

    async def ask() -> None:
        await asyncio.gather(*(asyncio.wrap_future(recorder.record(_exposure(n)).future) for n in range(50)))

    asyncio.run(ask())
    assert _count(workspace) == 50
    told: list[BaseException | None] = []
    ticket = recorder.record(_exposure("later"))
    ticket.when_durable(told.append)
    recorder.close()
    assert told == [None]


def test_what_was_acknowledged_survives_a_killed_process(workspace: Workspace) -> None:
    code = (
        "import sys; from rlhf.store import Workspace; from rlhf.serving import Recorder, Exposure;"
        "r = Recorder(Workspace.open(sys.argv[1]));\n"
        "for n in range(100000):\n"
        "    r.record(Exposure(f'k{n}', 'hh', 'hh', None)).durable(); print(n, flush=True)\n"
    )
    words = [sys.executable, "-c", code, str(workspace.root)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        said = [run.stdout.readline() for _ in range(50)]
        os.kill(run.pid, signal.SIGKILL)
        said += [line for line in run.stdout if line.endswith("\n")]
    assert _count(workspace) >= len(said)


def test_a_unit_is_a_keyed_pseudonym(workspace: Workspace, tmp_path: Path) -> None:
    unit = pseudonym(workspace, "ann@example.org")
    assert unit == pseudonym(workspace, "ann@example.org") and len(unit) == 64 and "ann" not in unit
    other = Workspace.create(tmp_path / "other")
    assert pseudonym(other, "ann@example.org") != unit
    other.close()
