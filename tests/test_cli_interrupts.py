"""Ctrl-C: one line and a fix, or one JSON object, and exit 1, wherever it falls."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# A process of its own that gets a real SIGINT at the moment when its command opens the workspace.
SCRIPT = """
import os, signal
from rlhf.store import Workspace
opened = Workspace.open
def open_(*words, **more):
    os.kill(os.getpid(), signal.SIGINT)
    return opened(*words, **more)
Workspace.open = open_
from rlhf.cli import main
main()
"""


@pytest.mark.parametrize(
    "words",
    [
        "snapshot cut more",
        "evaluate hh@1 --snapshot polite@1",
        "adapter list",
        "reward train hh --snapshot polite@1 --base tiny",
    ],
)
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_an_interrupt_is_told_and_exits_1(trained_root: Path, words: str, more: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words.split(), "--workspace", str(trained_root), *more],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done
    if more:
        assert json.loads(done.stdout)["error"]["code"] == "interrupted"
    else:
        assert done.stderr.startswith("error: interrupted\n  fix: ") and done.stdout == ""


def test_an_interrupt_from_outside_while_a_command_waits_is_told(trained_root: Path) -> None:
    words = ("reward", "score", "hh@1", "-", "--workspace", str(trained_root))
    waiting = "import sys; from rlhf.cli import lines, main; real = lines.json_lines\n"
    waiting += "lines.json_lines = lambda file: (print('waiting', file=sys.stderr, flush=True), real(file))[1]\nmain()"
    with subprocess.Popen(
        [sys.executable, "-c", waiting, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None and process.stderr.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        assert "error: interrupted" in process.stderr.read()
    assert process.returncode == 1
