"""Restoring: a backup becomes a workspace again, if every byte is what was backed up."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from rlhf.errors import BadInput, Damaged, NotFound
from rlhf.ids import digest_of
from rlhf.store.artifacts import flush, flush_entry
from rlhf.store.backup import (
    MANIFEST,
    SCHEMA_VERSION,
    SETTINGS,
    Files,
    Progress,
    copied,
    require_free,
    require_room,
    staged_beside,
)
from rlhf.store.database import SCHEMA_HEAD
from rlhf.store.workspace import Workspace

Reader = Callable[[str], IO[bytes]]  # raises FileNotFoundError, KeyError


@dataclass(frozen=True, slots=True)
class Restored:
    """The workspace that is there now. made_at: what it is the state of. revision: the backup's, before any migration."""

    root: Path
    digest: str
    made_at: str
    revision: str
    files: int
    n_bytes: int
    left_out: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "workspace": str(self.root),
            "backup": self.digest,
            "made_at": self.made_at,
            "revision": self.revision,
            "files": self.files,
            "n_bytes": self.n_bytes,
            "left_out": list(self.left_out),
        }


def restore(
    backup: Path | str, root: Path | str, *, actor: str | None = None, on_progress: Progress | None = None
) -> Restored:
    """Make the backed up workspace at `root`, which isn't there yet or is an empty folder; an older schema is brought up.

    It appears when all of it was checked. Raises NotFound and BadInput for what is no backup or a newer one than ours, Damaged
    naming the first file that is wrong, Conflict where `root` is taken, NoRoom.
    """
    backup, root = Path(backup).absolute(), Path(root).absolute()
    require_free(root)
    with _opened(backup) as read:
        said = _manifest(backup, read)
        files: Files = {path: (one["sha256"], one["n_bytes"]) for path, one in said["files"].items()}
        with staged_beside(root) as staged:
            content = staged / "content"
            content.mkdir()
            require_room(staged, sum(n for _, n in files.values()))
            for n, (path, wanted) in enumerate(files.items(), 1):
                _take(backup, read, path, wanted, content)
                if on_progress is not None:
                    on_progress(n, len(files))
            _bring_up(content, root.name, said, actor)
            flush(content)
            require_free(root)
            content.rename(root)
            flush_entry(root.parent)
    size = sum(n for _, n in files.values())
    left_out = tuple(said["left_out"])
    return Restored(root, said["digest"], said["made_at"], said["revision"], len(files), size, left_out)


@contextmanager
def _opened(backup: Path) -> Iterator[Reader]:
    """Reads files of the backup by their names, from a folder or from one file."""
    if backup.is_dir():
        folder = backup.resolve()

        def read(path: str) -> IO[bytes]:
            if (folder / path).resolve() != folder / path:
                raise FileNotFoundError(path)  # a link leads who knows where
            return open(folder / path, "rb")

        yield read
    elif backup.is_file():
        try:
            tar = tarfile.open(backup, "r:")  # noqa: SIM115  closed below; opening alone may fail
        except tarfile.TarError:
            raise _no_backup(backup) from None
        with tar:
            inside = _members(tar)

            def unpack(path: str) -> IO[bytes]:
                found = tar.extractfile(inside[path])
                assert found is not None, "only plain files are among them"
                return found

            yield unpack
    else:
        raise NotFound(f"there is nothing at {backup}", fix="name what rlhf backup wrote")


def _members(tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """Plain files by name, as far as the file goes: what a cut short one lacks is missing."""
    found: dict[str, tarfile.TarInfo] = {}
    try:
        for member in tar:
            if member.isfile():
                found[member.name] = member
    except tarfile.TarError:
        pass
    return found


def _no_backup(backup: Path) -> BadInput:
    return BadInput(f"{backup} is no backup of a workspace", fix="name what rlhf backup wrote")


def _manifest(backup: Path, read: Reader) -> Mapping[str, Any]:
    try:
        with read(MANIFEST) as source:
            raw = source.read()
    except (FileNotFoundError, KeyError):
        raise _no_backup(backup) from None
    try:
        said = json.loads(raw)
        content = {key: value for key, value in said.items() if key != "digest"}
        if said["digest"] != digest_of(content):
            raise ValueError
        version, revision, names = said["schema_version"], said["revision"], list(said["files"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Damaged(f"{MANIFEST} in {backup} is not as it was written", fix="take another backup") from None
    if version > SCHEMA_VERSION or revision > SCHEMA_HEAD:
        raise BadInput(
            f"the backup's schema is {revision} (backup {version}), this rlhf knows up to {SCHEMA_HEAD} ({SCHEMA_VERSION})",
            fix="restore it with the newer rlhf that wrote it",
        )
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise BadInput(f"{backup} names '{name}', outside the workspace", fix="take a backup that rlhf wrote")
    return dict(said)


def _take(backup: Path, read: Reader, path: str, wanted: tuple[str, int], content: Path) -> None:
    try:
        with read(path) as source:
            found = copied(source, content / ("workspace.yaml" if path == SETTINGS else path))
    except (FileNotFoundError, IsADirectoryError, KeyError):
        raise Damaged(f"{path} is missing in {backup}", fix="take another backup; nothing was restored") from None
    except tarfile.TarError:
        found = None
    if found != wanted:
        raise Damaged(f"{path} in {backup} is not as it was backed up", fix="take another backup; nothing was restored")


def _bring_up(content: Path, name: str, said: Mapping[str, Any], actor: str | None) -> None:
    """Open it, which runs the migrations that are missing, and write down that it was restored."""
    os.chmod(content / "workspace.yaml", 0o600)
    for folder in ("artifacts", "bases", "runs", "cache"):
        (content / folder).mkdir(exist_ok=True)
    workspace = Workspace.open(content, actor=actor)
    try:
        with workspace.write() as write:
            write.audit("workspace.restore", name, {"backup": said["digest"], "made_at": said["made_at"]})
    finally:
        workspace.close()
