"""What of the material a version, or what it came from, was trained on: told, and where the material is held out, refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhf.errors import Conflict
from rlhf.evaluation.material import Material
from rlhf.records import VersionRef
from rlhf.store import Workspace
from rlhf.suites import Seen, TrainSide, seen_in, train_side

if TYPE_CHECKING:
    from rlhf.registry import Lineage

_NAMED = 10


class Overlap(Conflict):
    """A version was trained on rows of a held-out suite."""

    code = "overlap"

    def __init__(self, version: str, suite: str, n_rows: int, rows: Sequence[Seen]) -> None:
        named = ", ".join(map(str, rows[:_NAMED]))
        more = f" and {len(rows) - _NAMED:,} more" if len(rows) > _NAMED else ""
        super().__init__(
            f"{version} was trained on {len(rows):,} of the {n_rows:,} rows of suite {suite}: {named}{more}",
            fix="take these rows out of the suite and import it again, or declare it with --not-held-out: reports then say so",
        )
        self.version, self.rows = version, tuple(rows)

    def as_json(self) -> dict[str, Any]:
        listed = [
            {"pair": one.pair_id, "snapshot": one.snapshot, "same_pair": one.same_pair} for one in self.rows[:_NAMED]
        ]
        return {**super().as_json(), "version": self.version, "n_rows": len(self.rows), "rows": listed}


@dataclass(frozen=True, slots=True)
class Training:
    """trained_on: the snapshot behind the version itself; rows: of the material that it, or an ancestor, was trained on; None where
    a snapshot behind it isn't in this workspace, so that they can't be told."""

    trained_on: str | None
    trained_on_digest: str | None
    rows: tuple[Seen, ...] | None
    openings: int | None


def trainings(workspace: Workspace, refs: Sequence[VersionRef], data: Material) -> Mapping[str, Training]:
    """Of each version. Raises Overlap for the first that was trained on rows of material that must be unseen.

    A snapshot's splits are a hash of the opening turn, so its test side is unseen unless another seed or holdout was used.
    """
    from rlhf import registry

    sides: dict[str, TrainSide | None] = {}
    keys = [(pair.id, pair.group) for pair in data.pairs]
    groups = dict(keys)
    found = {}
    for ref in refs:
        line = registry.lineage(workspace, ref)
        for origin in line.snapshots:
            if origin.digest not in sides:
                sides[origin.digest] = train_side(workspace, origin.digest)
        known = [side for origin in line.snapshots if (side := sides[origin.digest]) is not None]
        seen = seen_in(keys, known)
        if seen and data.must_be_unseen:
            raise Overlap(str(ref), data.ref, len(keys), seen)
        is_known = bool(known) and len(known) == len(line.snapshots) and not line.absent
        own = registry.show(workspace, ref).manifest.get("snapshot_digest")
        side = sides.get(own or "")
        found[str(ref)] = Training(
            side.ref if side else None,
            own,
            tuple(seen) if is_known else None,
            len({groups[one.pair_id] for one in seen}) if is_known else None,
        )
    return found


def require_unseen(
    workspace: Workspace, version: str, line: Lineage, suite: str, rows: Sequence[tuple[str, str]]
) -> None:
    """Raises Overlap where a snapshot of the line has one of the rows (pair id, opening turn's digest) on its train side. One that
    isn't in this workspace can't be looked into: the report tells that."""
    sides = [side for origin in line.snapshots if (side := train_side(workspace, origin.digest)) is not None]
    if seen := seen_in(rows, sides):
        raise Overlap(version, suite, len(rows), seen)
