"""Resolving, opening and retiring versions."""

from __future__ import annotations

import json
from pathlib import Path

import adapter_folders as made
import pytest
from sqlalchemy import text

from rlhf.errors import BadInput, BadUsage, Conflict, Damaged, NotFound, RlhfError
from rlhf.registry import aliases, list_versions, open_version, resolve, retire, show
from rlhf.store import Workspace


def test_each_spelling_means_one_version(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 0)
    ref = made.published(workspace, tmp_path, 1)
    aliases.move(workspace, "hh@champion", "hh@2", why="better")
    for spelled in (
        "hh@2",
        "hh@02",
        "hh@champion",
        f"sha256:{ref.digest}",
        f"sha256:{ref.digest[:12]}",
        f"sha256:{ref.digest[:20].upper()}",
    ):
        assert resolve(workspace, spelled) == ref, spelled


@pytest.mark.parametrize(
    "spelled",
    [
        "",
        "@",
        "hh",
        "hh@",
        "@1",
        "hh@9",
        "hh@0",
        "hh@-1",
        "hh@1 ",
        "hh@champion",
        "HH@1",
        "h@1",
        "hh@²",
        "hh@1@1",
        "sha256:",
        "sha256:abc",
        "sha256:" + "0" * 64,
        "sha256:" + "0" * 65,
        "base:tiny",
        "sha256:%%%%%%%%%%%%",
        "hh@99999999999999999999",
        "../hh@1",
    ],
)
def test_an_unknown_version_is_an_error_never_another_one(workspace: Workspace, tmp_path: Path, spelled: str) -> None:
    made.published(workspace, tmp_path, 0)
    with pytest.raises((NotFound, BadInput, BadUsage)) as refused:
        resolve(workspace, spelled)
    assert refused.value.fix


def test_the_error_names_what_is_near(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 0, "harmless")
    aliases.move(workspace, "harmless@champion", "harmless@1", why="first")
    for spelled, near in (
        ("harmless@4", "harmless@1"),
        ("harmles@1", "harmless"),
        ("harmless", "harmless@1"),
        ("harmless@champoin", "harmless@champion"),
    ):
        with pytest.raises(RlhfError) as refused:
            resolve(workspace, spelled)
        assert near in refused.value.fix, spelled


def test_a_digest_that_could_be_two_is_refused_naming_both(workspace: Workspace, tmp_path: Path) -> None:
    ref = made.published(workspace, tmp_path, 0)
    twin = ref.digest[:20] + "f" * 44
    with workspace.write() as write:
        columns = "role, kind, path, base_digest, snapshot_digest, manifest, run_id, actor, created_at, retired_at"
        write.connection.execute(
            text(
                f"insert into versions (digest, name, number, {columns}) select :twin, name, 2, {columns} from versions"
            ),
            {"twin": twin},
        )
    with pytest.raises(NotFound, match=r"hh@1 .* hh@2"):
        resolve(workspace, f"sha256:{ref.digest[:16]}")
    assert resolve(workspace, f"sha256:{twin}").number == 2


def test_the_other_role_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 0, "p", head=False)
    with pytest.raises(BadInput, match="p@1 is a policy, wanted a reward"):
        resolve(workspace, "p@1", role="reward")
    assert resolve(workspace, "p@1", role="policy").role == "policy"


def test_nothing_published_changes(workspace: Workspace, tmp_path: Path) -> None:
    """A changed byte in any file of a version is found when it is opened, and the file is named."""
    folder = open_version(workspace, made.published(workspace, tmp_path, 1)).folder
    for file in sorted(folder.iterdir()):
        before = file.read_bytes()
        for at in (0, len(before) // 2, len(before) - 1):
            file.write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
            with pytest.raises(Damaged, match=f"versions/hh/1/{file.name} was changed"):
                open_version(workspace, "hh@1")
        file.write_bytes(before)
    assert open_version(workspace, "hh@1").ref.number == 1


def test_a_missing_or_added_file_is_named(workspace: Workspace, tmp_path: Path) -> None:
    folder = open_version(workspace, made.published(workspace, tmp_path, 1)).folder
    (folder / "extra.py").write_text("")
    with pytest.raises(Damaged, match=r"versions/hh/1/extra\.py was never published"):
        open_version(workspace, "hh@1")
    (folder / "extra.py").unlink()
    (folder / "manifest.json").unlink()
    with pytest.raises(Damaged, match=r"versions/hh/1/manifest\.json is missing"):
        open_version(workspace, "hh@1")


def test_a_change_that_also_forges_the_checksum_is_found_by_the_digest(workspace: Workspace, tmp_path: Path) -> None:
    from rlhf.ids import digest_file

    file = open_version(workspace, made.published(workspace, tmp_path, 1)).folder / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["settings"]["epochs"] = 99
    file.write_text(json.dumps(manifest))
    with workspace.write() as write:
        write.connection.execute(
            text("update files set sha256 = :sha, n_bytes = :n where path = 'versions/hh/1/manifest.json'"),
            {"sha": digest_file(file), "n": file.stat().st_size},
        )
    with pytest.raises(Damaged, match=r"hh@1 .* has digest"):
        open_version(workspace, "hh@1")


def test_a_retired_version_opens_for_audit_and_is_not_promoted(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 0)
    first = retire(workspace, "hh@1").retired_at
    assert first is not None and retire(workspace, "hh@1").retired_at == first
    assert open_version(workspace, "hh@1").ref.number == 1
    with pytest.raises(BadInput, match="hh@1 was retired"):
        aliases.move(workspace, "hh@champion", "hh@1", why="again")


def test_a_version_that_an_alias_points_at_is_not_retired(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 0)
    aliases.move(workspace, "hh@champion", "hh@1", why="first")
    with pytest.raises(Conflict, match="hh@champion points at"):
        retire(workspace, "hh@1")


def test_list_and_show_say_what_is_there(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 0, "b", simulated=True)
    made.published(workspace, tmp_path, 1, "a", head=False)
    aliases.move(workspace, "b@champion", "b@1", why="first")
    assert [str(row.ref) for row in list_versions(workspace)] == ["a@1", "b@1"]
    assert [str(row.ref) for row in list_versions(workspace, "reward")] == ["b@1"]
    row = show(workspace, "b@champion")
    assert row.aliases == ("b@champion",) and row.as_json()["simulated"] is True
    assert row.manifest["metrics"] == {"accuracy": 0.7}
