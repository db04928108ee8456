"""Published folders over fsspec: a local folder by default, S3 by URL.

A folder is staged, published whole under a name that was free, and from then on checked against the checksums in the
database whenever it is opened. On a local disk publishing is one rename; on S3 the files go up first and the database row,
which makes them visible, comes last.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from sqlalchemy import Connection, select

from rlhf.errors import Conflict, Damaged, NotFound
from rlhf.ids import digest_file, new_id
from rlhf.store.tables import files


class Artifacts:
    """The artifact root of a workspace. Paths are relative, with `/`, such as `versions/hh/7`."""

    def __init__(self, url: str, cache: Path) -> None:
        self.url = url.rstrip("/")
        self.cache = cache
        self.fs: Any
        self.fs, self.root = fsspec.core.url_to_fs(self.url)
        self.is_local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty folder beside the artifacts (same disk), removed at the end whatever happens."""
        folder = self.cache / "staging" / new_id()
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, connection: Connection, staged: Path, path: str) -> None:
        """Make the staged folder appear at `path` and record its checksums in the caller's transaction.

        Raises Conflict where `path` is taken by a recorded artifact; what an earlier crash left there unrecorded is replaced.
        """
        if connection.execute(select(files.c.path).where(files.c.path.startswith(path + "/", autoescape=True)).limit(1)).first():
            raise Conflict(f"{path} is published already", fix="published things never change: publish a new version")
        rows = [{"path": f"{path}/{f.relative_to(staged).as_posix()}", "sha256": digest_file(f), "n_bytes": f.stat().st_size}
                for f in sorted(staged.rglob("*")) if f.is_file()]
        if self.is_local:
            target = Path(self.root) / path
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            _flush(staged)
            staged.rename(target)
        else:
            self.fs.put(str(staged) + "/", f"{self.root}/{path}/", recursive=True)
        connection.execute(files.insert(), rows)

    def open(self, connection: Connection, path: str) -> Path:
        """The folder at `path` on the local disk, each byte checked. Raises NotFound or Damaged naming the file."""
        recorded = self.recorded(connection, path)
        if not recorded:
            raise NotFound(f"nothing is published at {path}", fix="check the name with the room's list command")
        folder = Path(self.root) / path if self.is_local else self._fetched(path)
        problems = self.problems(folder, path, recorded)
        if problems:
            raise Damaged("; ".join(problems), fix="restore the file from a backup; until then this artifact is not used")
        return folder

    def recorded(self, connection: Connection, path: str) -> dict[str, tuple[str, int]]:
        """Checksum and size of each file published under `path` ('' = all)."""
        query = select(files)
        if path:
            query = query.where(files.c.path.startswith(path + "/", autoescape=True))
        return {row.path: (row.sha256, row.n_bytes) for row in connection.execute(query)}

    def problems(self, folder: Path, path: str, recorded: dict[str, tuple[str, int]]) -> list[str]:
        """What differs between the folder and the record: changed, missing and added files, each named."""
        found = {f"{path}/{f.relative_to(folder).as_posix()}" if path else f.relative_to(folder).as_posix(): f
                 for f in folder.rglob("*") if f.is_file()}
        said = [f"{name} is missing" for name in sorted(recorded.keys() - found.keys())]
        said += [f"{name} was never published" for name in sorted(found.keys() - recorded.keys())]
        for name in sorted(found.keys() & recorded.keys()):
            sha256, n_bytes = recorded[name]
            if found[name].stat().st_size != n_bytes or digest_file(found[name]) != sha256:
                said.append(f"{name} was changed after it was published")
        return said

    def verify_all(self, connection: Connection) -> tuple[int, list[str]]:
        """Check every file under the artifact root; returns the number of files and what is wrong, each file named."""
        recorded = self.recorded(connection, "")
        root = Path(self.root) if self.is_local else self._fetched("")
        return len(recorded), (self.problems(root, "", recorded) if root.exists() or recorded else [])

    def _fetched(self, path: str) -> Path:
        target = self.cache / "artifacts" / path if path else self.cache / "artifacts"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        source = f"{self.root}/{path}".rstrip("/")
        for name in self.fs.find(source):
            local = target / name[len(source):].lstrip("/")
            local.parent.mkdir(parents=True, exist_ok=True)
            self.fs.get(name, str(local))
        return target


def _flush(folder: Path) -> None:
    """fsync every file: a published folder must survive a power cut as its database row does."""
    import os

    for file in folder.rglob("*"):
        if file.is_file():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
