"""A format that somebody else brings and that can't be loaded is named and passed over; the rest works."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from command_line import REAL


@pytest.fixture
def broken_plugin(tmp_path: Path) -> dict[str, str]:
    """The environment of a process in which two broken formats are installed."""
    site = tmp_path / "site"
    about = site / "odd_formats-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-formats\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[rlhf.formats]\nodd = odd_formats:FORMAT\nplain = odd_plain:FORMAT\n")
    (site / "odd_formats.py").write_text("raise RuntimeError('no table\\nfor this')\n")
    (site / "odd_plain.py").write_text("FORMAT = 3\n")
    return {**os.environ, "PYTHONPATH": str(site)}


def call(environment: dict[str, str], tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*REAL, "feedback", *words, "--workspace", str(tmp_path / "ws")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_broken_format_is_named_in_a_line_and_passed_over(broken_plugin: dict[str, str], tmp_path: Path) -> None:
    listed = call(broken_plugin, tmp_path, "formats", "--json")
    assert listed.returncode == 0 and set(json.loads(listed.stdout)["formats"]) >= {"hh", "trl"}
    first, second = listed.stderr.splitlines()
    assert "'odd'" in first and "RuntimeError: no table for this" in first and "'plain'" in second
    file = tmp_path / "x.jsonl"
    file.write_text('{"prompt": "q", "chosen": "x", "rejected": "y"}\n')
    done = call(broken_plugin, tmp_path, "import", str(file), "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["accepted"] == 1 and "'odd'" in done.stderr


def test_a_broken_format_that_is_asked_for_is_refused_with_its_reason(
    broken_plugin: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"prompt": "q", "chosen": "x", "rejected": "y"}\n')
    refused = call(broken_plugin, tmp_path, "import", str(file), "--format", "odd", "--json")
    assert refused.returncode == 2 and "RuntimeError: no table" in json.loads(refused.stdout)["error"]["message"]
