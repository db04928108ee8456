"""What a version keeps of how its training went: `curves.json` in its folder, so that its curves outlive the run's own files.

The file has a checksum as every published one has, and stays out of the version's digest: two trainings that gave the same weights
are one version. It holds numbers alone: no time, no text, no reply.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from rlhf.errors import NotFound
from rlhf.records import VersionRef
from rlhf.registry.folder import CURVES_FILE
from rlhf.store import Workspace
from rlhf.store.tables import versions

_MOST, _DIGITS, _LARGEST = 400, 6, 2**20  # rows of each kind, significant digits of a number, bytes of a file
_NOT_KEPT = ("epoch", "seconds", "pairs", "prompts", "rollouts")  # times, and counts that follow from the step
_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Curves:
    """steps: rows of `step` and figures of the training; each is the mean of `mean_of` logged steps, at the last of them.
    watch: measurements on the same held-out prompts between steps, a policy's alone. n_logged: steps that were logged."""

    steps: tuple[Mapping[str, float], ...]
    watch: tuple[Mapping[str, float], ...]
    n_logged: int
    mean_of: int


def write(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Put what `metrics.jsonl` holds into a folder that is about to be published. Nothing is written of no rows."""
    rows = list(rows)
    logged = [_numbers(row) for row in rows if "watch" not in row]
    watched = [{"step": row["step"], **_numbers(row["watch"])} for row in rows if "watch" in row]
    if not logged and not watched:
        return
    size = max(1, math.ceil(len(logged) / _MOST))
    content = {
        "schema_version": _SCHEMA_VERSION,
        "n_logged": len(logged),
        "mean_of": size,
        "steps": [_mean(logged[i : i + size]) for i in range(0, len(logged), size)],
        "watch": _thinned(watched),
    }
    (folder / CURVES_FILE).write_text(json.dumps(content, allow_nan=False) + "\n", "utf-8")


def of_version(workspace: Workspace, version: VersionRef) -> Curves | None:
    """What the version keeps; None where it keeps nothing, or its files are gone. Raises Damaged where the file was changed."""
    with workspace.read() as connection:
        path = connection.execute(select(versions.c.path).where(versions.c.digest == version.digest)).scalar_one()
        try:
            return _read(workspace.artifacts.read_file(connection, f"{path}/{CURVES_FILE}"))
        except NotFound:
            return None


def is_ours(file: Path) -> bool:
    """Whether the file holds curves as `write` leaves them: a stranger's folder may hold something else of that name."""
    return (
        file.is_file()
        and not file.is_symlink()
        and file.stat().st_size <= _LARGEST
        and _read(file.read_bytes()) is not None
    )


def _read(raw: bytes) -> Curves | None:
    try:
        content = json.loads(raw)
        steps, watch = (_rows(content[name]) for name in ("steps", "watch"))
        return Curves(steps, watch, int(content["n_logged"]), int(content["mean_of"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _rows(listed: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, float], ...]:
    for row in listed:
        if len(_numbers(row)) != len(row) or "step" not in row:
            raise ValueError("a row of curves holds a step and finite numbers")
    return tuple(dict(row) for row in listed)


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Its finite figures, without times and what follows from the step."""
    return {
        key: value if key == "step" else float(f"{value:.{_DIGITS}g}")
        for key, value in row.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and key not in _NOT_KEPT
        and not key.endswith("_per_s")
    }


def _thinned(rows: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Every k-th, the first and the last among them: a measurement is never averaged with another."""
    k = max(1, math.ceil(len(rows) / _MOST))
    return [*rows[:1], *rows[1:][::-1][::k][::-1]]


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each figure over the rows that have it."""
    means: dict[str, float] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row[key] for row in rows if key in row]
        means[key] = float(f"{sum(values) / len(values):.{_DIGITS}g}")
    return {**means, "step": rows[-1]["step"]}
