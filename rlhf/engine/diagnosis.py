"""What this machine and this workspace can do, for `rlhf doctor`."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rlhf.engine.bases import list_bases
from rlhf.engine.placement import choose
from rlhf.errors import NotFound
from rlhf.store import Workspace, room
from rlhf.store.database import without_password

_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


def diagnose(workspace_dir: Path) -> dict[str, Any]:
    """Figures by name: processor and memory, placement with its reason, libraries, and the workspace if there is one."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    existing = next(
        folder for folder in (workspace_dir.absolute(), *workspace_dir.absolute().parents) if folder.exists()
    )
    figures: dict[str, Any] = {
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory_gib, 1),
        "disk_free_gib": round(shutil.disk_usage(existing).free / 2**30, 1),
        "placement": choose().why,
        **{name: version(name) for name in _LIBRARIES},
    }
    try:
        workspace = Workspace.open(workspace_dir)
    except NotFound as error:
        return {**figures, "workspace": error.message}
    bases = ", ".join(base.name for base in list_bases(workspace)) or "none"
    taken = room.room_of(workspace)
    return {
        **figures,
        "workspace": str(workspace.root),
        "disk_used_gib": round(taken.used / 2**30, 3),
        "disk_budget_gib": None if taken.budget is None else round(taken.budget / 2**30, 3),
        "database": workspace.database.engine.dialect.name,
        "artifacts": "folder" if workspace.artifacts.is_local else without_password(workspace.artifacts.url),
        "bases": bases,
    }
