"""Published folders over fsspec: a local folder by default, S3 by URL.

A folder is staged, published whole under a name that was free, and from then on checked against the checksums in the
database whenever it is opened. On a local disk publishing is one rename; on S3 the files go up first and the database row,
which makes them visible, comes last.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from sqlalchemy import Connection, select

from rlhf.errors import BadInput, Conflict, Damaged, NotFound
from rlhf.ids import digest_file, new_id, now
from rlhf.store.database import Database
from rlhf.store.tables import files


class Artifacts:
    """The artifact root of a workspace. Paths are relative, with `/`, such as `versions/hh/7`."""

    def __init__(self, url: str, cache: Path) -> None:
        self.url = url.rstrip("/")
        self.cache = cache
        self.fs: Any
        self.fs, self.root = fsspec.core.url_to_fs(self.url)
        self.is_local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    def check_reachable(self) -> None:
        """Write a small object under a remote root and remove it. Raises BadInput where that fails; local roots pass."""
        if self.is_local:
            return
        probe = f"{self.root}/.reachable-{new_id()}"
        try:
            self.fs.pipe_file(probe, b"x")
            self.fs.rm_file(probe)
        except Exception as error:  # the store's client has many of its own
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            raise BadInput(
                f"the artifacts at {self.url} can't be written: {reason}",
                fix="check the URL, that the bucket exists, the network and the credentials (AWS_…)",
            ) from None

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty folder beside the artifacts (same disk), removed at the end whatever happens.

        What killed processes left there longer than a day ago goes now.
        """
        _sweep(self.cache / "staging")
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
        if connection.execute(
            select(files.c.path).where(files.c.path.startswith(path + "/", autoescape=True)).limit(1)
        ).first():
            raise Conflict(f"{path} is published already", fix="published things never change: publish a new version")
        rows = [
            {
                "path": f"{path}/{f.relative_to(staged).as_posix()}",
                "sha256": digest_file(f),
                "n_bytes": f.stat().st_size,
            }
            for f in sorted(staged.rglob("*"))
            if f.is_file()
        ]
        if self.is_local:
            target = Path(self.root) / path
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            flush(staged)
            staged.rename(target)
            flush_entry(target.parent)
        else:
            if self.fs.exists(f"{self.root}/{path}"):
                self.fs.rm(f"{self.root}/{path}", recursive=True)
            self.fs.put(str(staged) + "/", f"{self.root}/{path}/", recursive=True)
        connection.execute(files.insert(), rows)

    def rewrite(self, database: Database, path: str, content: Path) -> None:
        """Put `content` in the place of one published file, whose old words have to go, and record its new checksum.

        For erasure alone: nothing else changes what was published. A note of the new checksum goes first, so that a crash between
        the file and its record is made good by `settle_rewrites`. Raises NotFound where nothing is published at `path`.
        """
        sha256, n_bytes = digest_file(content), content.stat().st_size
        note = self.cache / "rewriting" / f"{sha256}.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"path": path, "sha256": sha256, "n_bytes": n_bytes}), "utf-8")
        with database.write() as connection:
            if path not in self.recorded(connection, path.rpartition("/")[0]):
                raise NotFound(f"nothing is published at {path}", fix="check the name with the room's list command")
            if self.is_local:
                os.replace(content, Path(self.root) / path)
            else:
                self.fs.put_file(str(content), f"{self.root}/{path}")
                (self.cache / "artifacts" / path).unlink(missing_ok=True)
            connection.execute(files.update().values(sha256=sha256, n_bytes=n_bytes).where(files.c.path == path))
        note.unlink()

    def settle_rewrites(self, database: Database) -> None:
        """Record the checksums of rewritten files whose process was killed before it could."""
        for note in sorted((self.cache / "rewriting").glob("*.json")):
            said = json.loads(note.read_text("utf-8"))
            content: bytes = self.fs.cat_file(f"{self.root}/{said['path']}")
            if hashlib.sha256(content).hexdigest() == said["sha256"]:
                with database.write() as connection:
                    connection.execute(
                        files.update()
                        .values(sha256=said["sha256"], n_bytes=said["n_bytes"])
                        .where(files.c.path == said["path"])
                    )
            note.unlink()

    def local(self, path: str) -> Path:
        """Where a published folder lies on this disk, unchecked; a remote one as it was last fetched."""
        return Path(self.root) / path if self.is_local else self.cache / "artifacts" / path

    def open(self, connection: Connection, path: str) -> Path:
        """The folder at `path` on the local disk, each byte checked. Raises NotFound or Damaged naming the file."""
        recorded = self.recorded(connection, path)
        if not recorded:
            raise NotFound(f"nothing is published at {path}", fix="check the name with the room's list command")
        folder = Path(self.root) / path if self.is_local else self.cache / "artifacts" / path
        problems = self.problems(folder, path, recorded)
        if problems and not self.is_local:  # not fetched yet, or the copy was changed
            problems = self._fetch(path, folder, recorded)
        if problems:
            raise Damaged(
                "; ".join(problems), fix="restore the file from a backup; until then this artifact is not used"
            )
        return folder

    def read_file(self, connection: Connection, path: str) -> bytes:
        """One published file, checked. Raises NotFound or Damaged naming it."""
        sha256 = connection.execute(select(files.c.sha256).where(files.c.path == path)).scalar()
        if sha256 is None:
            raise NotFound(f"nothing is published at {path}", fix="check the name with the room's list command")
        try:
            content: bytes = self.fs.cat_file(f"{self.root}/{path}")
        except FileNotFoundError:
            raise Damaged(f"{path} is missing", fix="restore the file from a backup") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise Damaged(f"{path} was changed after it was published", fix="restore the file from a backup")
        return content

    def recorded(self, connection: Connection, path: str) -> dict[str, tuple[str, int]]:
        """Checksum and size of each file published under `path` ('' = all)."""
        query = select(files)
        if path:
            query = query.where(files.c.path.startswith(path + "/", autoescape=True))
        return {row.path: (row.sha256, row.n_bytes) for row in connection.execute(query)}

    def problems(self, folder: Path, path: str, recorded: dict[str, tuple[str, int]]) -> list[str]:
        """What differs between the folder and the record: changed, missing and added files, each named."""
        found = {
            f"{path}/{f.relative_to(folder).as_posix()}" if path else f.relative_to(folder).as_posix(): f
            for f in folder.rglob("*")
            if f.is_file()
        }
        said = [f"{name} is missing" for name in sorted(recorded.keys() - found.keys())]
        said += [f"{name}{_NEVER}" for name in sorted(found.keys() - recorded.keys())]
        for name in sorted(found.keys() & recorded.keys()):
            sha256, n_bytes = recorded[name]
            try:
                if found[name].stat().st_size != n_bytes or digest_file(found[name]) != sha256:
                    said.append(f"{name} was changed after it was published")
            except FileNotFoundError:  # a damaged copy that another process puts aside meanwhile
                said.append(f"{name} is missing")
        return said

    def verify_all(self, connection: Connection) -> tuple[int, list[str], list[str]]:
        """Check every file under the artifact root: number of files, what is wrong (each file named), and leftovers.

        A leftover is a folder that a crash left before its rows were committed. Nothing refers to it, and the next
        publication under that name replaces it.
        """
        recorded = self.recorded(connection, "")
        with self.staging() as scratch:
            root = Path(self.root) if self.is_local else scratch / "all"
            if not self.is_local:
                self._copy("", root)
            problems = self.problems(root, "", recorded) if root.exists() or recorded else []
        inside = {Path(name).parent for name in recorded}
        around = {folder for name in recorded for folder in Path(name).parents}
        left = {}
        for problem in problems:
            path = Path(problem.removesuffix(_NEVER))
            unknown = path.parent not in around and not inside & set(path.parents)
            if problem.endswith(_NEVER) and len(path.parts) > 2 and unknown:
                left[problem] = path.parent.as_posix()
        return len(recorded), [one for one in problems if one not in left], sorted(set(left.values()))

    def _fetch(self, path: str, folder: Path, recorded: dict[str, tuple[str, int]]) -> list[str]:
        """Fetch a fresh copy and, where nothing is wrong with it, put it in the place of `folder`; says what is wrong.

        Others may fetch the same artifact at once, and read what the first of them put there: under a lock we look again
        before we touch the place, and a sound copy is never taken away.
        """
        with self.staging() as staged:
            fresh = staged / "fresh"
            self._copy(path, fresh)
            problems = self.problems(fresh, path, recorded)
            with self._place_lock():
                if not problems and self.problems(folder, path, recorded):
                    folder.parent.mkdir(parents=True, exist_ok=True)
                    if folder.exists():
                        folder.rename(staged / "damaged")
                    fresh.rename(folder)
        return problems

    def _copy(self, path: str, folder: Path) -> None:
        source = f"{self.root}/{path}".rstrip("/")
        self.fs.invalidate_cache()
        folder.mkdir()
        for name in self.fs.find(source):
            local = folder / name[len(source) :].lstrip("/")
            local.parent.mkdir(parents=True, exist_ok=True)
            self.fs.get_file(name, str(local))

    @contextmanager
    def _place_lock(self) -> Iterator[None]:
        """One process at a time puts copies in their places; the lock goes with the process that holds it."""
        with open(self.cache / "artifacts.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


_NEVER = " was never published"
_ABANDONED_S = 24 * 3600


def _sweep(staging: Path) -> None:
    """Remove the folders in which nothing was written for a day: whoever stages writes all the time and is done sooner."""
    for folder in staging.glob("*/"):
        try:
            last = max(entry.stat().st_mtime for entry in (folder, *folder.rglob("*")))
        except FileNotFoundError:
            continue  # its owner is at work
        if now().timestamp() - last > _ABANDONED_S:
            shutil.rmtree(folder, ignore_errors=True)


def flush(folder: Path) -> None:
    """fsync every file and folder: what is published must survive a power cut as its database row does."""
    for file in folder.rglob("*"):
        if file.is_file():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
    for entry in (folder, *(inner for inner in folder.rglob("*") if inner.is_dir())):
        flush_entry(entry)


def flush_entry(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
