"""Lineage up to the sources and down to what came of them."""

from __future__ import annotations

import json
from pathlib import Path

import adapter_folders as made
import pytest

from rlhf.errors import BadInput, Damaged, NotFound
from rlhf.ids import digest_text
from rlhf.records import VersionRef
from rlhf.registry import descendants, lineage
from rlhf.store import Workspace
from rlhf.store.tables import snapshots

CUT = digest_text("the rows of a cut")
BY_SOURCE = {
    "hh": {"pairs": 7, "judgements": 7, "labelers": 0, "judgements_of_unknown": 7},
    "survey": {"pairs": 2, "judgements": 5, "labelers": 3, "judgements_of_unknown": 0},
}


def _snapshot(workspace: Workspace, name: str, number: int, digest: str) -> None:
    """A snapshot as the store sees it: a row and a published manifest."""
    manifest = {
        "schema_version": 1,
        "digest": digest,
        "pairs": 9,
        "judgements": 12,
        "sources": {"hh": 7, "survey": 2},
        "by_source": BY_SOURCE,
        "labelers": {"known": 3, "judgements_of_unknown": 7},
        "kinds": {"human": 12},
        "consents": {"evaluate,train": 12},
    }
    path = f"snapshots/{name}/{number}"
    with workspace.artifacts.staging() as folder:
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with workspace.write() as write:
            workspace.artifacts.publish(write.connection, folder, path)
            write.connection.execute(
                snapshots.insert().values(
                    name=name,
                    number=number,
                    digest=digest,
                    path=path,
                    rule="{}",
                    n_pairs=9,
                    n_train=8,
                    n_test=1,
                    actor="x",
                    created_at=f"2026-01-0{number}",
                )
            )


@pytest.fixture
def family(workspace: Workspace, tmp_path: Path) -> dict[str, VersionRef]:
    """cut -> hh@1 -> hh@2 (from) -> hh@3 (calibrates); hh@2 and hh@1 -> both@1 (member); p@1 (reward hh@3) -> p@2
    (from, reward).
    """
    _snapshot(workspace, "harmless", 1, CUT)
    first = made.published(workspace, tmp_path, 1, snapshot_digest=CUT)
    second = made.published(workspace, tmp_path, 2, snapshot_digest=CUT, parents=(("from", first.digest),))
    third = made.published(workspace, tmp_path, 3, parents=(("calibrates", second.digest),))
    both = made.published(workspace, tmp_path, 4, "both", parents=(("member", first.digest), ("member", second.digest)))
    policy = made.published(workspace, tmp_path, 5, "p", head=False, parents=(("reward", third.digest),))
    later = made.published(
        workspace, tmp_path, 6, "p", head=False, parents=(("from", policy.digest), ("reward", third.digest))
    )
    return {str(ref): ref for ref in (first, second, third, both, policy, later)}


def test_lineage_names_every_ancestor_a_policy_s_reward_included(
    workspace: Workspace, family: dict[str, VersionRef]
) -> None:
    line = lineage(workspace, "p@2")
    assert [(str(a.version), a.relation, a.of) for a in line.ancestors] == [
        ("p@1", "from", "p@2"),
        ("hh@3", "reward", "p@2"),
        ("hh@3", "reward", "p@1"),
        ("hh@2", "calibrates", "hh@3"),
        ("hh@1", "from", "hh@2"),
    ]
    assert {one["version"] for one in line.as_json()["ancestors"]} == {"p@1", "hh@1", "hh@2", "hh@3"}


def test_lineage_reaches_the_sources_with_their_counts(workspace: Workspace, family: dict[str, VersionRef]) -> None:
    (cut,) = lineage(workspace, "p@1").snapshots
    assert (cut.names, cut.digest, cut.of) == (("harmless@1",), CUT, ("hh@2", "hh@1"))
    assert (cut.pairs, cut.judgements, cut.sources) == (9, 12, {"hh": 7, "survey": 2})
    assert cut.by_source == BY_SOURCE and cut.as_json()["by_source"] == BY_SOURCE
    assert cut.labelers == {"known": 3, "judgements_of_unknown": 7} and cut.kinds == {"human": 12}


def test_every_cut_with_the_same_rows_is_named(workspace: Workspace, family: dict[str, VersionRef]) -> None:
    _snapshot(workspace, "harmless", 2, CUT)
    (cut,) = lineage(workspace, "hh@1").snapshots
    assert cut.names == ("harmless@1", "harmless@2")


def test_a_snapshot_from_elsewhere_is_named_by_its_digest(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 1, snapshot_digest="ab" * 32)
    (cut,) = lineage(workspace, "hh@1").snapshots
    assert cut.as_json()["snapshot"] is None and cut.digest == "ab" * 32


def test_descendants_of_a_version(workspace: Workspace, family: dict[str, VersionRef]) -> None:
    found = {(str(d.version), d.relation, d.of) for d in lineage(workspace, "hh@2").descendants}
    assert found == {
        ("hh@3", "calibrates", "hh@2"),
        ("both@1", "member", "hh@2"),
        ("p@1", "reward", "hh@3"),
        ("p@2", "reward", "hh@3"),
        ("p@2", "from", "p@1"),
    }
    assert descendants(workspace, version="hh@2") == lineage(workspace, "hh@2").descendants


@pytest.mark.parametrize("snapshot", ["harmless", "harmless@1", f"sha256:{CUT[:12]}"])
def test_descendants_of_a_snapshot_are_all_that_learnt_from_it(
    workspace: Workspace, family: dict[str, VersionRef], snapshot: str
) -> None:
    found = descendants(workspace, snapshot=snapshot)
    assert {str(one.version) for one in found} == set(family)
    assert [str(one.version) for one in found if one.relation == "trained-on"] == ["hh@1", "hh@2"]
    assert len(found) == len(family)


def test_one_of_version_and_snapshot_is_wanted(workspace: Workspace) -> None:
    with pytest.raises(BadInput):
        descendants(workspace)
    with pytest.raises(BadInput):
        descendants(workspace, version="a@1", snapshot="a")
    with pytest.raises(NotFound, match="no snapshot none"):
        descendants(workspace, snapshot="none")


def test_a_changed_snapshot_manifest_is_not_believed(workspace: Workspace, family: dict[str, VersionRef]) -> None:
    file = Path(workspace.artifacts.root) / "snapshots/harmless/1/manifest.json"
    file.write_text(file.read_text().replace("9", "8"))
    with pytest.raises(Damaged, match=r"snapshots/harmless/1/manifest\.json"):
        lineage(workspace, "hh@1")
