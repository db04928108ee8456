"""Exporting: judgements as TRL rows, one row each, and what TRL rows can't say in a file beside it.

`pairs.jsonl` gets prompt, chosen, rejected (messages), labeler, source, kind and what else is known; ties, both_bad,
skips and pairs that nobody judged go to `pairs.undecided.jsonl`. Both files import again to the same pairs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhf.errors import NotFound
from rlhf.feedback.preference_files import preference_files
from rlhf.feedback.reading import read_pairs
from rlhf.people import took_back, withdrawn
from rlhf.store import Workspace

_COLUMNS = ("labeler", "source", "kind", "strength", "seconds", "shown", "cohort", "submitted_at", "note", "consent")


def export(workspace: Workspace, path: str | Path, *, source: str | None = None) -> dict[str, Any]:
    """Write the judgements in force to `path` (.jsonl, .csv, also .gz; .parquet) and what is undecided beside it.

    Without the answers of who took their consent back: a pair that has no other is one that nobody judged. Returns counts: decided,
    tie, both_bad, skip, unjudged, withdrawn, pairs, and the two files' names. Raises BadUsage on
    another ending, NotFound where there is nothing to export, BadInput where the file can't be written.
    """
    n_pairs = n_withdrawn = 0
    with preference_files(path, _COLUMNS) as out, workspace.read() as connection:
        gone = withdrawn(connection)
        for pair, said, names in read_pairs(connection, sources=(source,) if source is not None else ()):
            judgements = [judgement for judgement in said if not took_back(judgement, gone)]
            n_pairs, n_withdrawn = n_pairs + 1, n_withdrawn + len(said) - len(judgements)
            for judgement in judgements:
                out.add(pair, judgement)
            if not judgements:
                out.add_unjudged(pair, source=names[0] if names else None)
        if not n_pairs:
            raise NotFound(
                "there are no pairs to export" + (f" from a source '{source}'" if source else ""),
                fix="see: rlhf feedback list",
            )
    counts = {
        "decided": out.n_rows["a"] + out.n_rows["b"],
        **{choice: out.n_rows[choice] for choice in ("tie", "both_bad", "skip", "unjudged")},
        "withdrawn": n_withdrawn,
        "pairs": n_pairs,
    }
    with workspace.write() as write:  # data left the workspace: that is worth a line
        write.audit("feedback.export", out.file.name, {"source": source, **counts})
    return {**counts, "file": str(out.file), "undecided_file": str(out.undecided_file)}
