"""A claimed job becomes a child process: its own session, its own files, the command line and nothing of ours in memory.

The child waits for one byte before it does anything. The byte is sent after its process is recorded, so a worker that is
killed in between leaves no job that runs unseen: the pipe closes, and the child ends.
"""

from __future__ import annotations

import os
import subprocess
import sys

from rlhf.jobs.queue import Job, hand_over
from rlhf.store import Workspace
from rlhf.store.processes import process_of
from rlhf.store.runs import JOB_VARIABLE

_WAIT_THEN_RUN = (
    "import sys; sys.stdin.buffer.read(1) or sys.exit('not started');"
    "import runpy; runpy.run_module('rlhf.cli', run_name='__main__')"
)


def launch(workspace: Workspace, job: Job) -> subprocess.Popen[bytes]:
    """Start the job's process: standard error in `log`, its answer (one JSON object) in `out`.

    Raises OSError where it can't be started (its folder is gone, say).
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    with open(job.folder / "log", "ab") as log, open(job.folder / "out", "wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", _WAIT_THEN_RUN, *_with_json(job.words)],
            cwd=job.cwd,
            env={
                **os.environ,
                "RLHF_WORKSPACE": str(workspace.root),
                "RLHF_ACTOR": job.actor,
                JOB_VARIABLE: job.id,
                "RLHF_HEAVY_WAIT": "1",
            },
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=log,
            start_new_session=True,
        )
    assert child.stdin is not None
    with child.stdin as go:
        process = process_of(child.pid)
        if process is not None and hand_over(workspace, job, process):
            go.write(b"1")
    return child


def _with_json(words: tuple[str, ...]) -> list[str]:
    """`--json` among the options: behind a `--` it would be an argument."""
    at = words.index("--") if "--" in words else len(words)
    return [*words[:at], "--json", *words[at:]]
