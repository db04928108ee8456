"""Snapshots: a rule over the store becomes a frozen dataset with a digest.

Takes: a name and a rule (sources, kinds, holdout, seed), or a snapshot to mix another from. Gives: checked `Snapshot`s,
read as rows or as `datasets.Dataset`. Writes: Parquet shards, `manifest.json` and a datasheet under
`artifacts/snapshots/<name>/<number>/`, a row in `snapshots`, an audit entry. Never: changes what was cut, shuffles a
split, decides how judgements become training targets, imports torch.
"""

from rlhf.snapshots.checking import Finding, SnapshotCheck, check
from rlhf.snapshots.cutting import count_new, cut
from rlhf.snapshots.diffing import SnapshotDiff, diff
from rlhf.snapshots.exporting import Exported, export
from rlhf.snapshots.holding import Held, holding
from rlhf.snapshots.mixing import mix
from rlhf.snapshots.names import SnapshotEntry, list_snapshots
from rlhf.snapshots.opening import Snapshot, open_snapshot

__all__ = [
    "Exported",
    "Finding",
    "Held",
    "Snapshot",
    "SnapshotCheck",
    "SnapshotDiff",
    "SnapshotEntry",
    "check",
    "count_new",
    "cut",
    "diff",
    "export",
    "holding",
    "list_snapshots",
    "mix",
    "open_snapshot",
]
