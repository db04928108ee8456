"""Bases: brought in once, digested, and never used once their bytes have changed."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from rlhf import engine, reward
from rlhf.engine import bases
from rlhf.engine.tiny import write_tiny_base
from rlhf.errors import BadInput, Conflict, Damaged, NotFound, RlhfError
from rlhf.store import Workspace


def test_the_same_base_again_is_that_base(workspace: Workspace, tiny_folder: Path) -> None:
    first = engine.add_from_dir(workspace, "tiny", tiny_folder)
    assert engine.add_from_dir(workspace, "tiny", tiny_folder) == first
    assert [base.name for base in engine.list_bases(workspace)] == ["tiny"]


def test_another_model_under_the_name_is_refused(workspace: Workspace, tiny_folder: Path, tmp_path: Path) -> None:
    engine.add_from_dir(workspace, "tiny", tiny_folder)
    with pytest.raises(Conflict, match="another model"):
        engine.add_from_dir(workspace, "tiny", write_tiny_base(tmp_path / "other", seed=1))


def test_the_digest_is_of_content_whatever_the_folder(workspace: Workspace, tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "elsewhere")
    one = engine.add_from_dir(workspace, "one", tiny_folder)
    assert engine.add_from_dir(workspace, "two", tmp_path / "elsewhere").digest == one.digest


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "chat_template.jinja", "config.json"])
def test_no_silent_base_whose_bytes_changed(workspace: Workspace, tiny_base: bases.Base, file: str) -> None:
    """Promise 5: a changed weight would change every score, and nothing else would show it."""
    bases.check(workspace, tiny_base)
    path = tiny_base.folder / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    path.write_bytes(content)
    with pytest.raises(Damaged, match="base 'tiny'"):
        bases.check(workspace, tiny_base)
    assert bases.problems(workspace)
    with pytest.raises(RlhfError):
        reward.train(workspace, reward.RewardSettings(name="x", snapshot="none", base="tiny"))


LACKING = {"config.json": r"no config\.json", "model.safetensors": "no safetensors", "tokenizer.json": "no tokenizer"}


@pytest.mark.parametrize("gone", LACKING)
def test_a_folder_that_lacks_a_part_is_refused(
    workspace: Workspace, tiny_folder: Path, tmp_path: Path, gone: str
) -> None:
    shutil.copytree(tiny_folder, tmp_path / "holed")
    (tmp_path / "holed" / gone).unlink()
    with pytest.raises(BadInput, match=LACKING[gone]):
        engine.add_from_dir(workspace, "holed", tmp_path / "holed")
    with pytest.raises(NotFound):
        engine.get(workspace, "holed")
    assert not list((workspace.root / "bases").iterdir())


def test_a_template_that_leaves_replies_out_is_refused(workspace: Workspace, tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "deaf")
    (tmp_path / "deaf" / "chat_template.jinja").write_text("{% for m in messages %}{{ m['role'] }}{% endfor %}")
    with pytest.raises(BadInput, match="leaves replies out"):
        engine.add_from_dir(workspace, "deaf", tmp_path / "deaf")


def test_two_additions_at_once_leave_one_whole_base(workspace: Workspace, tiny_folder: Path) -> None:
    failures: list[BaseException] = []

    def add() -> None:
        try:
            engine.add_from_dir(workspace, "tiny", tiny_folder)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    bases.check(workspace, engine.get(workspace, "tiny"), afresh=True)
    assert [f.name for f in (workspace.root / "bases").iterdir()] == ["tiny"]


def test_no_file_is_no_gguf(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no file"):
        engine.add_from_gguf(workspace, "x", tmp_path / "none.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGUFnonsense")
    with pytest.raises(BadInput, match="can't be read as GGUF"):
        engine.add_from_gguf(workspace, "x", tmp_path / "bad.gguf")
    assert not engine.list_bases(workspace)
