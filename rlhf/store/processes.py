"""Which process that is, so that a later one with the same number isn't taken for it (or killed in its place)."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process by host, number and start. started: the kernel's boot and the clock ticks since, where /proc tells
    them; else seconds since the epoch."""

    host: str
    pid: int
    started: str

    @property
    def is_here(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether it still runs. A process of another host is taken to: nothing here can tell."""
        return not self.is_here or _started(self.pid) == self.started


def process_of(pid: int) -> ProcessId | None:
    """The process with this number now; None where there is none (any more)."""
    started = _started(pid)
    return None if started is None else ProcessId(socket.gethostname(), pid, started)


def this_process() -> ProcessId:
    found = process_of(os.getpid())
    assert found is not None
    return found


def _started(pid: int) -> str | None:
    """When the process with this number was started; None where it is gone, or dead and only not yet waited for."""
    try:
        # The name in parentheses may hold spaces and parentheses: fields are counted behind the last one.
        state, *fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (FileNotFoundError, ProcessLookupError):
        return _started_elsewhere(pid) if not Path("/proc/self/stat").exists() else None
    return None if state in "ZX" else f"{boot}:{fields[18]}"


def _started_elsewhere(pid: int) -> str | None:
    """Without Linux's /proc."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None
