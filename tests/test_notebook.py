"""The notebook runs from top to bottom, and is kept without outputs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "loop.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_no_output_is_kept_in_the_notebook() -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CELLS if "outputs" in cell)
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)


def test_the_notebook_stands_on_the_page_of_the_loop() -> None:
    from rlhf import loop

    called = {
        node.func.attr
        for node in ast.walk(ast.parse("\n".join(CODE)))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "loop"
    }
    assert {"turn", "improve", "promote", "take_back", "answer"} <= called <= set(loop.__all__)


@pytest.mark.slow
def test_every_cell_runs_in_order(tmp_path: Path) -> None:
    script = tmp_path / "cells.py"
    script.write_text("\n\n".join(CODE), "utf-8")
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "polite@1: right on" in said and "assistant@1 against the base: wins" in said
    assert "assistant@1, in" in said  # the roll-back
    before, after = (line for line in said.splitlines() if line.startswith("assistant@champion says:"))
    assert "assistant@2  from: assistant@1" in said and "assistant@1  reward: polite@1" in said
    assert before != after
