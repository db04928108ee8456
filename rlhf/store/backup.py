"""Backups: a workspace as it is at one moment, copied while others go on writing to it.

A backup is a folder, or one file where its name ends in `.tar`:

  backup.json           what, when, the schema's revision, SHA-256 and size of each file, what was left out
  workspace.yaml.kept   the settings and the workspace's key: a backup is as secret as its workspace
  rlhf.db artifacts/ bases/ runs/ *.yaml

Runs' files are copied first, then the database by SQLite's own online copy, then what the copied tables name and never
changes. So no file tells of something that the tables don't know, and a round that goes on from a restored workspace finds
what it had published. Everything is written beside the target and renamed at the end: it appears whole or not at all.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import yaml
from sqlalchemy import create_engine, func, select

from rlhf.errors import BadUsage, Conflict, Damaged, RlhfError
from rlhf.ids import digest_of, new_id, now_text
from rlhf.store import tables
from rlhf.store.artifacts import flush, flush_entry
from rlhf.store.database import without_password
from rlhf.store.making import undone_on_failure
from rlhf.store.room import NoRoom, budget_of
from rlhf.store.walking import files_in, size_of
from rlhf.store.workspace import DISK_BUDGET, Workspace
from rlhf.store.workspace import SCHEMA_VERSION as WORKSPACE_SCHEMA

SCHEMA_VERSION = 1
MANIFEST, SETTINGS, DATABASE, ARTIFACTS = "backup.json", "workspace.yaml.kept", "rlhf.db", "artifacts"
PACKED = ".tar"
_CHUNK = 1 << 20
_NEW = ".new"

Files = dict[str, tuple[str, int]]  # path in the backup -> SHA-256, bytes
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Backup:
    """What was written. digest: of what backup.json says. left_out: what a restored workspace will lack."""

    path: Path
    digest: str
    revision: str
    made_at: str
    files: int
    n_bytes: int
    left_out: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path), "left_out": list(self.left_out)}


def back_up(workspace: Workspace, target: Path | str, *, on_progress: Progress | None = None) -> Backup:
    """Copy the workspace to `target`, which isn't there yet, while it is in use.

    on_progress: (done, all) of the files that the tables name. Raises BadUsage for PostgreSQL, S3 and a target inside the
    workspace, Conflict where the target is taken or an erasure rewrote a file meanwhile, NoRoom, and Damaged naming a
    published file that is no longer what was published.
    """
    target = Path(target).absolute()
    _require_local(workspace, target)
    require_free(target)
    with staged_beside(target) as staged:
        require_room(staged, _size_of(workspace))
        content = staged / "content"
        content.mkdir(mode=0o700)
        files, left_out = _copy_runs(workspace, content)
        files[SETTINGS] = _write_settings(workspace, content / SETTINGS)
        revision = _copy_database(workspace, content / DATABASE)
        with open(content / DATABASE, "rb") as handle:
            files[DATABASE] = (hashlib.file_digest(handle, "sha256").hexdigest(), (content / DATABASE).stat().st_size)
        named, bases = _named_by(content / DATABASE)
        files |= _copy_published(workspace, content, named, on_progress)
        found, elsewhere = _copy_bases(workspace, content, bases)
        made = _seal(workspace, content, files | found, revision, (*left_out, *elsewhere))
        whole = _packed(content, staged / "packed") if target.name.endswith(PACKED) else content
        flush(content)
        require_free(target)
        whole.rename(target)
        flush_entry(target.parent)
    with workspace.write() as write:
        write.audit("workspace.backup", target.name, {"file": target.name, "digest": made.digest})
    return Backup(target, made.digest, revision, made.made_at, made.files, made.n_bytes, made.left_out)


def _require_local(workspace: Workspace, target: Path) -> None:
    if not workspace.database.is_sqlite:
        raise BadUsage(
            "this workspace's database is PostgreSQL, which rlhf doesn't copy",
            fix="use pg_dump for the database, and copy artifacts/, bases/ and workspace.yaml after it",
        )
    if not workspace.artifacts.is_local:
        raise BadUsage(
            f"this workspace's artifacts are at {without_password(workspace.artifacts.url)}, which rlhf doesn't copy",
            fix="switch on the bucket's own versioning and replication, and copy the workspace's folder",
        )
    if target.resolve().is_relative_to(workspace.root.resolve()):
        raise BadUsage(f"{target} lies in the workspace, and would be lost with it", fix="name a place outside of it")


def require_free(target: Path) -> None:
    """Raises Conflict where something is there already; an empty folder may be."""
    if target.is_dir() and not target.is_symlink():
        if not any(target.iterdir()):
            return
        raise Conflict(f"{target} is not empty", fix="name a folder that isn't there yet, or an empty one")
    if os.path.lexists(target):
        raise Conflict(f"{target} is there already", fix="name a place where nothing is")


def require_room(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise NoRoom(
            f"{n_bytes / 2**20:,.1f} MiB are wanted and {free / 2**20:,.1f} MiB are free where {folder.parent} lies",
            fix="make room, or name a place on another disk",
        )


@contextmanager
def staged_beside(target: Path) -> Iterator[Path]:
    """A folder of our own on the target's disk, gone at the end of the block; what killed processes left there for this
    target goes first."""
    with undone_on_failure([target.parent]):
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{glob.escape(target.name)}.*{_NEW}"):
            _remove_abandoned(left)
        folder = target.with_name(f".{target.name}.{new_id()}{_NEW}")
        folder.mkdir(mode=0o700)
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


def _remove_abandoned(folder: Path) -> None:
    """The kernel lets go of a killed process's lock, so that what nobody holds is nobody's."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(handle)


