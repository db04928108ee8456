"""Making: what a new workspace may be told, and that a failed one leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlhf.errors import BadUsage


def check_database(root: Path, setting: str) -> None:
    """A file name inside the workspace, or PostgreSQL. Raises BadUsage: elsewhere the folder wouldn't be the workspace."""
    if "://" in setting:
        if not setting.startswith(("postgresql://", "postgresql+psycopg://")):
            raise BadUsage(
                f"the database '{setting.partition('://')[0]}://…' is neither a SQLite file name nor a postgresql:// URL",
                fix="give --database a SQLite file name or a postgresql:// URL, or leave it out",
            )
        return
    place = (root / setting).resolve()
    if not setting or root.resolve() not in place.parents:
        raise BadUsage(
            f"the database '{setting}' is no file inside the workspace {root}",
            fix="give --database a SQLite file name such as rlhf.db or a postgresql:// URL, or leave it out",
        )


def database_files(root: Path, setting: str) -> list[Path]:
    """The files that SQLite makes; none for PostgreSQL."""
    return [] if "://" in setting else [root / f"{setting}{ending}" for ending in ("", "-wal", "-shm")]


@contextmanager
def undone_on_failure(paths: Iterable[Path]) -> Iterator[None]:
    """What the block made of these and of the folders above them goes again when it fails; what was there stays."""
    places = {place for path in paths for place in (path, *path.parents)}
    absent = sorted((place for place in places if not place.exists()), key=lambda place: -len(place.parts))
    try:
        yield
    except BaseException:
        for place in absent:
            with suppress(OSError):  # a folder in which somebody else put something meanwhile stays
                if place.is_dir():
                    place.rmdir()
                else:
                    place.unlink(missing_ok=True)
        raise


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """One maker at a time: the second must not take back what the first is making. Ends with the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
