"""The command line as a stranger's scripts meet it: words in; exit status, standard output and standard error out."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from preferences import write_polite

from rlhf import cli

REPLIES = '{"id": "x", "prompt": "Question?", "reply": "Yes thanks"}\n'
REAL = [sys.executable, "-m", "rlhf.cli"]  # a process of its own
FAST = ("max_steps=2", "dtype=float32", "pairs_per_step=8", "baseline=false")


@dataclass(frozen=True)
class Answer:
    """What one call gave."""

    status: int
    out: str
    err: str

    @property
    def value(self) -> dict[str, Any]:
        """Standard output as the one JSON object that it must be."""
        (line,) = self.out.splitlines()
        value = json.loads(line)
        assert isinstance(value, dict)
        return value

    @property
    def error(self) -> dict[str, str]:
        """The refusal, in the one shape that it must have."""
        error: dict[str, str] = self.value["error"]
        assert set(error) == {"message", "fix", "code"} and all(error.values())
        assert all("\n" not in text and "Traceback" not in text for text in error.values())
        assert not error["message"].startswith("unexpected"), error
        return error


class CommandLine:
    """Calls `rlhf WORDS --workspace W` in this process."""

    def __init__(self, root: Path | None, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._capsys, self._monkeypatch = root, capsys, monkeypatch

    def __call__(self, *words: object, stdin: bytes = b"") -> Answer:
        at = [] if self.root is None else ["--workspace", str(self.root)]
        self._monkeypatch.setattr(sys, "argv", ["rlhf", *map(str, words), *at])
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = self._capsys.readouterr()
        return Answer(int(stop.value.code or 0), out, err)

    def json(self, *words: object, stdin: bytes = b"") -> dict[str, Any]:
        """What a call that is done answers."""
        answer = self(*words, "--json", stdin=stdin)
        assert answer.status == 0, answer
        return answer.value

    def at(self, root: Path | None) -> CommandLine:
        return CommandLine(root, self._capsys, self._monkeypatch)


def make_trained(root: Path, base: Path, call: Callable[..., dict[str, Any]]) -> None:
    """The whole main job once, by commands: two versions, a report, an alias that moved, a token, a second cut."""
    call("init")
    call("feedback", "import", write_polite(root.parent / "polite.jsonl"))
    call("snapshot", "cut", "polite", "--holdout", "0.2")
    call("snapshot", "cut", "polite", "--holdout", "0.5", "--seed", "3")
    call("base", "add", "tiny", "--dir", base)
    for seed in (0, 1):
        call("reward", "train", "hh", "--snapshot", "polite@1", "--base", "tiny", f"seed={seed}", *FAST)
    call("evaluate", "hh@1", "hh@2", "--snapshot", "polite@1")
    for version in ("hh@1", "hh@2"):
        call("alias", "set", "hh@champion", version, "--why", f"{version} is the best so far")
    call("people", "token", "ada")


def copy_of(root: Path, to: Path) -> Path:
    """A workspace of a test's own: a plain copy of the folder, which must work wherever it lies."""
    return Path(shutil.copytree(root, to))


def state(root: Path) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """Rows in each table, and size and time of each file: what a refusal must leave as it was."""
    with sqlite3.connect(root / "rlhf.db") as connection:
        tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        rows = {name: connection.execute(f"select count(*) from {name}").fetchone()[0] for name in tables}
    connection.close()
    files = {
        path.relative_to(root).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith("rlhf.db")
    }
    return rows, files
