"""`gc --to-budget`: the cheapest loss first, no more than it takes, and nothing that anything names."""

from __future__ import annotations

import os
from pathlib import Path

import adapter_folders as made
import pytest
from served import settings
from sqlalchemy import insert

from rlhf.errors import BadUsage
from rlhf.ids import now, now_text
from rlhf.registry import aliases, lineage, publish, retire, show, verify
from rlhf.registry.versions import FilesGone, open_version
from rlhf.serving import rollouts
from rlhf.store import Workspace, audit, room, tables
from rlhf.store.backup import back_up
from rlhf.store.cache import STATES, Cache
from rlhf.store.thinning import thin


def _over(workspace: Workspace, n_bytes: int) -> None:
    """A budget that is passed by so much and what SQLite's log grows by meanwhile, which is less than a tenth of it."""
    room.set_budget(workspace, room.room_of(workspace).used - n_bytes)


def _versions(workspace: Workspace, scratch: Path, n: int) -> list[str]:
    """hh@1 to hh@n, each of a megabyte, all retired but the last."""
    digests = []
    for seed in range(n):
        staged = made.make(scratch / f"staged-{seed}", seed)
        (staged / "README.md").write_bytes(b"x" * 10**6)
        digests.append(publish(workspace, staged, made.draft("hh"), made.evidence()).digest)
    for number in range(1, n):
        retire(workspace, f"hh@{number}")
    return digests


def _with_states(workspace: Workspace, n: int) -> list[Path]:
    """Kept states of a megabyte each, read one after the other."""
    cache = Cache(workspace.root / STATES, 2**30)
    for i in range(n):
        cache.put(f"{i:02}owner", "key", b"x" * 10**6)
    files = sorted((workspace.root / STATES).glob("*/*/*"))
    for i, file in enumerate(files):
        os.utime(file, (now().timestamp() - 1000 + i,) * 2)
    return files


def test_without_a_budget_there_is_nothing_to_meet(workspace: Workspace) -> None:
    with pytest.raises(BadUsage, match="no disk budget") as refused:
        thin(workspace)
    assert "rlhf gc --budget" in refused.value.fix


def test_caches_go_first_the_oldest_and_no_more_than_it_takes(workspace: Workspace, tmp_path: Path) -> None:
    _versions(workspace, tmp_path, 2)
    files = _with_states(workspace, 5)
    _over(workspace, 1_500_000)
    dry = thin(workspace, dry_run=True)
    assert all(file.exists() for file in files)
    gone = thin(workspace)
    assert gone.kinds == dry.kinds and not gone.is_dry
    assert [file.exists() for file in files] == [False, False, True, True, True]
    assert gone.kinds["retired"].n_bytes == 0 and open_version(workspace, "hh@1")


def test_files_of_retired_versions_go_when_caches_were_not_enough_and_the_rest_stays_true(
    workspace: Workspace, tmp_path: Path
) -> None:
    digests = _versions(workspace, tmp_path, 4)
    files = _with_states(workspace, 1)
    _over(workspace, 1_100_000)
    dry = thin(workspace, dry_run=True)
    assert [path.partition(":")[0] for path in dry.kinds["retired"].paths] == ["hh@1"]
    assert open_version(workspace, "hh@1").ref.digest == digests[0]
    assert thin(workspace).kinds["retired"] == dry.kinds["retired"]
    assert not files[0].exists()
    with pytest.raises(FilesGone, match="hh@1 was retired, and its files were removed"):
        open_version(workspace, "hh@1")
    assert [open_version(workspace, f"hh@{n}").ref.number for n in (2, 3, 4)] == [2, 3, 4]
    assert show(workspace, "hh@1").manifest["digest"] == digests[0] and lineage(workspace, "hh@1")
    assert verify(workspace).ok and verify(workspace, "hh@1").ok and not verify(workspace).leftovers
    back_up(workspace, tmp_path / "monday")
    with workspace.read() as connection:
        audit.verify(connection)
        assert [one["subject"] for one in audit.entries(connection, action="version.files_removed")] == ["hh@1"]
    room.set_budget(workspace, 1)
    assert [path.partition(":")[0] for path in thin(workspace, dry_run=True).kinds["retired"].paths] == ["hh@2", "hh@3"]


def test_what_anything_names_stays_however_little_room_there_is(workspace: Workspace, tmp_path: Path) -> None:
    refs = [made.published(workspace, tmp_path, seed, head=False) for seed in range(7)]
    parent, aliased, once, arm, reported, served, free = refs
    made.published(workspace, tmp_path, 9, head=False, parents=(("from", parent.digest),))
    for ref in (once, aliased):
        aliases.move(workspace, "hh@champion", str(ref), why="up")
    rollout = rollouts.start(workspace, "hh@champion", settings("canary", str(arm)), why="try")
    rollouts.roll_back(workspace, rollout.id, why="enough")
    made.report(workspace, "ab12" * 16, {str(reported): {"n": 1}})
    with workspace.write() as write:
        row = {"request_id": "r", "at": now_text(), "model_asked": "hh", "name": "hh", "rule": "direct"}
        row |= {"digest": served.digest, "propensity": 1.0, "reason": "{}", "status": "ok", "consent": ""}
        write.connection.execute(insert(tables.exposures), [row])
    for ref in (parent, once, arm, reported, served, free):
        retire(workspace, str(ref))
    room.set_budget(workspace, 1)
    gone = thin(workspace)
    assert [path.partition(":")[0] for path in gone.kinds["retired"].paths] == [str(free)]
    for ref in (parent, aliased, once, arm, reported, served):
        assert open_version(workspace, ref).ref == ref
