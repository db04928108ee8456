"""Down to the budget: beyond what a sweep removes, what the workspace can do without goes, the cheapest loss first.

| kind | what | order |
|---|---|---|
| caches | kept states of frozen trunks, replies kept for a comparison | read or written longest ago first |
| retired | the files of retired versions that nothing names | retired longest ago first |

It stops as soon as the budget is met. A retired version keeps its row, its manifest and its place in every lineage; only its files
go, and whoever opens it is told. It stays whole where an alias ever pointed at it, a rollout, a sign-off, a report or a decision
names it, another version has it as its parent, or it was served within the last day, whose requests may hold it still.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, or_, select

from rlhf.errors import BadUsage
from rlhf.ids import now
from rlhf.store import room, tables
from rlhf.store.cache import STATES, Cache
from rlhf.store.heavy import heavy
from rlhf.store.sweeping import STATES_GIB, Kind, Swept, require_no_run, sweep
from rlhf.store.walking import files_in, size_of
from rlhf.store.workspace import Workspace

_SERVED = timedelta(days=1)


def thin(workspace: Workspace, *, dry_run: bool = False, states_gib: float = STATES_GIB) -> Swept:
    """Sweep, and then remove what the table above lists until the budget is met; dry_run: only say what would go.

    Raises BadUsage where no budget was set, Conflict while something is trained in the workspace.
    """
    budget = room.budget_of(workspace)
    if budget is None:
        raise BadUsage("the workspace has no disk budget", fix="set one with: rlhf gc --budget 20GiB")
    if dry_run:
        return _thinned(workspace, sweep(workspace, dry_run=True, states_gib=states_gib), budget, is_dry=True)
    with heavy(workspace, "gc", wait=False):
        require_no_run(workspace)
        return _thinned(workspace, sweep(workspace, states_gib=states_gib), budget, is_dry=False)


def _thinned(workspace: Workspace, swept: Swept, budget: int, *, is_dry: bool) -> Swept:
    over = room.room_of(workspace).used - budget - (swept.n_bytes if is_dry else 0)
    gone = {workspace.root / path for kind in swept.kinds.values() for path in kind.paths}
    caches, over = _first([file for file in _cached(workspace) if file not in gone], over)
    if not is_dry:
        for file in caches:
            file.unlink(missing_ok=True)
    root = workspace.root
    kinds = {
        **swept.kinds,
        "caches": Kind(tuple(str(f.relative_to(root)) for f, _ in caches.items()), sum(caches.values())),
    }
    kinds["retired"] = _retired(workspace, over, is_dry=is_dry)
    if not is_dry:
        with workspace.write() as write:
            write.audit("workspace.thin", root.name, {name: kinds[name].n_bytes for name in ("caches", "retired")})
    return Swept(is_dry, kinds, swept.unused_bases)


def _first(found: list[Path], over: int) -> tuple[dict[Path, int], int]:
    """As many of these as it takes, with their bytes, and what is still over."""
    chosen: dict[Path, int] = {}
    for file in found:
        if over <= 0:
            break
        chosen[file] = size_of(file)
        over -= chosen[file]
    return chosen, over


def _cached(workspace: Workspace) -> list[Path]:
    """Files that are made again when they are wanted, those that were touched longest ago first."""
    states = Cache(workspace.root / STATES, 0).beyond()
    return states + sorted(files_in(workspace.root / "cache" / "replies"), key=lambda file: file.stat().st_mtime)


def _retired(workspace: Workspace, over: int, *, is_dry: bool) -> Kind:
    paths, n_bytes = [], 0
    with workspace.write() as write:
        for row in _unnamed(workspace, write.connection):
            if over <= n_bytes:
                break
            recorded = workspace.artifacts.recorded(write.connection, row.path)
            if not recorded:
                continue  # they went before
            paths.append(f"{row.name}@{row.number}: {row.path}")
            n_bytes += sum(size for _, size in recorded.values())
            if not is_dry:
                write.connection.execute(delete(tables.files).where(tables.files.c.path.in_(recorded)))
                write.audit("version.files_removed", f"{row.name}@{row.number}", {"digest": row.digest})
        left = [workspace.artifacts.local(path.partition(": ")[2]) for path in paths]
    if not is_dry:
        for folder in (
            left
        ):  # after the commit: a folder without a row is what a sweep removes, a row without its folder is damage
            shutil.rmtree(folder, ignore_errors=True)
    return Kind(tuple(paths), n_bytes)


def _unnamed(workspace: Workspace, connection: Connection) -> Iterator[Row[Any]]:
    """Retired versions that nothing names, on a local disk: a bucket has no budget of ours."""
    if not workspace.artifacts.is_local:
        return
    v, moves, signoffs = tables.versions.c, tables.alias_moves.c, tables.signoffs.c
    since = (now() - _SERVED).isoformat(timespec="microseconds")
    named = or_(
        exists().where(or_(moves.to_digest == v.digest, moves.from_digest == v.digest)),
        exists().where(signoffs.version_digest == v.digest),
        exists().where(tables.version_parents.c.parent == v.digest),
        exists().where(tables.exposures.c.digest == v.digest, tables.exposures.c.at >= since),
    )
    query = select(tables.versions).where(v.retired_at.is_not(None), ~named).order_by(v.retired_at, v.digest)
    said = _texts(workspace, connection)
    for row in connection.execute(query).all():
        if not any(row.digest in text or f'"{row.name}@{row.number}"' in text for text in said):
            yield row


def _texts(workspace: Workspace, connection: Connection) -> list[str]:
    """What rollouts, reports and decisions say, in which a version stands by its digest or its name."""
    rollouts = list(connection.execute(select(tables.rollouts.c.spec)).scalars())
    states = list(connection.execute(select(tables.rollout_events.c.state)).scalars())
    reports = connection.execute(select(tables.reports.c.path, tables.reports.c.figures)).all()
    files = [
        file for row in reports for file in files_in(workspace.artifacts.local(row.path)) if file.suffix == ".json"
    ]
    return [*rollouts, *states, *(row.figures for row in reports), *(file.read_text("utf-8") for file in files)]
