"""Which pairs of a train side a training leaves for calibration: a hash of the opening turn, like the split.

No training sees a group whose number lies below its `set_aside`, whatever the snapshot, its seed or the training's own: so two
versions with the same setting leave the same pairs, a larger share holds every pair of a smaller one, and a later cut moves none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf import registry, snapshots
from rlhf.errors import BadInput, NotFound
from rlhf.ids import unit_interval
from rlhf.records import SnapshotRow, VersionRef
from rlhf.store import Workspace

_SEED, _PURPOSE = 0, "set aside for calibration"


def is_aside(group: str, share: float) -> bool:
    """Whether a train-side group is left out of training. group: `Pair.group`. share: `set_aside`, 0 = none.

    The purpose is hashed with the group: under the split's own number, whose low end is the test side, a share below the holdout
    would leave nothing.
    """
    return unit_interval(_SEED, f"{_PURPOSE}\x00{group}") < share


@dataclass(frozen=True, slots=True)
class Aside:
    """Rows that neither a version nor anything that it came from was trained on. share: what the version set aside.

    train: of the snapshot's train side, those set aside. n_seen: set aside, but an ancestor was trained on their opening turn.
    test: of the test side; None where it can't be told what was trained on (`test_why`); n_test_seen: left out of it.
    """

    share: float
    train: tuple[SnapshotRow, ...]
    n_seen: int
    test: tuple[SnapshotRow, ...] | None
    n_test_seen: int = 0
    test_why: str = ""


def left_aside(workspace: Workspace, version: VersionRef, snapshot: snapshots.Snapshot) -> Aside:
    """What a version can be calibrated on and measured on.

    Raises BadInput where it set nothing aside, or where an ancestor that set less aside was trained on a snapshot that isn't here.
    """
    line = _line(workspace, version)
    own = line[1:] if line[0]["kind"] == "ensemble" else line[:1]  # an ensemble was trained on nothing itself
    share = min(_share(manifest) for manifest in own)
    if share <= 0:
        raise BadInput(
            f"{version} set no pairs aside: it was trained on every pair that it could be calibrated on",
            fix="train one with set_aside=0.1, and calibrate that",
        )
    learners = [manifest for manifest in line if manifest["kind"] != "ensemble"]
    seen = _seen(workspace, [m for m in learners if _share(m) < share])
    train = [row for row in snapshot.rows("train") if is_aside(row.pair.group, share)]
    kept = tuple(row for row in train if row.pair.group not in seen)
    try:
        others = _seen(workspace, [m for m in learners if m["snapshot_digest"] != snapshot.digest])
    except BadInput as unknown:
        return Aside(share, kept, len(train) - len(kept), None, test_why=unknown.message)
    test = list(snapshot.rows("test"))
    unseen = tuple(row for row in test if row.pair.group not in others)
    return Aside(share, kept, len(train) - len(kept), unseen, len(test) - len(unseen))


def _line(workspace: Workspace, version: VersionRef) -> list[Mapping[str, Any]]:
    """Manifests of the version and of all that it came from: what it went on from, members, what it calibrates."""
    found = registry.lineage(workspace, version)
    if found.absent:
        relation, digest, of = found.absent[0]
        raise BadInput(
            f"{of} came of the version sha256:{digest[:12]} ({relation}), which is not in this workspace: what that was trained on "
            "can't be told",
            fix="import it too: rlhf adapter import DIR",
        )
    refs = dict.fromkeys((version, *(one.version for one in found.ancestors)))
    return [registry.show(workspace, ref).manifest for ref in refs]


def _share(manifest: Mapping[str, Any]) -> float:
    """What a version left out of its training; those from before the setting, and stock folders, left nothing."""
    return float(manifest["settings"].get("set_aside", 0.0))


def _seen(workspace: Workspace, manifests: Sequence[Mapping[str, Any]]) -> set[str]:
    """Opening turns that these versions were trained on."""
    groups: set[str] = set()
    for digest, share in {(m["snapshot_digest"], _share(m)) for m in manifests}:
        try:
            trained = snapshots.open_snapshot(workspace, f"sha256:{digest}") if digest else None
        except NotFound:
            trained = None
        if trained is None:
            names = [m["version"] for m in manifests if m["snapshot_digest"] == digest]
            raise BadInput(
                f"the snapshot that {', '.join(names)} was trained on is not in this workspace: a pair that it learnt from can't "
                "be told from another",
                fix="train without --from, and calibrate that",
            )
        groups |= {row.pair.group for row in trained.rows("train") if not is_aside(row.pair.group, share)}
    return groups
