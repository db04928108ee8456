"""A walk through folders that others write to."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from rlhf.store.walking import files_in, last_touched, size_of


def _tree(root: Path) -> Path:
    for name in ("a/1", "a/2", "b/c/3", "4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("12345", "utf-8")
    (root / "b" / "link").symlink_to(root / "4")
    return root


def test_what_goes_on_the_way_is_passed_over(tmp_path: Path) -> None:
    walk = files_in(_tree(tmp_path))
    assert next(walk) == tmp_path / "4"
    shutil.rmtree(tmp_path / "a")
    assert list(walk) == [tmp_path / "b" / "c" / "3"]


def test_a_link_is_neither_followed_nor_counted(tmp_path: Path) -> None:
    assert [file.name for file in files_in(_tree(tmp_path))] == ["4", "1", "2", "3"]
    assert size_of(tmp_path) == 20 and size_of(tmp_path / "4") == 5


def test_the_youngest_entry_says_when_a_folder_was_touched(tmp_path: Path) -> None:
    for entry in (tmp_path, *_tree(tmp_path).rglob("*")):
        os.utime(entry, times=(1000, 1000), follow_symlinks=False)
    assert last_touched(tmp_path) == 1000
    os.utime(tmp_path / "b" / "c" / "3", times=(2000, 2000))
    assert last_touched(tmp_path) == 2000
    os.utime(tmp_path / "b", times=(3000, 3000))  # something was removed there
    assert last_touched(tmp_path) == 3000


def test_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert (list(files_in(gone)), size_of(gone), last_touched(gone)) == ([], 0, None)
