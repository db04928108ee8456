"""Curves that a version keeps: numbers alone, thinned and not invented, on every road that a version travels."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import adapter_folders as made
import pytest

from rlhf.errors import Damaged
from rlhf.records import VersionRef
from rlhf.registry import curves, open_version, publish, read_folder
from rlhf.registry.folder import CURVES_FILE
from rlhf.store import Workspace

ROWS: list[dict[str, Any]] = [
    {
        "step": n,
        "loss": 0.7 - n / 1000,
        "accuracy": 0.5,
        "epoch": 0.1,
        "seconds": 2.0 * n,
        "pairs": n,
        "pairs_per_s": 3.0,
    }
    for n in range(1, 11)
]


def kept(workspace: Workspace, scratch: Path, rows: list[dict[str, Any]], seed: int = 0) -> VersionRef:
    staged = made.make(scratch / f"with-curves-{seed}", seed)
    curves.write(staged, rows)
    return publish(workspace, staged, made.draft(), made.evidence())


def test_a_version_keeps_its_figures_and_no_times(workspace: Workspace, tmp_path: Path) -> None:
    found = curves.of_version(workspace, kept(workspace, tmp_path, ROWS))
    assert found is not None and (found.n_logged, found.mean_of, found.watch) == (10, 1, ())
    assert found.steps[0] == {"step": 1, "loss": 0.699, "accuracy": 0.5}


def test_many_steps_are_averaged_and_nothing_else_is(workspace: Workspace, tmp_path: Path) -> None:
    rows = [{"step": n, "loss": float(n % 2)} for n in range(1, 1001)]
    rows += [{"step": n, "watch": {"reward": n / 10, "replies": 32.0}} for n in range(0, 1001, 2)]
    found = curves.of_version(workspace, kept(workspace, tmp_path, rows))
    assert found is not None and found.mean_of == 3 and found.n_logged == 1000
    assert sum(row["loss"] for row in found.steps[:-1]) == pytest.approx(
        sum(n % 2 for n in range(1, 1000)) / 3, abs=1e-3
    )
    assert found.steps[-1] == {"step": 1000, "loss": 0.0}, "the last block is the one step that is left"
    measured = {row["step"]: row["reward"] for row in found.watch}
    assert {0, 1000} <= set(measured) and all(value == step / 10 for step, value in measured.items())


def test_what_is_not_finite_is_left_out(workspace: Workspace, tmp_path: Path) -> None:
    found = curves.of_version(workspace, kept(workspace, tmp_path, [{"step": 1, "loss": math.nan, "accuracy": 0.5}]))
    assert found is not None and found.steps == ({"step": 1, "accuracy": 0.5},)


def test_the_digest_knows_nothing_of_the_curves(workspace: Workspace, tmp_path: Path) -> None:
    ref = kept(workspace, tmp_path, ROWS)
    assert made.published(workspace, tmp_path, 0) == ref, "the same weights without curves are the same version"
    assert curves.of_version(workspace, made.published(workspace, tmp_path, 1)) is None


def test_a_changed_file_is_noticed(workspace: Workspace, tmp_path: Path) -> None:
    ref = kept(workspace, tmp_path, ROWS)
    file = open_version(workspace, ref).folder / CURVES_FILE
    file.write_text(file.read_text("utf-8").replace("0.699", "0.001"), "utf-8")
    with pytest.raises(Damaged, match=r"curves\.json"):
        curves.of_version(workspace, ref)


def test_curves_travel_to_another_workspace(workspace: Workspace, tmp_path: Path) -> None:
    ref = kept(workspace, tmp_path, ROWS)
    other = Workspace.create(tmp_path / "other")
    folder = read_folder(open_version(workspace, ref).folder).path
    again = publish(other, folder, made.draft(), made.evidence())
    assert curves.of_version(other, again) == curves.of_version(workspace, ref)
    other.close()


@pytest.mark.parametrize(
    "content",
    ["[]", "{", '{"steps": 1}', '{"steps": [{"step": 1, "loss": "<b>"}], "watch": [], "n_logged": 1, "mean_of": 1}'],
)
def test_a_strangers_file_of_that_name_is_passed_over(workspace: Workspace, tmp_path: Path, content: str) -> None:
    staged = made.make(tmp_path / "stranger")
    (staged / CURVES_FILE).write_text(content, "utf-8")
    ref = publish(workspace, staged, made.draft(), made.evidence())
    assert not (open_version(workspace, ref).folder / CURVES_FILE).exists()


def test_nothing_logged_leaves_no_file(tmp_path: Path) -> None:
    curves.write(tmp_path, [])
    assert not list(tmp_path.iterdir())
    curves.write(tmp_path, [{"step": 1, "loss": 0.5}])
    assert json.loads((tmp_path / CURVES_FILE).read_text("utf-8"))["steps"] == [{"step": 1, "loss": 0.5}]
