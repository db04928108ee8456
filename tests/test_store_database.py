"""One write is all or nothing, for threads, processes and the one that is killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import adapter_folders as made
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from rlhf.ids import chance
from rlhf.registry import aliases, list_versions, open_version, verify
from rlhf.store import Workspace, audit
from rlhf.store.tables import tokens


def _token(name: str) -> dict[str, str]:
    return {"digest": name, "actor": "x", "scopes": "label", "created_at": "2026"}


def _count(workspace: Workspace) -> int:
    with workspace.read() as connection:
        return int(connection.execute(select(func.count()).select_from(tokens)).scalar_one())


def test_a_write_is_all_or_nothing(workspace: Workspace) -> None:
    with pytest.raises(IntegrityError), workspace.write() as write:
        write.connection.execute(tokens.insert(), [_token("a"), _token("b")])
        write.audit("token", "a")
        write.connection.execute(tokens.insert(), [_token("a")])
    assert _count(workspace) == 0
    with workspace.read() as connection:
        assert audit.verify(connection) == 1


def test_insert_new_passes_over_what_is_there(workspace: Workspace) -> None:
    with workspace.write() as write:
        assert write.insert_new(tokens, [_token("a"), _token("b"), _token("a")]) == 2
        assert write.insert_new(tokens, [_token("b"), _token("c")]) == 1
        assert write.insert_new(tokens, []) == 0
    assert _count(workspace) == 3


def test_a_reader_sees_one_state_while_others_write(workspace: Workspace) -> None:
    with workspace.read() as connection:
        before = connection.execute(select(func.count()).select_from(tokens)).scalar_one()
        with workspace.write() as write:
            write.connection.execute(tokens.insert(), [_token("a")])
        assert connection.execute(select(func.count()).select_from(tokens)).scalar_one() == before == 0
    assert _count(workspace) == 1


def test_what_a_write_reads_is_true_until_it_commits(workspace: Workspace) -> None:
    """Eight threads count up one number by reading and writing it: none is lost."""

    def count_up(name: str) -> None:
        for _ in range(10):
            with workspace.write() as write:
                n = write.connection.execute(select(func.count()).select_from(tokens)).scalar_one()
                write.connection.execute(tokens.insert(), [_token(f"{n:03}")])

    threads = [threading.Thread(target=count_up, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _count(workspace) == 80


_WRITE = """
import sys
from rlhf.store import Workspace
from rlhf.store.tables import tokens
workspace = Workspace.open(sys.argv[1], actor=sys.argv[2])
n = 0
while n < int(sys.argv[3]):
    with workspace.write() as write:
        write.connection.execute(tokens.insert(), [
            {"digest": f"{sys.argv[2]}-{n}-{half}", "actor": "x", "scopes": "", "created_at": ""} for half in "ab"])
        write.audit("token", f"{sys.argv[2]}-{n}")
    print(n, flush=True)
    n += 1
"""


def _start(code: str, *words: object) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", code, *(str(word) for word in words)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_two_processes_write_at_once_and_lose_nothing(workspace: Workspace) -> None:
    running = [_start(_WRITE, workspace.root, name, 40) for name in ("one", "two")]
    assert [len(process.communicate(timeout=60)[0].split()) for process in running] == [40, 40]
    assert _count(workspace) == 160
    with workspace.read() as connection:
        assert audit.verify(connection) == 81


def _killed_while_writing(process: subprocess.Popen[str], after: int, delay_s: float) -> list[str]:
    """Kill -9 some time after the `after`th acknowledgement; returns what was acknowledged, whole lines only."""
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(after)]
    time.sleep(delay_s)
    os.kill(process.pid, signal.SIGKILL)
    with process:  # its output is closed, too
        rest = process.stdout.read()
    return [line.strip() for line in [*lines, *rest.splitlines(keepends=True)] if line.endswith("\n")]


def test_a_crash_leaves_the_last_good_state(workspace: Workspace) -> None:
    """Killed at a random moment: what was acknowledged is there, each write is whole, the log continues."""
    draw = chance(0, "kill")
    for turn in range(4):
        said = _killed_while_writing(_start(_WRITE, workspace.root, f"t{turn}", 100_000), 3, draw.random() * 0.05)
        with workspace.read() as connection:
            mine = select(tokens.c.digest).where(tokens.c.digest.startswith(f"t{turn}-"))
            rows = set(connection.execute(mine).scalars())
            entries = audit.entries(connection, action="token")
            n_entries = sum(entry["subject"].startswith(f"t{turn}-") for entry in entries)
            audit.verify(connection)
        assert {f"t{turn}-{n}-{half}" for n in said for half in "ab"} <= rows
        assert len(rows) == 2 * n_entries and len(said) <= n_entries <= len(said) + 1
    with workspace.write() as write:
        write.audit("after", "the crash")


_PUBLISH = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
import adapter_folders as made
from rlhf.registry import aliases
from rlhf.store import Workspace
workspace = Workspace.open(sys.argv[2])
for seed in range(int(sys.argv[4]), 10**6):
    ref = made.published(workspace, Path(sys.argv[3]), seed)
    print(ref, flush=True)
    aliases.move(workspace, "hh@champion", str(ref), why="newest")
"""


def test_a_crash_while_publishing_leaves_every_acknowledged_version_whole(workspace: Workspace, tmp_path: Path) -> None:
    draw = chance(1, "kill")
    for turn in range(4):
        process = _start(_PUBLISH, Path(__file__).parent, workspace.root, tmp_path / f"scratch-{turn}", turn * 10_000)
        said = _killed_while_writing(process, 2, draw.random() * 0.04)
        assert set(said) <= {str(row.ref) for row in list_versions(workspace)}
        for row in list_versions(workspace):
            assert open_version(workspace, row.ref).ref == row.ref
        found = verify(workspace)
        assert found.ok, found.problems
        assert aliases.current(workspace, "hh@champion").number >= int(said[-1].partition("@")[2]) - 1
    numbers = [row.ref.number for row in list_versions(workspace)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert made.published(workspace, tmp_path, 999_999).number == len(numbers) + 1
    assert verify(workspace).leftovers == ()


def test_sqlite_syncs_each_commit_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    for setting in ("full", "normal"):
        monkeypatch.setenv("RLHF_SQLITE_SYNC", setting)
        workspace = Workspace.create(tmp_path / setting, actor="x")
        with workspace.read() as connection:
            seen[setting] = connection.execute(text("pragma synchronous")).scalar()
            assert connection.execute(text("pragma journal_mode")).scalar() == "wal"
            assert connection.execute(text("pragma foreign_keys")).scalar() == 1
        workspace.close()
    assert seen == {"full": 2, "normal": 1}
