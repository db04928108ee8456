"""Checkpoints that count once they are whole: a kill in the middle of one leaves a folder that looks like one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

WHOLE = "whole"  # empty file in a checkpoint whose other files are all written


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; None where there is none."""
    whole = [mark.parent for mark in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{WHOLE}")]
    return max(whole, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def mark_whole(checkpoint: Path) -> None:
    """Flush every file of a checkpoint to the disk, then leave the mark."""
    for file in checkpoint.rglob("*"):
        if file.is_file():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
    (checkpoint / WHOLE).touch()


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
