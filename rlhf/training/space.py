"""A full disk in the user's words: what was seen, how much is free, and how to go on once there is room.

The libraries that write for us say it in ways of their own: OSError with its number, safetensors' and torch's own errors with the
reason in their text or, from torch's C++ writer, with no reason at all.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf.engine.architecture import shape_of
from rlhf.errors import RlhfError
from rlhf.training.checkpoints import last_whole_checkpoint

_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WORDS = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "database or disk is full",
    "PytorchStreamWriter failed",  # torch.save: whatever the reason was
)


# Of each LoRA weight, float32: two checkpoints and the one that replaces the older, each with AdamW's two moments; the adapter that
# is published, and its staging.
_BYTES_A_WEIGHT = 3 * 12 + 2 * 4


class NoSpace(RlhfError):
    """A file couldn't be written for want of room."""

    code = "no_space"


def of_lora(base_config: Path, r: int, top_layers: int) -> int:
    """Bytes that the training of a LoRA on all linear maps writes. Kept states of a trunk come on top, up to `trunk_gib`: they give
    way."""
    return _BYTES_A_WEIGHT * shape_of(base_config).lora(r, top_layers)


def reason_of(error: BaseException) -> str | None:
    """Why it is a full disk, in the words of whoever met it; None where it is something else."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _NUMBERS:
            return f"{seen.strerror}{f' ({seen.filename})' if seen.filename else ''}"
        if any(words in str(seen) for words in _WORDS):
            return str(seen).splitlines()[0]
        seen = seen.__cause__ or seen.__context__
    return None


@contextmanager
def room_for(run_folder: Path) -> Iterator[None]:
    """Raise NoSpace where the block meets a full disk. run_folder: whose checkpoints say where `--resume` goes on."""
    try:
        yield
    except Exception as error:
        if isinstance(error, NoSpace) or (reason := reason_of(error)) is None:
            raise
        free = shutil.disk_usage(run_folder).free / 2**20
        kept = last_whole_checkpoint(run_folder / "checkpoints")
        where = f"from {kept.name}" if kept else "from the start, for no checkpoint was whole"
        raise NoSpace(
            f"the disk is full: {reason}; {free:,.1f} MiB are free where {run_folder} lies, and nothing half-written is left",
            fix=f"make room, then the same command with --resume goes on {where}",
        ) from error
