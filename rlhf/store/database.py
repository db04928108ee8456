"""The one database: SQLite in the workspace by default, PostgreSQL by URL.

A write is one transaction that takes the writer's lock at its start (SQLite BEGIN IMMEDIATE; PostgreSQL locks the rows or
keys that it must), so what a write reads is true until it commits. SQLite runs in WAL with synchronous=FULL: a commit
survives a power cut (3.7 ms each); set RLHF_SQLITE_SYNC=normal where surviving a process crash is enough (0.01 ms).
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DatabaseError, OperationalError

from rlhf.errors import Damaged, RlhfError

SCHEMA_HEAD = "0010"
CHANNEL = "rlhf_news"  # of PostgreSQL's LISTEN
_LOCK_WAIT_S = 60
# A server's threads (40) and its own upkeep each have a connection: a pool shorter than its users is not fair, and one waits on.
_POSTGRES_CONNECTIONS = {"pool_size": 16, "max_overflow": 48, "pool_timeout": _LOCK_WAIT_S}
_READER_WAIT_S = 2  # for a reader that keeps the log from being emptied

Listener = Callable[[tuple[Any, ...]], None]


class Database:
    """Engine and transactions over one URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _sqlite_engine(url) if url.startswith("sqlite") else _postgres_engine(url)
        # SQLite lets waiting writers sleep and try again, up to 100 ms too long each: threads of one process take turns instead.
        self._turn: AbstractContextManager[Any] = threading.RLock() if self.is_sqlite else nullcontext()
        self._listeners: tuple[Listener, ...] = ()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with what each committed write of this process announced, before the writer goes on; returns what ends
        it. A listener must be quick and must not raise: the deed is done already."""
        self._listeners = (*self._listeners, listener)

        def end() -> None:
            self._listeners = tuple(one for one in self._listeners if one is not listener)

        return end

    def tell(self, news: tuple[Any, ...]) -> None:
        for listener in self._listeners:
            listener(news)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One write transaction; commits at the end, rolls back on any exception."""
        with self._turn, self.engine.connect() as connection:
            if self.is_sqlite:
                _begin_immediate(connection)
            with connection.begin():
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view, however many queries it takes (PostgreSQL's default shows each query a newer one)."""
        with self.engine.connect() as connection:
            if not self.is_sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    def insert_new(self, connection: Connection, table: Any, rows: list[dict[str, Any]]) -> int:
        """Insert the rows whose unique keys are free, pass over the others; returns how many went in."""
        if not rows:
            return 0
        new = self._insert(table).on_conflict_do_nothing()
        if self.is_sqlite:
            before = connection.execute(text("SELECT total_changes()")).scalar_one()
            connection.execute(new, rows)
            return int(connection.execute(text("SELECT total_changes()")).scalar_one() - before)
        # PostgreSQL's driver gives no row count for many rows at once (-1): count what comes back.
        return len(connection.execute(new.returning(next(iter(table.primary_key))), rows).all())

    def add_up(self, connection: Connection, table: Any, rows: list[dict[str, Any]]) -> None:
        """Add each row's numbers to those of the row with its key, which begins at nothing; every column that is no key is one."""
        if not rows:
            return
        keys = [column.name for column in table.primary_key]
        rows = sorted(
            rows, key=lambda row: [row[key] for key in keys]
        )  # all writers in one order: none waits for another in a ring
        new = self._insert(table)
        sums = {column.name: column + new.excluded[column.name] for column in table.c if column.name not in keys}
        connection.execute(new.on_conflict_do_update(index_elements=keys, set_=sums), rows)

    def _insert(self, table: Any) -> Any:
        """The dialect's own insert, which knows conflicts."""
        if self.is_sqlite:
            from sqlalchemy.dialects.sqlite import insert
        else:
            from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
        return insert(table)

    def revision(self) -> str | None:
        """The schema's revision; None where there is no schema yet."""
        with self.engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()

    def upgrade(self) -> None:
        """Bring the schema to SCHEMA_HEAD; what is there already stays. A newer schema than ours is refused."""
        current = self.revision()
        if current == SCHEMA_HEAD:
            return
        if current is not None and current > SCHEMA_HEAD:
            raise Damaged(
                f"the workspace's schema is {current}, this rlhf knows up to {SCHEMA_HEAD}",
                fix="use the newer rlhf that wrote it",
            )
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def forget_erased(self) -> bool:
        """What was overwritten leaves the files too: SQLite's log is written back and emptied (pages that come free are zeroed
        anyway), PostgreSQL's tables are written anew. False where a reader kept SQLite from it: ask again later."""
        if self.is_sqlite:
            with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql(f"PRAGMA busy_timeout={_READER_WAIT_S * 1000}")
                try:
                    return not connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]
                finally:
                    connection.exec_driver_sql(f"PRAGMA busy_timeout={_LOCK_WAIT_S * 1000}")
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for table in (
                "pairs",
                "pair_sources",
                "judgements",
                "comments",
                "leases",
                "rejected_rows",
                "checks",
                "pauses",
                "exposures",
                "outcomes",
            ):
                connection.exec_driver_sql(f"VACUUM (FULL) {table}")
        return True

    def close(self) -> None:
        self.engine.dispose()


def _postgres_engine(url: str) -> Engine:
    return create_engine(url, pool_pre_ping=True, **_POSTGRES_CONNECTIONS)


def _sqlite_engine(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _LOCK_WAIT_S, "check_same_thread": False})
    sync = "NORMAL" if os.environ.get("RLHF_SQLITE_SYNC", "full").lower() == "normal" else "FULL"

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy's begin event below sends BEGIN itself
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            f"synchronous={sync}",
            "foreign_keys=ON",
            f"busy_timeout={_LOCK_WAIT_S * 1000}",
            "secure_delete=ON",
            "cache_size=-65536",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(
            "BEGIN IMMEDIATE" if connection.get_execution_options().get("rlhf_write") else "BEGIN"
        )

    return engine


def _begin_immediate(connection: Connection) -> None:
    connection.execution_options(rlhf_write=True)


def without_password(text: str) -> str:
    """A URL, or words with one in them, as it may be shown: in an error, in a log, to whoever looks over a shoulder."""
    text = re.sub(r"(://[^:/?#\s]*):[^/?#\s]*@", r"\1:***@", text)
    return re.sub(r"([?&]\w*password=)[^&\s'\"]*", r"\1***", text)


def explain(error: DatabaseError, url: str = "") -> RlhfError:
    """A database's refusal in the user's words."""
    reason = str(error.orig).splitlines()[0] if error.orig else str(error)
    said = without_password(f"the database{' at ' if url else ''}{url} can't be used: {reason}")
    if "malformed" in reason or "not a database" in reason:
        return Damaged(said, fix="restore it from a backup")
    return RlhfError(said, fix="check that it exists, is writable and not full")


def refusal_of(error: BaseException) -> RlhfError | None:
    """A full, locked or broken database in the user's words; None for what is a mistake of ours (a constraint, say)."""
    if isinstance(error, DatabaseError) and type(error) in (DatabaseError, OperationalError):
        return explain(error)
    return None
