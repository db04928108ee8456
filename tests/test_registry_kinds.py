"""Versions of kind head and ensemble: what is broken is refused, and each kind is itself in every verb of the registry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapter_folders import draft, evidence, published
from safetensors.numpy import save_file

from rlhf import registry
from rlhf.errors import BadInput, NotFound, RlhfError
from rlhf.ids import digest_text
from rlhf.records import VersionRef
from rlhf.registry import checks
from rlhf.registry.folder import read
from rlhf.store import Workspace

HIDDEN = 4
HEAD: dict[str, Any] = {"format": 1, "layers": [2, 3], "pooling": ["last", "mean"], "hidden": HIDDEN, "opening": [1, 7]}
ENSEMBLE: dict[str, Any] = {"members": [], "combine": "mean", "k": 1.0, "scale": 1.0}


def head_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    n = 4 * HIDDEN
    made = {
        "weight": draw.normal(size=n),
        "mean": draw.normal(size=n),
        "scale": 0.1 + draw.random(n),
        "prior_variance": np.array([0.5]),
        "shrink": draw.normal(size=(n, 3)) * 0.1,
    }
    return {name: values.astype(np.float32) for name, values in made.items()}


def head_folder(
    folder: Path, tensors: Mapping[str, np.ndarray] | None = None, config: Mapping[str, Any] | None = None
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(head_tensors() if tensors is None else tensors), str(folder / "head.safetensors"))
    (folder / "head.json").write_text(json.dumps(HEAD if config is None else config), "utf-8")
    return folder


def ensemble_folder(folder: Path, **changed: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ensemble.json").write_text(json.dumps({**ENSEMBLE, **changed}), "utf-8")
    return folder


def publish_head(workspace: Workspace, scratch: Path, seed: int = 0, **changed: Any) -> VersionRef:
    folder = head_folder(scratch / f"head-{seed}", head_tensors(seed))
    return registry.publish(workspace, folder, draft("instant", kind="head", **changed), evidence())


def publish_ensemble(workspace: Workspace, scratch: Path, members: list[VersionRef], **changed: Any) -> VersionRef:
    digests = [member.digest for member in members]
    folder = ensemble_folder(scratch / "ensemble", members=digests, **changed)
    parents = tuple(("member", digest) for digest in digests)
    return registry.publish(workspace, folder, draft("both", kind="ensemble", parents=parents), evidence())


@pytest.fixture
def members(workspace: Workspace, tmp_path: Path) -> list[VersionRef]:
    return [published(workspace, tmp_path, seed) for seed in (0, 1)]


def test_a_head_is_published_opened_and_verified(workspace: Workspace, tmp_path: Path) -> None:
    ref = publish_head(workspace, tmp_path)
    opened = registry.open_version(workspace, ref)
    assert (opened.kind, ref.role) == ("head", "reward")
    assert {file.name for file in opened.folder.iterdir()} == {"head.json", "head.safetensors", "manifest.json"}
    assert json.loads((opened.folder / "head.json").read_text("utf-8")) == HEAD
    assert registry.verify(workspace).ok
    assert publish_head(workspace, tmp_path) == ref
    assert publish_head(workspace, tmp_path, seed=1).digest != ref.digest


def test_what_a_head_reads_is_part_of_its_digest(workspace: Workspace, tmp_path: Path) -> None:
    one = publish_head(workspace, tmp_path)
    folder = head_folder(tmp_path / "other", config={**HEAD, "layers": [1, 3]})
    other = registry.publish(workspace, folder, draft("instant", kind="head"), evidence())
    assert one.digest != other.digest


def test_a_changed_head_is_damaged(workspace: Workspace, tmp_path: Path) -> None:
    opened = registry.open_version(workspace, publish_head(workspace, tmp_path))
    file = opened.folder / "head.json"
    file.chmod(0o644)
    file.write_text(file.read_text("utf-8").replace("[\n    2", "[\n    1"), "utf-8")
    assert not registry.verify(workspace).ok
    with pytest.raises(RlhfError, match=r"head\.json"):
        registry.open_version(workspace, opened.ref)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"layers": []}, "layers"),
        ({"layers": [3, 2]}, "rising"),
        ({"layers": [0, 2]}, "rising"),
        ({"layers": [True, 2]}, "rising"),
        ({"layers": "2"}, "rising"),
        ({"pooling": ["mean", "last"]}, "pooling"),
        ({"pooling": ["first"]}, "pooling"),
        ({"hidden": 0}, "hidden"),
        ({"hidden": 5}, "shape"),
        ({"format": 2}, "format 2"),
        ({"opening": [-1]}, "opening"),
        ({"opening": None}, "opening"),
        ({"code": "x"}, "unknown key code"),
    ],
)
def test_a_broken_heads_configuration_is_refused(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        checks.check_folder(head_folder(tmp_path / "h", config={**HEAD, **changed}), kind="head")


def test_a_heads_configuration_lacks_nothing(tmp_path: Path) -> None:
    for key in HEAD:
        config = {name: value for name, value in HEAD.items() if name != key}
        with pytest.raises(BadInput, match=f"lacks {key}"):
            checks.check_folder(head_folder(tmp_path / key, config=config), kind="head")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("weight", np.full(16, np.nan, np.float32), "weight holds NaN"),
        ("weight", np.zeros(16, np.float32), "never fitted"),
        ("weight", np.ones(15, np.float32), "shape"),
        ("scale", np.zeros(16, np.float32), "scale is not above 0"),
        ("prior_variance", np.array([-1.0], np.float32), "prior_variance is not above 0"),
        ("shrink", np.ones((15, 3), np.float32), "shape"),
        ("shrink", np.ones(16, np.float32), "shape"),
        ("mean", np.ones((16, 1), np.float32), "shape"),
        ("mean", np.ones(16, np.int64), "floating point"),
        ("more", np.ones(16, np.float32), "unknown tensor more"),
    ],
)
def test_a_broken_heads_tensors_are_refused(tmp_path: Path, name: str, value: np.ndarray, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        checks.check_folder(head_folder(tmp_path / "h", {**head_tensors(), name: value}), kind="head")


def test_a_head_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    for name in head_tensors():
        rest = {other: value for other, value in head_tensors().items() if other != name}
        with pytest.raises(BadInput, match=f"lacks tensor {name}"):
            checks.check_folder(head_folder(tmp_path / name, rest), kind="head")


def test_a_head_does_not_fit_another_base(tmp_path: Path) -> None:
    adapter = read(head_folder(tmp_path / "h"), "head")
    checks.check_base(adapter, {"hidden_size": HIDDEN, "layers": 3})
    with pytest.raises(BadInput, match="layer 3, the base has 2"):
        checks.check_base(adapter, {"hidden_size": HIDDEN, "layers": 2})
    with pytest.raises(BadInput, match="reads 4 numbers"):
        checks.check_base(adapter, {"hidden_size": 8, "layers": 3})


def test_a_head_needs_evidence_like_any_reward(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="evidence"):
        registry.publish(workspace, head_folder(tmp_path / "h"), draft("instant", kind="head"), None)


def test_an_ensemble_names_members_and_holds_no_weights(
    workspace: Workspace, tmp_path: Path, members: list[VersionRef]
) -> None:
    ref = publish_ensemble(workspace, tmp_path, members)
    opened = registry.open_version(workspace, ref)
    assert opened.kind == "ensemble"
    assert {file.name for file in opened.folder.iterdir()} == {"ensemble.json", "manifest.json"}
    assert registry.verify(workspace).ok
    above = {(str(one.version), one.relation) for one in registry.lineage(workspace, ref).ancestors}
    assert above == {("hh@1", "member"), ("hh@2", "member")}
    difference = registry.diff(workspace, ref, members[0])
    assert difference.made_of["kind"] == ("ensemble", "lora")
    assert registry.diff(workspace, ref, ref).config == {}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"combine": "max"}, "combine"),
        ({"k": -1}, "k -1"),
        ({"k": True}, "k True"),
        ({"scale": 0}, "scale"),
        ({"members": ["x"]}, "digests"),
        ({"members": [digest_text("a")]}, "1 members"),
        ({"members": [digest_text("a")] * 2}, "1 different"),
        ({"weights": [1, 2]}, "unknown key weights"),
    ],
)
def test_a_broken_ensemble_is_refused(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    two = {"members": [digest_text("a"), digest_text("b")]}
    with pytest.raises(BadInput, match=words):
        checks.check_folder(ensemble_folder(tmp_path / "e", **{**two, **changed}), kind="ensemble")


def test_an_ensembles_members_are_its_parents_and_are_here(
    workspace: Workspace, tmp_path: Path, members: list[VersionRef]
) -> None:
    digests = [member.digest for member in members]
    folder = ensemble_folder(tmp_path / "e", members=digests)
    with pytest.raises(BadInput, match="parents are 1"):
        registry.publish(
            workspace, folder, draft("both", kind="ensemble", parents=(("member", digests[0]),)), evidence()
        )
    gone = [digests[0], digest_text("nobody")]
    parents = tuple(("member", digest) for digest in gone)
    with pytest.raises(NotFound, match=digest_text("nobody")[:12]):
        registry.publish(
            workspace,
            ensemble_folder(tmp_path / "gone", members=gone),
            draft("both", kind="ensemble", parents=parents),
            evidence(),
        )


def test_an_ensemble_of_ensembles_or_policies_is_refused(
    workspace: Workspace, tmp_path: Path, members: list[VersionRef]
) -> None:
    ensemble = publish_ensemble(workspace, tmp_path, members)
    with pytest.raises(BadInput, match="kind ensemble"):
        publish_ensemble(workspace, tmp_path / "again", [members[0], ensemble])
    policy = published(workspace, tmp_path, 5, "pol", head=False)
    with pytest.raises(BadInput, match="is a policy"):
        publish_ensemble(workspace, tmp_path / "policy", [members[0], policy])


def test_an_ensemble_on_another_base_is_refused(
    workspace: Workspace, tmp_path: Path, members: list[VersionRef]
) -> None:
    digests = [member.digest for member in members]
    elsewhere = draft(
        "both",
        kind="ensemble",
        base_digest=digest_text("another base"),
        parents=tuple(("member", digest) for digest in digests),
    )
    with pytest.raises(BadInput, match="another base"):
        registry.publish(workspace, ensemble_folder(tmp_path / "e", members=digests), elsewhere, evidence())


def test_exports_say_what_cannot_be_expressed(workspace: Workspace, tmp_path: Path, members: list[VersionRef]) -> None:
    head, ensemble = publish_head(workspace, tmp_path), publish_ensemble(workspace, tmp_path, members)
    with pytest.raises(BadInput, match=r"layer 2, 3.*mean over the reply.*offset.*doubt"):
        registry.export_folder(workspace, head, tmp_path / "out", base_path="x")
    with pytest.raises(BadInput, match="ensemble of 2") as told:
        registry.export_folder(workspace, ensemble, tmp_path / "out", base_path="x")
    assert "hh@1, hh@2" in str(told.value.fix)
    assert not (tmp_path / "out").exists()


def test_a_versions_own_folder_of_any_kind_is_known_again(
    workspace: Workspace, tmp_path: Path, members: list[VersionRef]
) -> None:
    for ref in (publish_head(workspace, tmp_path), publish_ensemble(workspace, tmp_path, members)):
        found = registry.read_folder(registry.open_version(workspace, ref).folder)
        assert found.role == "reward"
        assert registry.find_published(workspace, found) == ref


def test_a_retired_member_still_opens_its_ensemble(
    workspace: Workspace, tmp_path: Path, members: list[VersionRef]
) -> None:
    """What it once answered must stay open to audit."""
    ref = publish_ensemble(workspace, tmp_path, members)
    registry.retire(workspace, str(members[0]))
    assert registry.open_version(workspace, ref).kind == "ensemble"
