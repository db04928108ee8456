"""Publishing: what becomes a version, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import adapter_folders as made
import pytest
from sqlalchemy import select

from rlhf.errors import BadInput, NotFound
from rlhf.ids import canonical_json, clock_at, digest_text
from rlhf.registry import Evidence, list_versions, open_version, publish
from rlhf.store import Workspace, audit
from rlhf.store.tables import bases, version_parents


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        (None, "needs evidence"),
        (made.evidence(reloaded_scores=(0.5, -1.25, 2.5)), "differ by up to 0.5"),
        (made.evidence(reloaded_scores=(0.5, -1.25)), "3 probe scores before saving, 2 after"),
        (made.evidence(trained_scores=(), reloaded_scores=()), "0 probe scores"),
        (made.evidence(trained_scores=(0.0, 0.0), reloaded_scores=(0.0, 0.0)), "the head is lost"),
        (made.evidence(trained_scores=(0.3, 0.3), reloaded_scores=(0.3, 0.3)), "the head is lost"),
        (made.evidence(reloaded_scores=(0.5, float("nan"), 2.0)), "NaN"),
        (made.evidence(trained_scores=(0.5, float("inf"), 2.0)), "infinite"),
        (made.evidence(reloaded_scores=(0.5, -1.25, 2.5), tolerance=1.0), "hides a lost head"),
        (made.evidence(tolerance=float("nan")), "hides a lost head"),
    ],
)
def test_registry_refuses_a_reward_without_its_head(
    workspace: Workspace, tmp_path: Path, evidence: Evidence | None, said: str
) -> None:
    with pytest.raises(BadInput) as refused:
        publish(workspace, made.make(tmp_path / "x"), made.draft(), evidence)
    assert said in refused.value.message
    assert list_versions(workspace) == ()
    assert not list(Path(workspace.artifacts.root).rglob("*.safetensors"))


def test_a_policy_needs_no_probe(workspace: Workspace, tmp_path: Path) -> None:
    ref = publish(workspace, made.make(tmp_path / "p", head=False), made.draft("p", head=False))
    assert str(ref) == "p@1" and ref.role == "policy"


def test_the_same_content_again_is_the_same_version(workspace: Workspace, tmp_path: Path) -> None:
    first = made.published(workspace, tmp_path, 1)
    assert made.published(workspace, tmp_path, 1, metrics={"accuracy": 0.9}, run_id="x") == first
    assert made.published(workspace, tmp_path, 1, name="another") == first
    assert len(list_versions(workspace)) == 1


def test_numbers_count_up_within_a_name(workspace: Workspace, tmp_path: Path) -> None:
    refs = [made.published(workspace, tmp_path, seed, name) for seed, name in ((0, "a"), (1, "b"), (2, "a"), (3, "a"))]
    assert [str(ref) for ref in refs] == ["a@1", "b@1", "a@2", "a@3"]


@pytest.mark.parametrize(
    "changed",
    [
        {"base_digest": digest_text("b")},
        {"tokenizer_digest": digest_text("b")},
        {"template_digest": digest_text("b")},
        {"snapshot_digest": digest_text("b")},
        {"settings": {"epochs": 2}},
        {"seeds": {"seed": 1}},
    ],
)
def test_digest_covers_what_made_the_version(workspace: Workspace, tmp_path: Path, changed: dict[str, Any]) -> None:
    assert made.published(workspace, tmp_path, 0).digest != made.published(workspace, tmp_path, 0, **changed).digest


def test_digest_covers_content_only(tmp_path: Path) -> None:
    """Another workspace, day, actor, name, base path, metric: the same digest."""
    one = Workspace.create(tmp_path / "one", actor="ann")
    other = Workspace.create(tmp_path / "other", actor="bob")
    with clock_at(1e9):
        first = made.published(one, tmp_path, 5)
    staged = made.make(tmp_path / "moved", 5, base_model_name_or_path="/mnt/elsewhere", peft_version="0.22.0")
    draft = made.draft("bobs", base_name="mine", metrics={}, details={"device": "cuda"}, run_id="r" * 26)
    assert publish(other, staged, draft, made.evidence()).digest == first.digest


def test_a_version_forgets_where_its_base_lay(workspace: Workspace, tmp_path: Path) -> None:
    folder = open_version(workspace, made.published(workspace, tmp_path, 1)).folder
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    assert all(b"somewhere" not in file.read_bytes() for file in folder.iterdir())


def test_publishing_leaves_the_staged_folder_as_it_is(workspace: Workspace, tmp_path: Path) -> None:
    staged = made.make(tmp_path / "x", 1)
    (staged / "notes.txt").write_text("mine")
    before = {file.name: file.read_bytes() for file in staged.iterdir()}
    ref = publish(workspace, staged, made.draft(), made.evidence())
    assert {file.name: file.read_bytes() for file in staged.iterdir()} == before
    assert "notes.txt" not in {file.name for file in open_version(workspace, ref).folder.iterdir()}


def test_probe_scores_stand_in_the_manifest(workspace: Workspace, tmp_path: Path) -> None:
    probe = open_version(workspace, made.published(workspace, tmp_path, 1)).manifest["probe"]
    assert probe["scores"] == [0.5, -1.25, 2.00002] and probe["texts_digest"] == digest_text("probes")
    assert probe["largest_difference"] == pytest.approx(2e-5)


@pytest.mark.parametrize("name", ["", "7", "a@b", "a/b", "..", ".", "a b", "ä", "x" * 101, "a\n"])
def test_a_name_that_could_be_read_otherwise_is_refused(workspace: Workspace, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="name"):
        publish(workspace, made.make(tmp_path / "x"), made.draft(name), made.evidence())


@pytest.mark.parametrize(
    "changed", [{"settings": {"x": float("nan")}}, {"seeds": {"x": object()}}, {"details": {"x": "\ud800"}}]
)
def test_a_draft_that_is_no_json_is_refused(workspace: Workspace, tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="no JSON"):
        publish(workspace, made.make(tmp_path / "x"), made.draft(**changed), made.evidence())


def test_a_folder_of_the_other_role_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="task_type makes it a policy"):
        publish(workspace, made.make(tmp_path / "p", head=False), made.draft(), made.evidence())


def test_parents_are_recorded_and_must_be_here(workspace: Workspace, tmp_path: Path) -> None:
    parent = made.published(workspace, tmp_path, 0)
    child = made.published(workspace, tmp_path, 1, parents=(("from", parent.digest),))
    with workspace.read() as connection:
        row = connection.execute(select(version_parents)).one()
    assert (row.digest, row.parent, row.relation) == (child.digest, parent.digest, "from")
    with pytest.raises(NotFound, match="no version here"):
        made.published(workspace, tmp_path, 2, parents=(("from", "0" * 64),))
    with pytest.raises(BadInput, match="relation is 'uncle'"):
        made.published(workspace, tmp_path, 2, parents=(("uncle", parent.digest),))


def test_a_wrong_base_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    row = {
        "name": "tiny",
        "digest": digest_text("another"),
        "path": "bases/tiny",
        "origin": "{}",
        "actor": "x",
        "created_at": "x",
        "details": canonical_json({"hidden_size": 32, "layers": 2}).decode(),
    }
    made.add_rows(workspace, bases, row)
    with pytest.raises(BadInput, match="base tiny has digest"):
        made.published(workspace, tmp_path, 0)
    with pytest.raises(BadInput, match="the head reads 16 numbers, the base gives 32"):
        made.published(workspace, tmp_path, 0, base_digest=digest_text("another"))


def test_every_publication_is_in_the_audit_log_with_its_actor(workspace: Workspace, tmp_path: Path) -> None:
    ref = made.published(workspace.as_actor("ann"), tmp_path, 1)
    with workspace.read() as connection:
        entry = audit.entries(connection, action="version.publish")[-1]
    assert (entry["actor"], entry["subject"], entry["details"]["digest"]) == ("ann", "hh@1", ref.digest)


_PUBLISH = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
import adapter_folders as made
from rlhf.store import Workspace
first, count = int(sys.argv[4]), int(sys.argv[5])
workspace = Workspace.open(sys.argv[2])
for seed in range(first, first + count):
    print(made.published(workspace, Path(sys.argv[3]), seed), flush=True)
"""


def test_two_processes_never_take_the_same_number(workspace: Workspace, tmp_path: Path) -> None:
    tests = str(Path(__file__).parent)
    running = []
    for first in (100, 200):
        scratch = tmp_path / str(first)
        arguments = [sys.executable, "-c", _PUBLISH, tests, str(workspace.root), str(scratch), str(first), "8"]
        running.append(subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=60)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sorted(said[0] + said[1]) == sorted(f"hh@{n}" for n in range(1, 17))
    assert [row.ref.number for row in list_versions(workspace)] == list(range(1, 17))


def test_what_a_crash_left_in_the_next_number_s_place_is_replaced(workspace: Workspace, tmp_path: Path) -> None:
    left = Path(workspace.artifacts.root) / "versions" / "hh" / "1"
    shutil.copytree(made.make(tmp_path / "x", 9), left)
    (left / "half").write_text("written")
    ref = made.published(workspace, tmp_path, 1)
    assert not (open_version(workspace, ref).folder / "half").exists()
