"""Artifacts on S3 equal artifacts in local files (promise 12), against moto's server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import adapter_folders as made
import pytest

from rlhf.errors import BadInput, Conflict, Damaged, NotFound
from rlhf.registry import aliases, export_folder, open_version, publish, verify
from rlhf.store import Workspace

pytestmark = pytest.mark.s3


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    moto = pytest.importorskip("moto.server", reason="S3: moto[server] is not installed")
    pytest.importorskip("s3fs", reason="S3: s3fs is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def remote(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace with its artifacts in a bucket, found by nothing but the URL and AWS's own environment variables."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"b-{abs(hash(tmp_path)):x}"
    s3fs.S3FileSystem().mkdir(bucket)
    workspace = Workspace.create(tmp_path / "remote", artifacts=f"s3://{bucket}/team/artifacts", actor="tester")
    yield workspace
    workspace.close()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_bucket_that_is_not_there_is_told_before_anything_is_made(remote: Workspace, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="s3://no-such-bucket/x can't be written"):
        Workspace.create(tmp_path / "new", artifacts="s3://no-such-bucket/x")
    assert not (tmp_path / "new").exists()
    assert remote.artifacts.fs.find(remote.artifacts.root) == []  # a bucket that is there keeps nothing of the look


def _files(folder: Path) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_version_on_s3_equals_one_in_local_files(workspace: Workspace, remote: Workspace, tmp_path: Path) -> None:
    for each in (workspace, remote):
        for seed in range(2):
            made.published(each, tmp_path, seed)
        aliases.move(each, "hh@champion", "hh@2", why="up")
    here, there = open_version(workspace, "hh@champion"), open_version(remote, "hh@champion")
    assert here.ref == there.ref
    left, right = _files(here.folder), _files(there.folder)
    assert left.keys() == right.keys()
    for name in left.keys() - {"manifest.json"}:
        assert left[name] == right[name]
    assert {k: v for k, v in here.manifest.items() if k != "created_at"} == {
        k: v for k, v in there.manifest.items() if k != "created_at"
    }
    one, other = verify(workspace), verify(remote)
    assert one.ok and (one.files, one.versions, one.audit_entries) == (other.files, other.versions, other.audit_entries)
    assert other.ok, other.problems


def test_what_is_changed_missing_or_added_on_s3_is_named(remote: Workspace, tmp_path: Path) -> None:
    made.published(remote, tmp_path, 0)
    store, path = remote.artifacts.fs, f"{remote.artifacts.root}/versions/hh/1"
    store.pipe_file(f"{path}/adapter_config.json", b"{}")
    store.pipe_file(f"{path}/more.py", b"x")
    store.rm_file(f"{path}/manifest.json")
    named = {
        "versions/hh/1/adapter_config.json was changed after it was published",
        "versions/hh/1/more.py was never published",
        "versions/hh/1/manifest.json is missing",
    }
    assert set(verify(remote).problems) == named
    with pytest.raises(Damaged) as damaged:
        open_version(remote, "hh@1")
    assert set(damaged.value.message.split("; ")) == named
    assert not (tmp_path / "out").exists()


def test_a_changed_local_copy_is_fetched_again(remote: Workspace, tmp_path: Path) -> None:
    made.published(remote, tmp_path, 0)
    folder = open_version(remote, "hh@1").folder
    stamp = (folder / "manifest.json").stat().st_mtime_ns
    assert (open_version(remote, "hh@1").folder / "manifest.json").stat().st_mtime_ns == stamp  # not fetched twice
    (folder / "adapter_config.json").write_text("{}")
    assert (open_version(remote, "hh@1").folder / "adapter_config.json").read_text() != "{}"


def test_what_a_crash_left_on_s3_is_replaced(remote: Workspace, tmp_path: Path) -> None:
    path = f"{remote.artifacts.root}/versions/hh/1"
    remote.artifacts.fs.pipe_file(f"{path}/half", b"written")
    assert verify(remote).leftovers == ("versions/hh/1",)
    made.published(remote, tmp_path, 0)
    assert not (open_version(remote, "hh@1").folder / "half").exists() and verify(remote).ok


def test_names_on_s3_are_taken_once_and_unknown_ones_are_errors(remote: Workspace, tmp_path: Path) -> None:
    ref = made.published(remote, tmp_path, 0)
    assert publish(remote, tmp_path / "staged-hh-0", made.draft(), made.evidence()) == ref
    with remote.artifacts.staging() as folder, pytest.raises(Conflict), remote.write() as write:
        (folder / "x").write_bytes(b"x")
        remote.artifacts.publish(write.connection, folder, "versions/hh/1")
    with remote.read() as connection, pytest.raises(NotFound):
        remote.artifacts.open(connection, "versions/hh/2")
    with remote.read() as connection:
        assert remote.artifacts.read_file(connection, "versions/hh/1/adapter_config.json").startswith(b"{")


def test_an_export_from_s3_is_a_local_folder(remote: Workspace, tmp_path: Path) -> None:
    made.published(remote, tmp_path, 0)
    out = export_folder(remote, "hh@1", tmp_path / "out", base_path="/bases/tiny")
    assert (out / "adapter_model.safetensors").read_bytes() == (
        tmp_path / "staged-hh-0" / "adapter_model.safetensors"
    ).read_bytes()
