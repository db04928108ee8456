"""Whatever was changed after it was published is found and named."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import adapter_folders as made
import pytest
from sqlalchemy import text

from rlhf.errors import NotFound
from rlhf.registry import Verification, verify
from rlhf.store import Workspace


@pytest.fixture
def two(workspace: Workspace, tmp_path: Path) -> Workspace:
    made.published(workspace, tmp_path, 0)
    made.published(workspace, tmp_path, 1, "other")
    return workspace


def _root(workspace: Workspace) -> Path:
    return Path(workspace.artifacts.root)


def test_what_is_whole_verifies(two: Workspace) -> None:
    found = verify(two)
    assert found.ok and (found.files, found.versions) == (6, 2) and found.audit_entries == 3
    assert verify(two, "hh@1").files == 3 and verify(two, "hh@1").ok


def test_a_changed_byte_anywhere_is_found_and_named(two: Workspace) -> None:
    for file in sorted(_root(two).rglob("*")):
        if not file.is_file():
            continue
        name, before = file.relative_to(_root(two)).as_posix(), file.read_bytes()
        for at in (0, len(before) // 3, len(before) - 1):
            file.write_bytes(before[:at] + bytes([before[at] ^ 0x20]) + before[at + 1 :])
            assert verify(two).problems == (f"{name} was changed after it was published",)
        file.write_bytes(before)
    assert verify(two).ok


def test_a_change_to_one_version_leaves_the_other_verified(two: Workspace) -> None:
    (_root(two) / "versions/hh/1/adapter_config.json").write_text("{}")
    assert not verify(two, "hh@1").ok and verify(two, "other@1").ok
    with pytest.raises(NotFound):
        verify(two, "hh@9")


def test_missing_and_added_files_are_named(two: Workspace) -> None:
    (_root(two) / "versions/hh/1/adapter_config.json").unlink()
    (_root(two) / "versions/other/1/more.txt").write_text("x")
    (_root(two) / "stray.txt").write_text("x")
    (_root(two) / "versions/hh/stray.txt").write_text("x")
    assert set(verify(two).problems) == {
        "versions/hh/1/adapter_config.json is missing",
        "versions/other/1/more.txt was never published",
        "stray.txt was never published",
        "versions/hh/stray.txt was never published",
    }


def test_what_a_crash_left_is_a_remark_and_no_problem(two: Workspace) -> None:
    shutil.copytree(_root(two) / "versions/hh/1", _root(two) / "versions/hh/2")
    found = verify(two)
    assert found.ok and found.leftovers == ("versions/hh/2",)


def test_a_lost_artifact_root_is_found(two: Workspace) -> None:
    shutil.rmtree(_root(two))
    assert len(verify(two).problems) == 6


def test_a_tampered_audit_log_is_found(two: Workspace) -> None:
    with two.write() as write:
        write.connection.execute(text("update audit set actor = 'mallory' where seq = 2"))
    assert verify(two).problems == ("audit entry 2 doesn't continue the chain",)


def test_a_version_that_came_in_past_the_log_is_found(two: Workspace) -> None:
    with two.write() as write:
        write.connection.execute(text("update versions set digest = :d where name = 'hh'"), {"d": "0" * 64})
    problems = verify(two).problems
    assert any("hh@1" in problem and "audit log" in problem for problem in problems)
    assert any("has digest" in problem for problem in problems)


def test_what_is_being_published_meanwhile_is_not_wrong(two: Workspace) -> None:
    """The folder is in its place, its rows not yet committed: verify waits for the writer and looks again."""
    seen: list[Verification] = []
    checking = threading.Thread(target=lambda: seen.append(verify(two)))
    with two.artifacts.staging() as folder, two.write() as write:
        (folder / "file").write_text("x")
        two.artifacts.publish(write.connection, folder, "versions/late/1")
        checking.start()
        checking.join(0.3)
        assert seen == []
    checking.join(30)
    assert seen[0].ok and seen[0].leftovers == () and seen[0].files == 7