def copied(source: IO[bytes], target: Path) -> tuple[str, int]:
    """Write what `source` holds to a new file; SHA-256 and size of the bytes that went through."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, n_bytes = hashlib.sha256(), 0
    with open(target, "xb") as out:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            n_bytes += out.write(chunk)
    return digest.hexdigest(), n_bytes


def _size_of(workspace: Workspace) -> int:
    """Bytes that a backup takes, near enough to refuse before anything is copied."""
    with workspace.read() as connection:
        published = connection.execute(select(func.sum(tables.files.c.n_bytes))).scalar() or 0
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        each = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    skipped = _checkpoints_of_done(workspace)
    own = [file for file in files_in(workspace.root / "runs") if not skipped & {*file.parents}]
    bases = size_of(workspace.root / "bases")
    return int(published) + pages * each + bases + sum(size_of(file) for file in own)


def _checkpoints_of_done(workspace: Workspace) -> set[Path]:
    query = select(tables.runs.c.folder).where(tables.runs.c.state == "done")
    with workspace.read() as connection:
        return {workspace.root / row.folder / "checkpoints" for row in connection.execute(query)}


def _copy_runs(workspace: Workspace, content: Path) -> tuple[Files, list[str]]:
    """Runs and jobs with their logs, figures and replies, checkpoints that a resume needs, the loop's settings.

    A file that goes while we come to it, such as a checkpoint that a newer one replaced, was not needed.
    """
    root, skipped, files, n_left = workspace.root, _checkpoints_of_done(workspace), {}, 0
    own = [file for file in sorted(root.glob("*.yaml")) if file.name != "workspace.yaml"]
    for file in (*own, *files_in(root / "runs")):
        if file.name == "lock" or file.suffix in (".lock", _NEW):
            continue
        if skipped & {*file.parents}:
            n_left += 1
            continue
        path = file.relative_to(root).as_posix()
        try:
            with open(file, "rb") as source:
                files[path] = copied(source, content / path)
        except FileNotFoundError:
            continue
    known = {"bases", "runs", "cache", "workspace.yaml", Path(workspace.artifacts.root).name, *(f.name for f in own)}
    known |= {f"{Path(str(workspace.database.engine.url.database)).name}{end}" for end in ("", "-wal", "-shm")}
    others = sorted(entry.name for entry in root.iterdir() if entry.name not in known)
    said = ["cache/ (what can be computed again)", *(f"{name} (no part of a workspace)" for name in others)]
    return files, said + [f"{n_left} files of checkpoints of runs that are done"] * bool(n_left)


def _write_settings(workspace: Workspace, target: Path) -> tuple[str, int]:
    said = {
        "schema_version": WORKSPACE_SCHEMA,
        "database": DATABASE,
        "artifacts": ARTIFACTS,
        "key": workspace.key,
    }
    if (budget := budget_of(workspace)) is not None:
        said[DISK_BUDGET] = budget
    raw = yaml.safe_dump(said, sort_keys=False).encode("utf-8")
    target.touch(mode=0o600)
    target.write_bytes(raw)
    return hashlib.sha256(raw).hexdigest(), len(raw)


def _copy_database(workspace: Workspace, target: Path) -> str:
    """One moment of the tables, by SQLite's own copy: in WAL it reads one state while others write. Gives its revision.

    The copy leaves WAL, so that it is one file; a workspace that opens it goes back.
    """
    with workspace.database.engine.connect() as connection, closing(sqlite3.connect(target)) as copy:
        source: Any = connection.connection.driver_connection
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
        said = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
        if said != "ok":
            raise Damaged(f"the workspace's database is not whole: {said}", fix="restore it from an earlier backup")
        return str(copy.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def _named_by(database: Path) -> tuple[Files, list[str]]:
    """What the copied tables name: published files with their checksums, and the folders of bases."""
    engine = create_engine(f"sqlite:///{database}")
    try:
        with engine.connect() as connection:
            rows = connection.execute(select(tables.files).order_by(tables.files.c.path))
            published = {row.path: (row.sha256, row.n_bytes) for row in rows}
            bases = list(connection.execute(select(tables.bases.c.path).order_by(tables.bases.c.path)).scalars())
    finally:
        engine.dispose()
    return published, bases


def _copy_published(workspace: Workspace, content: Path, named: Files, on_progress: Progress | None) -> Files:
    files: Files = {}
    for n, (path, wanted) in enumerate(named.items(), 1):
        inside = f"{ARTIFACTS}/{path}"
        try:
            with open(Path(workspace.artifacts.root) / path, "rb") as source:
                files[inside] = copied(source, content / inside)
        except FileNotFoundError:
            raise _not_as_recorded(workspace, path, wanted, "is missing") from None
        if files[inside] != wanted:
            raise _not_as_recorded(workspace, path, wanted, "was changed after it was published")
        if on_progress is not None:
            on_progress(n, len(named))
    return files


def _not_as_recorded(workspace: Workspace, path: str, wanted: tuple[str, int], what: str) -> RlhfError:
    """Asked with no writer about: an erasure puts the file in its place before it commits the new checksum."""
    with workspace.write() as write:
        now = workspace.artifacts.recorded(write.connection, path.rpartition("/")[0]).get(path)
    if now != wanted:
        return Conflict(f"an erasure rewrote {path} while it was copied", fix="run the same command again")
    return Damaged(f"{path} {what}", fix="restore it from an earlier backup; see: rlhf adapter verify")


def _copy_bases(workspace: Workspace, content: Path, bases: list[str]) -> tuple[Files, list[str]]:
    """Bases as they are: their digests are over tensors, and `rlhf adapter verify` holds them against these."""
    files: Files = {}
    elsewhere = []
    for path in bases:
        folder = workspace.root / path
        if Path(path).is_absolute() or not folder.is_relative_to(workspace.root):
            elsewhere.append(f"{path} (a base outside the workspace)")
            continue
        if not folder.is_dir():
            raise Damaged(f"the base at {path} is missing", fix="restore it from an earlier backup")
        for file in files_in(folder):
            inside = file.relative_to(workspace.root).as_posix()
            with open(file, "rb") as source:
                files[inside] = copied(source, content / inside)
    return files, elsewhere


def _seal(workspace: Workspace, content: Path, files: Files, revision: str, left_out: tuple[str, ...]) -> Backup:
    """Write backup.json, with a digest of its own."""
    said = {
        "schema_version": SCHEMA_VERSION,
        "workspace": workspace.root.name,
        "made_at": now_text(),
        "revision": revision,
        "files": {path: {"sha256": sha256, "n_bytes": n} for path, (sha256, n) in sorted(files.items())},
        "left_out": list(left_out),
    }
    digest = digest_of(said)
    text = json.dumps({**said, "digest": digest}, ensure_ascii=False, indent=1)
    (content / MANIFEST).write_text(text + "\n", "utf-8")
    size = sum(n for _, n in files.values())
    return Backup(content, digest, revision, str(said["made_at"]), len(files), size, left_out)


def _packed(content: Path, target: Path) -> Path:
    """The folder as one file, backup.json first; each file goes once it is in, so that the room wanted is not twice as much."""
    target.touch(mode=0o600)
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for file in (content / MANIFEST, *(file for file in files_in(content) if file != content / MANIFEST)):
            tar.add(file, file.relative_to(content).as_posix(), recursive=False)
            file.unlink()
    with open(target, "rb") as handle:
        os.fsync(handle.fileno())
    return target
