"""Walking through folders that others write to: what goes on the way was there no more, and is no error.

`Path.rglob` of Python 3.11 and 3.12 raises where a folder goes between its name and its content, as a checkpoint does that a
newer one replaces.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_in(folder: Path) -> Iterator[Path]:
    """Plain files below a folder in order of their paths, links left out; nothing where there is no folder."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(place) / name
            if path.is_file() and not path.is_symlink():
                yield path


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(known.st_size for file in (path, *files_in(path)) if (known := _known(file)) and not file.is_dir())


def last_touched(path: Path) -> float | None:
    """When a file, or anything in a folder, was last written, in seconds since the epoch; None where it is gone."""
    entries = [path, *(Path(place) / name for place, *inner in os.walk(path) for names in inner for name in names)]
    return max((known.st_mtime for entry in entries if (known := _known(entry))), default=None)


def _known(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
