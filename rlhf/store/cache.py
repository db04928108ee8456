"""A bounded cache of bytes on disk: what can be computed again, kept because that is slow.

An entry belongs to an owner (a pair, say), so that erasing the owner reaches it. It is a checksum and its bytes, written
beside and renamed, so that a reader sees all of it or nothing, also while another run writes the same one. A damaged entry
is no entry: it is removed and counts as missing. Above `max_bytes` the entries that were read longest ago go first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from rlhf.ids import new_id, now

STATES = Path("cache") / "states"  # of a frozen trunk, by pair; in the workspace
_FREED = 0.9  # of the bound, so that not every entry that comes in pushes one out
_MARK = 32  # bytes of SHA-256 before the content
_NEW = ".new"
_LEFT_BEHIND_S = 3600
_COUNT_EVERY = 500  # entries: what several runs may pass the bound by


class Cache:
    """Bytes by owner and key in a folder. owner, key: hex digests, or other plain file names of two or more characters."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._held, self._n_put = 0, 0
        self._count()

    def get(self, owner: str, key: str) -> bytes | None:
        """The entry's content, or None where there is none or it is damaged."""
        file = self._file(owner, key)
        try:
            raw = file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        content = raw[_MARK:]
        if hashlib.sha256(content).digest() != raw[:_MARK]:
            file.unlink(missing_ok=True)
            return None
        with contextlib.suppress(FileNotFoundError):
            os.utime(file)  # the time of the last reading
        return content

    def put(self, owner: str, key: str, content: bytes) -> None:
        """Keep an entry; what is there already under this name is replaced. Raises OSError where the disk is full."""
        file = self._file(owner, key)
        size = _MARK + len(content)
        if size > self.max_bytes:
            return
        self._n_put += 1
        if self._n_put % _COUNT_EVERY == 0:
            self._count()  # other runs write here too
        if self._held + size > self.max_bytes:
            self._evict(size)
        fresh = file.with_name(f"{key}.{new_id()}{_NEW}")
        try:
            fresh.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(hashlib.sha256(content).digest() + content)
            fresh.replace(file)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        self._held += size

    def forget(self, owners: Iterable[str]) -> int:
        """Remove everything that belongs to these owners. Gives how many of them had something here."""
        found = [folder for folder in (self._file(owner, "x").parent for owner in owners) if folder.is_dir()]
        for folder in found:
            shutil.rmtree(folder)
        return len(found)

    def beyond(self) -> list[Path]:
        """The entries above the bound, those that were read longest ago: what goes first."""
        held, found = self._held, []
        for _, size, file in sorted(self._entries()):
            if held <= self.max_bytes:
                break
            found.append(file)
            held -= size
        return found

    def _file(self, owner: str, key: str) -> Path:
        return self.folder / owner[:2] / owner / key

    def _entries(self) -> list[tuple[float, int, Path]]:
        """(last read, size in bytes, file) of all entries; a file that goes meanwhile is passed over.

        One that another run is writing is none yet, unless it lies there for an hour: then its run was killed.
        """
        found, late = [], now().timestamp() - _LEFT_BEHIND_S
        for file in self.folder.glob("*/*/*"):
            with contextlib.suppress(FileNotFoundError):
                known = file.stat()
                if file.suffix != _NEW or known.st_mtime < late:
                    found.append((known.st_mtime, known.st_size, file))
        return found

    def _count(self) -> None:
        self._held = sum(size for _, size, _ in self._entries())

    def _evict(self, wanted: int) -> None:
        """Make room for `wanted` bytes. Counts anew first: other runs write and remove here too."""
        entries = sorted(self._entries())
        self._held = sum(size for _, size, _ in entries)
        for _, size, file in entries:
            if self._held + wanted <= _FREED * self.max_bytes:
                break
            file.unlink(missing_ok=True)
            self._held -= size
