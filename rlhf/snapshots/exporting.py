"""Exporting a snapshot as TRL preference rows, one for each judgement that decides, and the others in a file beside it.

`hh.jsonl` gets prompt, chosen and rejected (messages), split, labeler, source, kind, strength, cohort and consent;
ties, both_bad and skips go to `hh.undecided.jsonl`. Names and layout are those of `rlhf feedback export`, with the
side added.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhf.feedback import preference_files
from rlhf.snapshots.opening import open_snapshot
from rlhf.store import Workspace

COLUMNS = ("split", "labeler", "source", "kind", "strength", "cohort", "consent")


@dataclass(frozen=True, slots=True)
class Exported:
    """Files and counts: rows + undecided = the snapshot's judgements."""

    snapshot: str
    file: str
    rows: int
    undecided_file: str
    undecided: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def export(workspace: Workspace, ref: str, path: str | Path) -> Exported:
    """Write the snapshot to `path` (.jsonl, .csv, .parquet; .gz may follow the first two), streamed and verified.

    Raises BadUsage on another ending, BadInput where the file can't be written, and what `open_snapshot` raises.
    """
    snapshot = open_snapshot(workspace, ref)
    with preference_files(path, COLUMNS) as out:
        for row in snapshot.rows():
            for judgement in row.judgements:
                out.add(row.pair, judgement, split=row.split)
    rows = out.n_rows["a"] + out.n_rows["b"]
    undecided = out.n_rows.total() - rows
    with workspace.write() as write:  # data leaves the workspace: that is worth an entry
        write.audit("snapshot.export", snapshot.ref, {"file": out.file.name, "rows": rows, "undecided": undecided})
    return Exported(snapshot.ref, str(out.file), rows, str(out.undecided_file), undecided)
