"""Room on the disk: what a workspace takes, the budget it was given, and the refusal of what would not fit.

The budget stands in `workspace.yaml` as `disk_budget`, in bytes, and is read each time it is asked for: whoever changes it need
not start the servers again. It counts what lies under the workspace's folder, the database and local artifacts among it; a
PostgreSQL server's disk and a bucket are measured by their own tools. Nothing is stopped in its middle: a budget decides what
begins.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from rlhf.errors import BadUsage, RlhfError
from rlhf.ids import new_id
from rlhf.store.walking import size_of
from rlhf.store.workspace import DISK_BUDGET, Workspace

_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_UNITS |= {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class NoRoom(RlhfError):
    """What was to be written doesn't fit on the disk, or into the workspace's budget."""

    code = "no_space"


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes. used: by the workspace; budget: None = none was set; free: on the disk that it lies on."""

    used: int
    budget: int | None
    free: int

    @property
    def left(self) -> int:
        """What may still be written; below 0 where the budget is passed."""
        return self.free if self.budget is None else min(self.free, self.budget - self.used)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        used = (
            f"{in_words(self.used)} used"
            if self.budget is None
            else f"{in_words(self.used)} of {in_words(self.budget)} used"
        )
        return f"{used}, {in_words(self.free)} free on the disk"


def room_of(workspace: Workspace) -> Room:
    """As it is now. Walks the workspace's folder."""
    places = [workspace.root]
    if workspace.artifacts.is_local and not Path(workspace.artifacts.root).is_relative_to(workspace.root):
        places.append(Path(workspace.artifacts.root))
    return Room(sum(map(size_of, places)), budget_of(workspace), shutil.disk_usage(workspace.root).free)


def budget_of(workspace: Workspace) -> int | None:
    """In bytes; None = none was set."""
    said = yaml.safe_load((workspace.root / "workspace.yaml").read_text("utf-8")).get(DISK_BUDGET)
    return None if said is None else int(said)


def set_budget(workspace: Workspace, n_bytes: int | None) -> None:
    """Give the workspace a budget, or take it off (None)."""
    file = workspace.root / "workspace.yaml"
    staged = file.with_name(f".{file.name}.{new_id()}.new")
    try:
        with workspace.write() as write:
            said = yaml.safe_load(file.read_text("utf-8"))
            said.pop(DISK_BUDGET, None)
            staged.touch(mode=0o600)
            with open(staged, "w", encoding="utf-8") as out:
                out.write(
                    yaml.safe_dump({**said, **({} if n_bytes is None else {DISK_BUDGET: n_bytes})}, sort_keys=False)
                )
                out.flush()
                os.fsync(out.fileno())
            staged.replace(file)
            write.audit("workspace.budget", workspace.root.name, {"n_bytes": n_bytes})
    finally:
        staged.unlink(missing_ok=True)


def require(workspace: Workspace, n_bytes: int, what: str) -> None:
    """Raise NoRoom where `n_bytes` more, as `what` is estimated to take, fit neither the budget nor the disk."""
    free, budget = shutil.disk_usage(workspace.root).free, budget_of(workspace)
    if free < n_bytes:
        raise NoRoom(
            f"{what} needs about {in_words(n_bytes)}, and {in_words(free)} are free where {workspace.root} lies",
            fix="make room on the disk; what of the workspace can go says: rlhf gc --dry-run",
        )
    if budget is None:
        return
    left = budget - room_of(workspace).used
    if left < n_bytes or left < 0:
        so_far = f"{in_words(left)} are left" if left >= 0 else f"{in_words(-left)} too much are used"
        raise NoRoom(
            f"{what} needs about {in_words(n_bytes)}, and of the workspace's budget of {in_words(budget)} {so_far}",
            fix="see what would go with: rlhf gc --to-budget --dry-run, or raise it with: rlhf gc --budget SIZE",
        )


def parsed(text: str) -> int | None:
    """Bytes of `20GiB`, `500 MB` or a plain number; None of `off`. Raises BadUsage."""
    if text.strip().lower() == "off":
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B|)\s*", text, re.IGNORECASE)
    if found is None or (n_bytes := math.floor(float(found[1]) * _UNITS[found[2].upper()])) < 1:
        raise BadUsage(
            f"'{text}' is no size", fix="write it as 20GiB, 500MB or a number of bytes; off takes the budget off"
        )
    return n_bytes


def in_words(n_bytes: float) -> str:
    """In the unit in which it is at least one."""
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{n_bytes:,.0f} bytes"
