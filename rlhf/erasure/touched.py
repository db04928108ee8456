"""What had learnt from the words: snapshots that hold them, versions that came of these, aliases that point at one, and runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlhf import registry, snapshots
from rlhf.registry.versions import aliases_in_force
from rlhf.snapshots import SnapshotEntry
from rlhf.snapshots.erasing import holds
from rlhf.store import Workspace, runs
from rlhf.store.runs import RunRow


@dataclass(frozen=True, slots=True)
class Touched:
    """By their names, oldest first. aliases: alias -> the version that it points at now."""

    snapshots: tuple[str, ...]
    versions: tuple[str, ...]
    aliases: dict[str, str]
    runs: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def touched(
    workspace: Workspace, pair_ids: Collection[str], labeler: tuple[str, str] | None
) -> tuple[Touched, list[SnapshotEntry], list[RunRow]]:
    """Also the entries of the snapshots and the rows of the runs. Reads every snapshot's ids once."""
    entries = [one for one in snapshots.list_snapshots(workspace) if holds(workspace, one, pair_ids, labeler)]
    learnt = {
        one.version.digest: one.version
        for entry in entries
        for one in registry.descendants(workspace, snapshot=entry.ref)
    }
    with workspace.read() as connection:
        pointing = aliases_in_force(connection)
    aliases = {alias: str(ref) for digest, ref in learnt.items() for alias in pointing.get(digest, ())}
    versions = sorted(learnt.values(), key=lambda ref: (ref.name, ref.number))
    learning = [run for run in runs.list_runs(workspace) if _learns(run, entries, [str(v) for v in versions])]
    said = Touched(
        tuple(entry.ref for entry in entries),
        tuple(map(str, versions)),
        dict(sorted(aliases.items())),
        tuple(run.id for run in learning),
    )
    return said, entries, learning


def _learns(run: RunRow, entries: Sequence[SnapshotEntry], versions: Sequence[str]) -> bool:
    """Its settings name one of the snapshots, or a version that learnt from one."""
    names = {name for entry in entries for name in (entry.ref, entry.name, f"{entry.name}@latest")}
    names |= {word for entry in entries for word in (entry.digest, f"sha256:{entry.digest}")} | set(versions)
    named = {str(run.settings.get(key)) for key in ("snapshot", "snapshot_digest", "reward", "from_version", "parent")}
    return bool(named & names)
