"""Checkpoints that count once they are whole, and while they are: a kill in the middle of one leaves a folder that looks like one,
and a damaged one would end every resume.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

WHOLE = "whole"  # in a checkpoint whose other files are all written: their digests, as JSON


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end and is as it was written; None where there is none."""
    marked = (mark.parent for mark in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{WHOLE}"))
    newest_first = sorted(marked, key=lambda path: int(path.name.rsplit("-", 1)[1]), reverse=True)
    return next((path for path in newest_first if _is_as_written(path)), None)


def mark_whole(checkpoint: Path) -> None:
    """Flush every file of a checkpoint to the disk, then leave the mark, itself whole or absent."""
    digests = {}
    staged = checkpoint / f"{WHOLE}.new"
    for file in sorted(checkpoint.rglob("*")):
        if file.is_file() and file not in (staged, checkpoint / WHOLE):  # of a step that was written before
            digests[file.relative_to(checkpoint).as_posix()] = _digest(file)
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
    staged.write_text(json.dumps(digests), "utf-8")
    staged.replace(checkpoint / WHOLE)


def _is_as_written(checkpoint: Path) -> bool:
    said = (checkpoint / WHOLE).read_bytes()
    try:
        digests = dict(json.loads(said)) if said else {}  # an earlier release left the mark empty
    except (ValueError, TypeError):
        return False  # the mark itself is damaged
    return all(
        (checkpoint / name).is_file() and _digest(checkpoint / name) == digest for name, digest in digests.items()
    )


def _digest(file: Path) -> str:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def whole_or_gone(output_dir: str, step: int) -> Iterator[Path]:
    """The folder of a step's checkpoint while it is written. Where that fails (a full disk), what there is of it goes, so that its
    room is free again.
    """
    folder = Path(output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
    try:
        yield folder
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise
