"""A workspace: one store, one artifact root, one set of bases, in one folder.

workspace/
  workspace.yaml   where the database and the artifacts are, and the workspace's secret key (for tombstones)
  rlhf.db          unless the database is PostgreSQL
  artifacts/       what is published: versions, snapshots, reports; nothing else
  bases/ runs/ cache/
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import Connection, text
from sqlalchemy.exc import ArgumentError, DatabaseError

from rlhf.errors import BadInput, Conflict, Damaged, NotFound
from rlhf.ids import secret
from rlhf.store import audit
from rlhf.store.artifacts import Artifacts
from rlhf.store.database import CHANNEL, Database, explain, without_password
from rlhf.store.making import alone_in, check_database, database_files, undone_on_failure

SCHEMA_VERSION = 1
DISK_BUDGET = "disk_budget"  # bytes; of workspace.yaml, and may be absent


@dataclass(frozen=True, slots=True)
class Write:
    """A write transaction under way: its connection, its actor, and the audit log's pen."""

    connection: Connection
    actor: str
    database: Database
    key: str = ""  # the workspace's, for tombstones
    news: list[Any] = field(default_factory=list)

    def announce(self, subject: str, deed: Any) -> None:
        """Tell whoever serves, once this is committed: listeners in this process before `write()` is left, and on PostgreSQL
        other processes by NOTIFY, in this transaction. They read the log; what is sent only says where."""
        self.news.append(deed)
        if not self.database.is_sqlite:
            self.connection.execute(
                text("SELECT pg_notify(:channel, :subject)"), {"channel": CHANNEL, "subject": subject}
            )

    def insert_new(self, table: Any, rows: list[dict[str, Any]]) -> int:
        return self.database.insert_new(self.connection, table, rows)

    def audit(self, action: str, subject: str, details: Mapping[str, Any] | None = None) -> None:
        audit.append(self.connection, self.actor, action, subject, details)


