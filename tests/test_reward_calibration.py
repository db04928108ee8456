"""Calibration: a child that orders every pair as its parent does and says how sure it is; nothing that was trained on is used."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import CommandLine, copy_of
from preferences import write_polite

from rlhf import engine, feedback, registry, reward, snapshots
from rlhf.errors import BadInput
from rlhf.measures.temperature import temperature
from rlhf.records import Message, SnapshotRow
from rlhf.reward.aside import is_aside, left_aside
from rlhf.reward.score import Item
from rlhf.store import Workspace, runs

QUICK: dict[str, Any] = {
    "snapshot": "polite", "base": "tiny", "dtype": "float32", "lora_r": 4, "pairs_per_step": 8, "max_steps": 6,
    "learning_rate": 3e-3, "test_pairs": 0,
}  # fmt: skip


def train(workspace: Workspace, name: str, **more: Any) -> None:
    reward.train(workspace, reward.RewardSettings(**{"name": name, "set_aside": 0.5, **QUICK, **more}))


def write_votes(path: Path, n: int, seed: int = 0, turned: float = 0.25) -> Path:
    """The polite preferences with a share of them turned round: there is no certainty to be had."""
    rows = [json.loads(line) for line in write_polite(path, n, seed).read_text("utf-8").splitlines()]
    chance = random.Random(seed)
    for row in rows:
        if chance.random() < turned:
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def calibrate(workspace: Workspace, version: str = "r@1", snapshot: str = "polite", **more: Any) -> reward.Calibrated:
    return reward.calibrate(workspace, reward.CalibrationSettings(version=version, snapshot=snapshot, **more))


def differences(workspace: Workspace, version: str, rows: list[SnapshotRow]) -> np.ndarray:
    scores = reward.score_pairs(workspace, version, [row.pair for row in rows])
    return np.array([s.score_a - s.score_b for s in scores])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> tuple[Path, reward.Calibrated]:
    """r@1 set half of its pairs aside and r@2 is r@1 calibrated; all@1 set none aside."""
    root = tmp_path_factory.mktemp("calibration") / "ws"
    workspace = Workspace.create(root, actor="tester")
    engine.add_from_dir(workspace, "tiny", tiny_folder)
    feedback.import_files(workspace, [write_votes(root.parent / "votes.jsonl", n=160)], source="votes")
    snapshots.cut(workspace, "polite", holdout=0.2)
    train(workspace, "r")
    train(workspace, "all", set_aside=0.0, max_steps=1)
    done = calibrate(workspace, target=0.6)
    workspace.close()
    return root, done


@pytest.fixture(scope="module")
def scored(made: tuple[Path, reward.Calibrated]) -> tuple[list[SnapshotRow], dict[str, np.ndarray]]:
    """Every pair with the score differences of parent and child."""
    workspace = Workspace.open(made[0], actor="tester")
    rows = list(snapshots.open_snapshot(workspace, "polite").rows())
    found = {version: differences(workspace, version, rows) for version in ("r@1", "r@2")}
    workspace.close()
    return rows, found


@pytest.fixture
def done(made: tuple[Path, reward.Calibrated]) -> reward.Calibrated:
    return made[1]


@pytest.fixture
def ready(made: tuple[Path, reward.Calibrated], tmp_path: Path) -> Iterator[Workspace]:
    copy = Workspace.open(copy_of(made[0], tmp_path / "ws"), actor="tester")
    yield copy
    copy.close()


def test_a_calibrated_child_orders_every_pair_as_its_parent_does(
    ready: Workspace, done: reward.Calibrated, scored: tuple[list[SnapshotRow], dict[str, np.ndarray]]
) -> None:
    rows, found = scored
    before, after = found["r@1"], found["r@2"]
    assert np.array_equal(np.sign(before), np.sign(after)), "accuracy is what it was, to the last pair"
    assert after == pytest.approx(before / done.temperature, abs=1e-4, rel=1e-3)
    assert done.report["before"]["accuracy"] == done.report["after"]["accuracy"]
    probes = [registry.show(ready, version).manifest["probe"]["scores"] for version in ("r@1", "r@2")]
    assert probes[1] == pytest.approx([score / done.temperature for score in probes[0]], abs=1e-4)
    limit = done.report["threshold"]  # the tiny model learns the rule, so that one exists at this target
    assert limit["exists"] and limit["p"] == pytest.approx(1 / (1 + np.exp(-limit["score_difference"])))
    above = [
        abs(d) >= limit["score_difference"] - 1e-5 for d, row in zip(after, rows, strict=True) if row.split == "test"
    ]
    assert limit["test"]["n"] == len(above) and abs(limit["test"]["n_above"] - sum(above)) <= 1


def test_the_child_names_its_parent_and_what_it_was_fitted_on(ready: Workspace, done: reward.Calibrated) -> None:
    manifest = registry.show(ready, "r@2").manifest
    assert manifest["parents"] == [["calibrates", done.parent.digest]]
    assert manifest["settings"] == {**registry.show(ready, "r@1").manifest["settings"], "temperature": done.temperature}
    assert manifest["snapshot_digest"] == snapshots.open_snapshot(ready, "polite").digest
    assert manifest["metrics"]["set_aside_log_loss"] == done.report["after"]["log_loss"]
    above = registry.lineage(ready, done.version).ancestors
    assert [(str(one.version), one.relation) for one in above] == [("r@1", "calibrates")]
    assert registry.open_version(ready, "r@2").ref == done.version, "every byte and the digest are checked"


def test_only_pairs_that_nobody_trained_on_are_fitted_on(ready: Workspace, done: reward.Calibrated) -> None:
    snapshot = snapshots.open_snapshot(ready, "polite")
    aside = left_aside(ready, registry.resolve(ready, "r@1"), snapshot)
    trained_on = registry.show(ready, "r@1").manifest["details"]["rows"]["trained_on"]
    assert len(aside.train) + trained_on == snapshot.splits["train"] and aside.n_seen == 0
    assert all(is_aside(row.pair.group, 0.5) and row.split == "train" for row in aside.train)
    assert done.report["set_aside"]["pairs"] == done.report["after"]["n"] == len(aside.train)
    assert aside.test is not None and done.report["test"]["n"] == len(aside.test) == snapshot.splits["test"]


def test_the_temperature_is_of_the_set_aside_pairs_alone(
    done: reward.Calibrated, scored: tuple[list[SnapshotRow], dict[str, np.ndarray]]
) -> None:
    rows, found = scored
    aside = np.array([row.split == "train" and is_aside(row.pair.group, 0.5) for row in rows])
    votes = np.array([reward.target_of(row.judgements, "soft") for row in rows])
    assert temperature(found["r@1"][aside], votes[aside]) == pytest.approx(done.temperature, rel=1e-4)


def test_figures_after_are_cross_fitted(done: reward.Calibrated) -> None:
    report = done.report
    assert len(report["fold_temperatures"]) == 5 and report["temperature"] not in report["fold_temperatures"]
    for part in (report, report["test"]):
        change = part["after"]["log_loss"] - part["before"]["log_loss"]
        assert part["gain"]["log_loss"] == pytest.approx(change)
        for found in (part["before"], part["after"]):
            assert sum(b["n"] for b in found["reliability"]) == found["n"]
            assert found["ece_if_perfect"]["mean"] < found["ece_if_perfect"]["p95"]
            assert found["ece_low"] <= found["ece_high"] and found["log_loss_low"] < found["log_loss"]
            assert 0 <= found["calibration_p"] <= 1 and 0 <= found["spiegelhalter_p"] <= 1 and 0 <= found["brier"] <= 1
    assert report["gain"]["log_loss"] < 0, "six steps at this learning rate don't give calibrated scores"


def test_a_run_leaves_its_report_and_the_same_again_is_the_same_version(ready: Workspace) -> None:
    again = calibrate(ready, target=0.99)
    assert not again.is_new and str(again.version) == "r@2"
    assert {file.name for file in again.run_folder.iterdir()} == {"config.yaml", "report.json", "report.html"}
    kept = json.loads((again.run_folder / "report.json").read_text("utf-8"))
    assert kept == json.loads(json.dumps(again.report))
    assert kept["threshold"]["exists"] is False and "p" not in kept["threshold"], "more than 60 pairs can show"
    page = (again.run_folder / "report.html").read_text("utf-8")
    assert "r@2: r@1 calibrated" in page and page.count("<svg") == 4 and "No threshold is guaranteed" in page
    row = runs.show(ready, again.run_id)
    assert (row.kind, row.state, row.version_digest) == ("calibration", "done", again.version.digest)


def test_what_cannot_be_calibrated_is_refused_before_anything_is_begun(ready: Workspace, tmp_path: Path) -> None:
    n_runs = len(runs.list_runs(ready))
    with pytest.raises(BadInput, match="all@1 set no pairs aside"):
        calibrate(ready, "all@1")
    with pytest.raises(BadInput, match="r@2 is r@1 calibrated"):
        calibrate(ready, "r@2")
    feedback.import_files(ready, [write_polite(tmp_path / "few.jsonl", n=20, seed=9)], source="few")
    snapshots.cut(ready, "few", sources=["few"], holdout=0.1)
    with pytest.raises(BadInput, match="wants 30 pairs or more"):
        calibrate(ready, snapshot="few")
    assert len(registry.list_versions(ready)) == 3 and len(runs.list_runs(ready)) == n_runs


def test_pairs_that_an_ancestor_was_trained_on_are_left_out(ready: Workspace, tmp_path: Path) -> None:
    """all@1 saw every train pair; what goes on from it has nothing to be calibrated on, until a cut brings new pairs."""
    train(ready, "child", from_version="all@1", max_steps=1)
    ref = registry.resolve(ready, "child@1")
    old = left_aside(ready, ref, snapshots.open_snapshot(ready, "polite"))
    assert (len(old.train), old.n_seen > 50) == (0, True)
    feedback.import_files(ready, [write_votes(tmp_path / "more.jsonl", n=300, seed=7)], source="votes")
    newer = left_aside(ready, ref, snapshots.cut(ready, "polite", holdout=0.5, seed=3))
    seen = {row.pair.group for row in snapshots.open_snapshot(ready, "polite@1").rows("train")}
    assert newer.n_seen and newer.n_test_seen and len(newer.train) > 30 and newer.test
    assert not seen & {row.pair.group for row in (*newer.train, *newer.test)}


def test_a_later_cut_moves_no_pair_into_or_out_of_what_is_set_aside(ready: Workspace, tmp_path: Path) -> None:
    ref = registry.resolve(ready, "r@1")
    before = left_aside(ready, ref, snapshots.open_snapshot(ready, "polite")).train
    feedback.import_files(ready, [write_votes(tmp_path / "more.jsonl", n=200, seed=7)], source="votes")
    after = left_aside(ready, ref, snapshots.cut(ready, "polite", holdout=0.2)).train
    assert {row.pair.id for row in before} < {row.pair.id for row in after}


def test_scores_that_point_away_from_the_votes_are_refused_and_the_run_says_so(
    ready: Workspace, tmp_path: Path
) -> None:
    feedback.import_files(ready, [write_votes(tmp_path / "turned.jsonl", 120, seed=3, turned=1.0)], source="turned")
    snapshots.cut(ready, "turned", sources=["turned"], holdout=0.1)
    with pytest.raises(BadInput, match="point away from the votes"):
        calibrate(ready, snapshot="turned")
    assert runs.list_runs(ready)[-1].state == "failed" and len(registry.list_versions(ready)) == 3


def test_an_instant_rewards_doubt_is_divided_with_its_scores(ready: Workspace) -> None:
    head = {
        "kind": "head",
        "name": "instant",
        "snapshot": "polite",
        "base": "tiny",
        "dtype": "float32",
        "set_aside": 0.5,
    }
    reward.train(ready, reward.RewardSettings(**head))  # type: ignore[arg-type]
    done = calibrate(ready, "instant@1")
    assert registry.show(ready, done.version).kind == "head"
    item = Item(1, (Message("user", "Question 3 about red?"),), "Yes blue thanks")
    (before,), (after,) = (list(reward.score_items(ready, version, [item])) for version in ("instant@1", "instant@2"))
    for what in ("score", "doubt"):
        assert after[what] == pytest.approx(before[what] / done.temperature, rel=1e-3)


@pytest.mark.slow
def test_an_ensembles_child_keeps_its_members_at_another_scale(ready: Workspace) -> None:
    train(ready, "many", members=2, top_layers=1, max_steps=2)
    done = calibrate(ready, "many@1")
    manifest = registry.show(ready, done.version).manifest
    assert manifest["kind"] == "ensemble" and [relation for relation, _ in manifest["parents"]] == [
        "calibrates", "member", "member",
    ]  # fmt: skip
    rows = list(snapshots.open_snapshot(ready, "polite").rows("test"))
    before, after = (differences(ready, version, rows) for version in ("many@1", "many@2"))
    assert after == pytest.approx(before / done.temperature, abs=1e-4, rel=1e-3)


def test_the_command_calibrates_and_says_what_came_of_it(
    ready: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlhf.reward.calibration.write_calibration_report", lambda *_: None)  # drawn in another test
    rlhf = CommandLine(ready.root, capsys, monkeypatch)
    found = rlhf.json("reward", "calibrate", "r@1", "--snapshot", "polite", "target=0.7")
    assert (found["version"], found["parent"], found["new"]) == ("r@2", "r@1", False)
    assert {"digest", "run", "temperature", "before", "after", "gain", "threshold", "metrics", "report"} <= set(found)
    assert not {"log_loss", "accuracy", "ece"} & set(found["metrics"]), (
        "measured elsewhere than its parent's, so named otherwise"
    )
    assert found["metrics"]["set_aside_log_loss"] == found["after"]["log_loss"]
    assert rlhf("reward", "calibrate", "r@1", "--snapshot", "polite", "target=2").status == 2
    refused = rlhf("reward", "calibrate", "all@1", "--snapshot", "polite", "--json")
    assert refused.status == 1 and "set_aside=0.1" in refused.error["fix"]
