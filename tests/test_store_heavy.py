"""Lock files that say who holds them, and one heavy job at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlhf.errors import BadUsage, Conflict
from rlhf.store import Workspace
from rlhf.store.heavy import heavy
from rlhf.store.holding import Held, holder_of, holding
from rlhf.store.processes import ProcessId, process_of, this_process

_HOLD = """
import sys, time
from rlhf.store import Workspace
from rlhf.store.heavy import heavy
with heavy(Workspace.open(sys.argv[1]), "reward hh", wait=sys.argv[2] == "wait") as hold:
    hold.say("01abc")
    print("held", flush=True)
    time.sleep(60)
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(workspace: Workspace) -> Iterator[Start]:
    """Starts processes that hold the heavy lock for a minute, and ends them."""
    running: list[subprocess.Popen[str]] = []

    def begin(how: str = "now", *, until_held: bool = True) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", _HOLD, str(workspace.root), how]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        if until_held:
            assert process.stdout.readline() == "held\n"
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def test_a_second_heavy_job_is_refused_and_told_who_is_at_it(workspace: Workspace, start: Start) -> None:
    process = start()
    with pytest.raises(Conflict) as refused, heavy(workspace, "reward other"):
        raise AssertionError("two at once")
    assert f"busy with reward hh (run 01abc, process {process.pid}, since 20" in refused.value.message
    assert refused.value.fix == "wait, cancel it with: rlhf run cancel 01abc, or set RLHF_HEAVY_JOBS=2"


def test_kill_9_leaves_the_lock_free(workspace: Workspace, start: Start) -> None:
    process = start()
    process.send_signal(signal.SIGKILL)
    process.wait()
    with heavy(workspace, "reward other"):
        pass


def test_as_many_run_at_once_as_is_allowed(workspace: Workspace, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHF_HEAVY_JOBS", "2")
    start()
    start()
    with pytest.raises(Conflict, match=r"busy with reward hh \(.*\), reward hh \(.*\)"), heavy(workspace, "x"):
        raise AssertionError("three at once")
    for wrong in ("0", "many", "-1", ""):
        monkeypatch.setenv("RLHF_HEAVY_JOBS", wrong)
        with pytest.raises(BadUsage, match="RLHF_HEAVY_JOBS"), heavy(workspace, "x"):
            raise AssertionError("no number")


def test_who_waits_goes_on_as_soon_as_the_other_is_gone(workspace: Workspace, start: Start) -> None:
    first = start()
    second = start("wait", until_held=False)
    time.sleep(0.3)
    assert second.poll() is None
    first.kill()
    assert second.stdout is not None and second.stdout.readline() == "held\n"


def test_a_heavy_job_inside_a_heavy_job_is_the_same_one_and_another_thread_s_is_not(workspace: Workspace) -> None:
    with heavy(workspace, "loop") as outer:
        with heavy(workspace, "reward hh") as inner:
            assert inner is outer
        refused: list[Conflict] = []

        def other() -> None:
            try:
                with heavy(workspace, "other"):
                    pass
            except Conflict as error:
                refused.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert len(refused) == 1 and "loop" in refused[0].message
    with heavy(workspace, "again"):
        pass


def test_a_refused_taker_leaves_the_holder_s_words(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holding(path, "mine", run="r1"):
        with pytest.raises(Held) as held, holding(path, "theirs"):
            raise AssertionError("two at once")
        found = holder_of(path)
        assert found == held.value.holder and found is not None
        assert (found.what, found.run, found.process) == ("mine", "r1", this_process())
    assert holder_of(path) is None and holder_of(tmp_path / "absent") is None


def test_asking_who_holds_it_keeps_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            holder_of(path)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(50):
            with holding(path, "mine"):
                pass
    finally:
        stop.set()
        thread.join()


def test_a_later_process_with_the_same_number_is_not_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    me = this_process()
    said = {"host": me.host, "pid": me.pid, "started": "another boot:1", "what": "x", "since": "", "run": None}
    path.write_text(json.dumps(said))
    assert not ProcessId(me.host, me.pid, "another boot:1").is_alive and me.is_alive
    assert holder_of(path) is None


def test_a_dead_process_is_not_alive_before_it_is_waited_for() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = process_of(process.pid)
    assert found is not None and found.is_alive
    os.kill(process.pid, signal.SIGKILL)
    for _ in range(100):
        if not found.is_alive:
            break
        time.sleep(0.02)
    assert not found.is_alive and process_of(process.pid) is None
    process.communicate()
    assert ProcessId("elsewhere", process.pid, "x").is_alive  # nothing here can tell


def test_a_lock_whose_holder_says_nothing_is_held_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holding(path, "mine"):
        path.write_text("")
        found = holder_of(path)
        assert found is not None and found.process is None


def test_of_many_takers_one_holds_it_at_a_time_and_nothing_is_left(tmp_path: Path) -> None:
    """Each removes the file at its end: nobody may come to hold one that is no longer there."""
    path, inside, most, turns = tmp_path / "lock", [0], [0], [0]

    def take() -> None:
        for _ in range(30):
            try:
                with holding(path, "x"):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    turns[0] += 1
                    time.sleep(0.001)
                    inside[0] -= 1
            except Held:
                continue

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and turns[0] > 30 and not path.exists()