class Workspace:
    """The handle that rooms take as their first argument. Open one with `open`, make one with `create`."""

    def __init__(self, root: Path, settings: Mapping[str, Any], actor: str) -> None:
        self.root = root
        self.key = str(settings["key"])
        self.actor = actor
        self.database = Database(_database_url(root, str(settings["database"])))
        self.artifacts = Artifacts(_artifacts_url(root, str(settings["artifacts"])), root / "cache")

    @classmethod
    def create(
        cls, root: Path | str, *, database: str = "rlhf.db", artifacts: str = "artifacts", actor: str | None = None
    ) -> Workspace:
        """Make a workspace. database: a file name, or a PostgreSQL URL. artifacts: a folder name, or an S3 URL.

        Raises Conflict where there is one already, BadUsage for a database that can't be one, BadInput where `root` is a
        file or can't be written, or the artifacts can't be reached. A failure takes back what this call made.
        """
        root = Path(root).absolute()
        check_database(root, database)
        settings = {"schema_version": SCHEMA_VERSION, "database": database, "artifacts": artifacts, "key": secret()}
        _refuse_second(root)
        workspace = cls._connected(root, settings, actor)
        workspace.artifacts.check_reachable()
        made = [root / name for name in ("workspace.yaml.new", "bases", "runs", "cache")]
        made += database_files(root, database)
        if workspace.artifacts.is_local:
            made.append(Path(workspace.artifacts.root))
        try:
            with undone_on_failure([root]):
                root.mkdir(parents=True, exist_ok=True)
                with alone_in(root):
                    _refuse_second(root)
                    with undone_on_failure(made):
                        workspace._make(settings)
        except OSError as error:
            raise BadInput(
                f"{root} can't be made a workspace: {error}", fix="name a folder that you can write"
            ) from None
        return workspace

    def _make(self, settings: Mapping[str, Any]) -> None:
        """Folders, tables and, last, `workspace.yaml`: a workspace that opens is whole."""
        try:
            for folder in ("bases", "runs", "cache"):
                (self.root / folder).mkdir(exist_ok=True)
            if self.artifacts.is_local:
                Path(self.artifacts.root).mkdir(parents=True, exist_ok=True)
            staged = self.root / "workspace.yaml.new"
            staged.touch(mode=0o600)
            staged.write_text(yaml.safe_dump(dict(settings), sort_keys=False), "utf-8")
            with _explained(self.database):
                self.database.upgrade()
                with self.write() as write:
                    write.audit("workspace.create", self.root.name, {"schema_version": SCHEMA_VERSION})
            staged.rename(self.root / "workspace.yaml")
        except BaseException:
            self.close()  # before its files go
            raise

    @classmethod
    def open(cls, root: Path | str, *, actor: str | None = None) -> Workspace:
        """Open a workspace, upgrading its schema if it is older. Raises NotFound where there is none."""
        root = Path(root).absolute()
        try:
            settings = yaml.safe_load((root / "workspace.yaml").read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"no workspace at {root}", fix=f"make one with: rlhf init --workspace {root}") from None
        except PermissionError:
            raise BadInput(f"{root / 'workspace.yaml'} is not yours to read", fix="check its permissions") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise BadInput(
                f"{root / 'workspace.yaml'} can't be read: {error}", fix="restore it from a backup"
            ) from None
        if not isinstance(settings, Mapping) or not {"database", "artifacts", "key"} <= settings.keys():
            raise BadInput(
                f"{root / 'workspace.yaml'} lacks database, artifacts or key", fix="restore it from a backup"
            )
        workspace = cls._connected(root, settings, actor)
        file = workspace.database.engine.url.database
        if (
            workspace.database.is_sqlite and file and not Path(file).exists()
        ):  # SQLite would make an empty one in silence
            raise Damaged(f"the workspace's database {file} is missing", fix="restore it from a backup")
        with _explained(workspace.database):
            if workspace.database.revision() is None:  # emptied: an upgrade would make an empty workspace in silence
                raise Damaged(
                    without_password(f"the workspace's database {workspace.database.url} holds no tables"),
                    fix="restore it from a backup",
                )
            workspace.database.upgrade()
        return workspace

    @classmethod
    def _connected(cls, root: Path, settings: Mapping[str, Any], actor: str | None) -> Workspace:
        """The handle; nothing is read or written yet. Raises BadInput for a kind of store that isn't known here."""
        try:
            return cls(root, settings, actor or _default_actor())
        except (ArgumentError, ImportError, ValueError) as error:  # each part has its own word for it
            what = f"database {settings['database']!r} and artifacts {settings['artifacts']!r}"
            raise BadInput(
                without_password(f"{what} can't be opened: {error}"),
                fix="name files, or a postgresql:// and an s3:// URL with their extras installed",
            ) from None

    @contextmanager
    def write(self) -> Iterator[Write]:
        """One durable, all-or-nothing write in the name of `self.actor`."""
        with self.database.write() as connection:
            write = Write(connection, self.actor, self.database, self.key)
            yield write
        if write.news:
            self.database.tell(tuple(write.news))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view of the tables."""
        with self.database.read() as connection:
            yield connection

    def as_actor(self, actor: str) -> Workspace:
        """The same workspace in another actor's name."""
        other = object.__new__(Workspace)
        other.__dict__.update(self.__dict__)
        other.actor = actor
        return other

    def close(self) -> None:
        self.database.close()


def _refuse_second(root: Path) -> None:
    if (root / "workspace.yaml").exists():
        raise Conflict(f"{root} is a workspace already", fix="use it, or name another folder with --workspace")


def _default_actor() -> str:
    """RLHF_ACTOR, else the system's user name: who can write the workspace's files is trusted."""
    if named := os.environ.get("RLHF_ACTOR"):
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def _database_url(root: Path, setting: str) -> str:
    if "://" not in setting:
        return f"sqlite:///{root / setting}"
    return setting.replace("postgresql://", "postgresql+psycopg://", 1)


def _artifacts_url(root: Path, setting: str) -> str:
    return setting if "://" in setting else str(root / setting)


@contextmanager
def _explained(database: Database) -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        raise explain(error, database.url) from None
