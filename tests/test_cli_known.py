"""A misspelled name is refused before torch is loaded, whichever command it was given to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rlhf.store import Workspace

COMMANDS = (
    "reward train x --snapshot absent --base tiny",
    "reward train x --snapshot absent --base tiny epochs=many",
    "reward train a/b --snapshot absent --base tiny",
    "policy train x --reward r@1 --base absent --method dpo",
    "policy train x --reward r@1 --base absent --method dop",
    "policy generate a@1 prompts.jsonl",
    "compare a@1 b@1",
    "compare base:x base:y --judge people --min-judged 0",
    "evaluate a@1 --snapshot absent",
    "loop run",
    "run queue -- reward train x lerning_rate=1",
)
CALLED = """
import sys
from rlhf import cli
for line in sys.stdin.read().splitlines():
    sys.argv = ["rlhf", *line.split()]
    try:
        cli.main()
    except SystemExit as stop:
        heavy = [name for name in ("torch", "transformers", "trl", "peft") if name in sys.modules]
        print(stop.code, line, heavy, flush=True)
"""


def test_what_is_misspelled_is_refused_without_torch(tmp_path: Path) -> None:
    Workspace.create(tmp_path / "workspace").close()
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Hello?"}\n', "utf-8")
    called = [sys.executable, "-P", "-c", CALLED]
    done = subprocess.run(
        called, cwd=tmp_path, input="\n".join(COMMANDS), capture_output=True, text=True, timeout=120, check=True
    )
    said = done.stdout.splitlines()
    assert len(said) == len(COMMANDS), done
    for line, command in zip(said, COMMANDS, strict=True):
        assert line in (f"1 {command} []", f"2 {command} []"), done.stderr
