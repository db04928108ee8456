"""Published folders: whole or absent, and checked whenever they are opened."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from rlhf.errors import Conflict, Damaged, NotFound
from rlhf.store import Workspace
from rlhf.store.artifacts import Artifacts


def publish(workspace: Workspace, path: str, **files: bytes) -> None:
    with workspace.artifacts.staging() as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        (folder / "inner").mkdir()
        (folder / "inner" / "deep").write_bytes(b"deep")
        with workspace.write() as write:
            workspace.artifacts.publish(write.connection, folder, path)


def open_(workspace: Workspace, path: str) -> Path:
    with workspace.read() as connection:
        return workspace.artifacts.open(connection, path)


def test_what_is_published_opens_whole(workspace: Workspace) -> None:
    publish(workspace, "things/a/1", one=b"1", two=b"2" * 100_000)
    folder = open_(workspace, "things/a/1")
    assert (folder / "one").read_bytes() == b"1" and (folder / "inner" / "deep").read_bytes() == b"deep"


def test_what_is_published_is_never_replaced(workspace: Workspace) -> None:
    publish(workspace, "things/a/1", one=b"1")
    with pytest.raises(Conflict, match="things/a/1 is published already"):
        publish(workspace, "things/a/1", one=b"other")
    assert (open_(workspace, "things/a/1") / "one").read_bytes() == b"1"


def test_a_path_is_not_another_one_s_beginning(workspace: Workspace) -> None:
    publish(workspace, "things/a/10", one=b"10")
    publish(workspace, "things/a/1", one=b"1")
    publish(workspace, "things/%/1", one=b"x")
    assert (open_(workspace, "things/a/1") / "one").read_bytes() == b"1"
    with pytest.raises(NotFound):
        open_(workspace, "things/_/1")


def test_a_failed_write_publishes_nothing(workspace: Workspace) -> None:
    with pytest.raises(RuntimeError), workspace.artifacts.staging() as folder, workspace.write() as write:
        (folder / "one").write_bytes(b"1")
        workspace.artifacts.publish(write.connection, folder, "things/a/1")
        raise RuntimeError
    with pytest.raises(NotFound):
        open_(workspace, "things/a/1")


def test_what_a_crash_left_is_replaced_by_the_next_publication(workspace: Workspace) -> None:
    left = Path(workspace.artifacts.root) / "things" / "a" / "1"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"written")
    publish(workspace, "things/a/1", one=b"1")
    assert sorted(p.name for p in open_(workspace, "things/a/1").iterdir()) == ["inner", "one"]


def test_changed_missing_and_added_files_are_named(workspace: Workspace) -> None:
    publish(workspace, "things/a/1", one=b"1", two=b"2", three=b"3")
    folder = open_(workspace, "things/a/1")
    (folder / "one").write_bytes(b"I")
    (folder / "two").unlink()
    (folder / "inner" / "four").write_bytes(b"")
    with pytest.raises(Damaged) as damaged:
        open_(workspace, "things/a/1")
    assert damaged.value.message == (
        "things/a/1/two is missing; things/a/1/inner/four was never published; "
        "things/a/1/one was changed after it was published"
    )


def test_a_file_replaced_by_a_folder_or_a_dangling_link_is_missing(workspace: Workspace) -> None:
    publish(workspace, "things/a/1", one=b"1", two=b"2")
    folder = open_(workspace, "things/a/1")
    (folder / "one").unlink()
    (folder / "one").mkdir()
    (folder / "two").unlink()
    (folder / "two").symlink_to("nowhere")
    with pytest.raises(Damaged, match="one is missing; things/a/1/two is missing"):
        open_(workspace, "things/a/1")


def test_one_file_can_be_read_and_is_checked(workspace: Workspace) -> None:
    publish(workspace, "things/a/1", one=b"1")
    with workspace.read() as connection:
        assert workspace.artifacts.read_file(connection, "things/a/1/one") == b"1"
        with pytest.raises(NotFound):
            workspace.artifacts.read_file(connection, "things/a/1/../1/one")
        (Path(workspace.artifacts.root) / "things/a/1/one").write_bytes(b"I")
        with pytest.raises(Damaged, match="things/a/1/one was changed"):
            workspace.artifacts.read_file(connection, "things/a/1/one")
        (Path(workspace.artifacts.root) / "things/a/1/one").unlink()
        with pytest.raises(Damaged, match="things/a/1/one is missing"):
            workspace.artifacts.read_file(connection, "things/a/1/one")


def test_verify_all_counts_and_names(workspace: Workspace) -> None:
    with workspace.read() as connection:
        assert workspace.artifacts.verify_all(connection) == (0, [], [])
    publish(workspace, "things/a/1", one=b"1")
    publish(workspace, "others/b", two=b"2")
    (Path(workspace.artifacts.root) / "others/b/two").write_bytes(b"II")
    (Path(workspace.artifacts.root) / "things/a/2").mkdir()
    (Path(workspace.artifacts.root) / "things/a/2/left").write_bytes(b"")
    with workspace.read() as connection:
        assert workspace.artifacts.verify_all(connection) == (
            4,
            ["others/b/two was changed after it was published"],
            ["things/a/2"],
        )


def test_what_a_killed_process_staged_goes_after_a_day(workspace: Workspace) -> None:
    staging = workspace.root / "cache" / "staging"
    for name, hours in (("old", 25), ("recent", 23), ("busy", 25)):
        (staging / name).mkdir(parents=True)
        for path in (staging / name / "file", staging / name):
            path.touch()
            os.utime(path, (time.time() - hours * 3600,) * 2)
    (staging / "busy" / "file").touch()
    with workspace.artifacts.staging() as folder:
        assert {entry.name for entry in staging.iterdir()} == {"recent", "busy", folder.name}


def test_staging_leaves_nothing_behind(workspace: Workspace) -> None:
    with pytest.raises(RuntimeError), workspace.artifacts.staging() as folder:
        (folder / "x").write_bytes(b"x")
        raise RuntimeError
    assert not folder.exists()


@pytest.mark.parametrize("before", ["nothing", "a damaged copy"])
def test_two_that_fetch_one_artifact_at_once_share_one_copy(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    publish(workspace, "things/a/1", one=b"1")
    remote = Artifacts(workspace.artifacts.url, tmp_path / "cache")
    remote.is_local = False
    place = tmp_path / "cache" / "artifacts" / "things" / "a" / "1"
    if before == "a damaged copy":
        place.mkdir(parents=True)
        (place / "one").write_bytes(b"2")
    both_fetched, fetch = Barrier(2, timeout=30), remote.fs.get_file

    def together(*words: Any) -> None:
        fetch(*words)
        both_fetched.wait()

    def opened() -> int:
        with workspace.read() as connection:
            return remote.open(connection, "things/a/1").stat().st_ino

    monkeypatch.setattr(remote.fs, "get_file", together)
    with ThreadPoolExecutor(2) as pool:
        folders = {one.result() for one in [pool.submit(opened), pool.submit(opened)]}
    assert folders == {place.stat().st_ino}  # the second one takes the first one's copy and never replaces it
    assert (place / "one").read_bytes() == b"1" and not list((tmp_path / "cache" / "staging").iterdir())


def test_what_is_damaged_far_away_never_becomes_a_copy(workspace: Workspace, tmp_path: Path) -> None:
    publish(workspace, "things/a/1", one=b"1")
    remote = Artifacts(workspace.artifacts.url, tmp_path / "cache")
    remote.is_local = False
    (Path(remote.root) / "things" / "a" / "1" / "one").write_bytes(b"2")
    with workspace.read() as connection, pytest.raises(Damaged, match="things/a/1/one was changed"):
        remote.open(connection, "things/a/1")
    assert not (tmp_path / "cache" / "artifacts").exists()
