"""Sweeping: what nothing names any more, or can be made again, goes; what was published never does.

| kind | what | why it may go |
|---|---|---|
| leftovers | half-written files and folders in cache/, bases/, runs/ that nobody touched for a day | killed processes left them |
| unpublished | folders under the artifact root without a row | a crash came before the commit that would have named them |
| checkpoints | of runs that are done | `--resume` refuses a done run; every other run keeps its own |
| states | kept states of frozen trunks above the bound, read longest ago | computed again when wanted |

Versions, snapshots and reports are immutable, retired ones too: whatever an alias, a rollout, a lease or a report names stays.
What goes beyond this to meet a disk budget stands in `thinning.py`.
Bases that no version was trained on are listed only.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from rlhf.errors import Conflict
from rlhf.ids import now
from rlhf.store import tables
from rlhf.store.cache import STATES, Cache
from rlhf.store.heavy import heavy
from rlhf.store.holding import holder_of
from rlhf.store.runs import LOCK_FILE, list_runs, state_now
from rlhf.store.walking import files_in, last_touched, size_of
from rlhf.store.workspace import Workspace

STATES_GIB = 8.0  # what trainings keep by default (`trunk_gib`)
_ABANDONED_S = 24 * 3600  # whoever stages writes all the time
# As writers name what is under way: a name, a dot and an id as `ids.new_id` makes it, and perhaps an ending.
_HALF = re.compile(r".+\.[0-9a-hjkmnp-tv-z]{26}(\.new|\.jsonl)?")


@dataclass(frozen=True, slots=True)
class Kind:
    """What of one kind was found. paths: relative to the workspace where they lie in it."""

    paths: tuple[str, ...]
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Swept:
    """What went, or would go. unused_bases: name -> bytes of those that no version was trained on; they stay."""

    is_dry: bool
    kinds: Mapping[str, Kind]
    unused_bases: Mapping[str, int]

    @property
    def n_bytes(self) -> int:
        return sum(kind.n_bytes for kind in self.kinds.values())

    def as_json(self) -> dict[str, Any]:
        kinds = {name: {"paths": list(kind.paths), "n_bytes": kind.n_bytes} for name, kind in self.kinds.items()}
        return {
            "dry_run": self.is_dry,
            "kinds": kinds,
            "n_bytes": self.n_bytes,
            "unused_bases": dict(self.unused_bases),
        }


def sweep(workspace: Workspace, *, dry_run: bool = False, states_gib: float = STATES_GIB) -> Swept:
    """Remove what the table above lists; dry_run: only say what would go. states_gib: the bound of the kept states.

    Raises Conflict while something is trained in the workspace.
    """
    if dry_run:
        return _go(workspace, states_gib, is_dry=True)
    with heavy(workspace, "gc", wait=False):
        require_no_run(workspace)
        swept = _go(workspace, states_gib, is_dry=False)
        with workspace.write() as write:
            write.audit("workspace.gc", workspace.root.name, {name: kind.n_bytes for name, kind in swept.kinds.items()})
    return swept


def require_no_run(workspace: Workspace) -> None:
    """Raises Conflict naming the run that is under way."""
    if busy := next((row for row in list_runs(workspace) if state_now(workspace, row) == "running"), None):
        raise Conflict(
            f"run {busy.id} ({busy.kind} {busy.name}) is under way", fix="wait for it, or look with --dry-run"
        )


def _go(workspace: Workspace, states_gib: float, *, is_dry: bool) -> Swept:
    remove: Callable[[Path], None] = (lambda _: None) if is_dry else _remove
    kinds = {
        "leftovers": _each(workspace, _leftovers(workspace), remove),
        "checkpoints": _each(workspace, _checkpoints(workspace), remove),
        "states": _each(workspace, Cache(workspace.root / STATES, round(states_gib * 2**30)).beyond(), remove),
    }
    with workspace.write() as write:  # who publishes renames and commits in one such block: none is half-way now
        kinds["unpublished"] = _each(workspace, _unpublished(workspace, write.connection), remove)
    return Swept(is_dry, kinds, _unused_bases(workspace))


def _each(workspace: Workspace, found: list[Path], remove: Callable[[Path], None]) -> Kind:
    n_bytes = 0
    for path in found:
        n_bytes += size_of(path)
        remove(path)
    root = workspace.root
    return Kind(tuple(str(p.relative_to(root) if p.is_relative_to(root) else p) for p in found), n_bytes)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_abandoned(path: Path) -> bool:
    last = last_touched(path)
    return last is not None and now().timestamp() - last > _ABANDONED_S


def _leftovers(workspace: Workspace) -> list[Path]:
    root = workspace.root
    return [path for path in _half_written(root) if _is_abandoned(path)]


def _half_written(root: Path) -> Iterator[Path]:
    """By the names that writers give to what is under way; notes of `cache/rewriting` are an erasure's and stay."""
    yield from sorted((root / "cache" / "staging").glob("*"))
    yield from sorted(path for path in (root / "cache").glob("tmp*") if path.is_dir())
    for folder in (root, root / "bases", root / "cache", root / "cache" / "replies"):
        yield from sorted(path for path in folder.glob("*") if _HALF.fullmatch(path.name))
    yield from (path for path in files_in(root / "runs") if path.suffix == ".new")


def _checkpoints(workspace: Workspace) -> list[Path]:
    """Of runs that are done. A folder that isn't the workspace's own is somebody else's to keep."""
    found = []
    for row in list_runs(workspace):
        folder = workspace.root / row.folder
        kept = folder / "checkpoints"
        is_ours = folder.is_relative_to(workspace.root / "runs") and not kept.is_symlink()
        if row.state == "done" and is_ours and kept.is_dir() and holder_of(folder / LOCK_FILE) is None:
            found.append(kept)
    return found


def _unpublished(workspace: Workspace, connection: Connection) -> list[Path]:
    """Folders under a local artifact root that lie beside published ones and hold nothing that has a row."""
    if not workspace.artifacts.is_local:
        return []
    root = Path(workspace.artifacts.root)
    recorded = {Path(name) for name in workspace.artifacts.recorded(connection, "")}
    inside = {path.parent for path in recorded}
    around = {folder for path in recorded for folder in path.parents}
    found = set()
    for file in files_in(root):
        path = file.relative_to(root)
        is_unknown = path.parent not in around and not inside & {*path.parents}
        if len(path.parts) > 2 and is_unknown:
            found.add(path.parent)
    tops = sorted(folder for folder in found if not found & {*folder.parents})
    return [root / folder for folder in tops if _is_abandoned(root / folder)]


def _unused_bases(workspace: Workspace) -> dict[str, int]:
    used = select(tables.versions.c.base_digest)
    query = select(tables.bases).where(tables.bases.c.digest.not_in(used)).order_by(tables.bases.c.name)
    with workspace.read() as connection:
        return {row.name: size_of(workspace.root / row.path) for row in connection.execute(query)}
