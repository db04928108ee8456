"""Instant rewards: fitted on inner states, published with proof, beside every LoRA and the start of its head."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from policies import settings as of_policy
from policies import without_page
from preferences import cut_polite
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression

from rlhf import policy, registry, reward
from rlhf.engine import add_from_dir, bases, heads, pooled, scoring, trunk
from rlhf.engine.heads import Head
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement
from rlhf.errors import BadInput, BadUsage, Interrupted
from rlhf.records import Message
from rlhf.reward import head
from rlhf.reward.material import open_material
from rlhf.reward.scaling import write_scaled
from rlhf.reward.score import Item, open_reward
from rlhf.store import Workspace, runs

HEAD = {"name": "instant", "kind": "head", "snapshot": "polite", "base": "tiny", "dtype": "float32"}
LORA = {
    "name": "slow", "snapshot": "polite", "base": "tiny", "dtype": "float32", "lora_r": 4, "pairs_per_step": 8,
    "max_steps": 2, "learning_rate": 1e-3,
}  # fmt: skip
ITEMS = [
    Item(1, (Message("user", "Question 3 about red?"),), "Yes blue thanks"),
    Item(2, (Message("user", "Question 3 about red?"),), "No blue"),
]


def settings(**more: object) -> reward.RewardSettings:
    return reward.RewardSettings(**{**HEAD, **more})  # type: ignore[arg-type]


def lora(**more: object) -> reward.RewardSettings:
    return reward.RewardSettings(**{**LORA, **more})  # type: ignore[arg-type]


@pytest.fixture
def ready(workspace: Workspace, tiny_base: object, tmp_path: Path) -> Workspace:
    cut_polite(workspace, tmp_path)
    return workspace


def test_an_instant_reward_learns_what_the_labelers_prefer(ready: Workspace) -> None:
    trained = reward.train(ready, settings())
    assert trained.metrics["accuracy"] > 0.9
    row = registry.show(ready, trained.version)
    assert (row.kind, row.ref.role) == ("head", "reward")
    assert row.manifest["settings"]["head_layers"] == row.manifest["details"]["head"]["layers"]
    assert row.manifest["details"]["head"]["pooling"] == ["last", "mean"]
    assert runs.show(ready, trained.run_id).state == "done"
    assert {"config.yaml", "metrics.jsonl", "report.json", "report.html"} <= {
        f.name for f in trained.run_folder.iterdir()
    }
    yes, no = reward.score_items(ready, trained.version, ITEMS)
    assert yes["score"] > no["score"]
    assert yes["doubt"] > 0 and no["doubt"] > 0


def test_the_head_is_scikit_learns_on_the_same_states(ready: Workspace) -> None:
    trained = reward.train(ready, settings(head_layers=[2], head_pooling="last", head_prior=0.5))
    material = open_material(ready, settings(), 1, lambda _text: None)
    own = Head.read(registry.open_version(ready, trained.version).folder)
    states = head.pooled(ready, material.base, material.place, own.reading).of(material.rows)
    x = (states[:, 0].astype(float) - states[:, 1]) / own.scale.double().numpy()
    peer = LogisticRegression(C=1 / (0.5 * 48), fit_intercept=False, tol=1e-10, solver="newton-cholesky")
    peer.fit(np.vstack([x, -x]), np.repeat([1, 0], len(x)), sample_weight=np.full(2 * len(x), 0.5))
    assert np.allclose(own.weight.numpy(), peer.coef_[0], atol=1e-5)


def test_the_same_training_gives_the_same_version_and_reads_kept_states(ready: Workspace) -> None:
    said: list[str] = []
    first = reward.train(ready, settings())
    again = reward.train(ready, settings(), say=said.append)
    assert (first.version, first.is_new, again.is_new) == (again.version, True, False)
    assert any("0 computed" in line for line in said)


def test_a_head_that_was_stopped_goes_on_and_equals_an_uninterrupted_one(
    ready: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 10."""
    whole = reward.train(ready, settings(name="whole"))
    for entry in (ready.root / "cache").rglob("*/*/*"):
        if entry.is_file():
            entry.unlink()
    n, compute = 0, pooled.states

    def stopping(*args: object, **kwargs: object) -> object:
        nonlocal n
        n += 1
        if n == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return compute(*args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="states of 5 of"):
        patch.setattr(pooled, "states", stopping)
        reward.train(ready, settings())
    assert {row.name: row.state for row in runs.list_runs(ready)} == {"whole": "done", "instant": "interrupted"}
    said: list[str] = []
    resumed = reward.train(ready, settings(), resume=True, say=said.append)
    assert resumed.version == whole.version
    assert any("5 were kept" in line for line in said)


def test_settings_that_mean_nothing_to_a_head_are_refused_together(ready: Workspace) -> None:
    with pytest.raises(ValidationError, match=r"learning_rate, lora_r say how LoRA is trained"):
        settings(lora_r=4, learning_rate=0.1)
    with pytest.raises(BadUsage, match="layers 1 to 3"):
        reward.train(ready, settings(head_layers=[2, 4]))
    assert not list(runs.list_runs(ready))


def test_with_trunk_off_no_states_are_kept(ready: Workspace) -> None:
    without = reward.train(ready, settings(trunk="off"))
    assert not list((ready.root / trunk.FOLDER).rglob("*"))
    assert reward.train(ready, settings()).version == without.version


def test_states_that_hold_nan_name_the_pairs(ready: Workspace) -> None:
    material = open_material(ready, settings(), 1, lambda _text: None)
    reading = head.reading_of(material.base, settings())
    states = np.ones((len(material.rows), 2, reading.n_features(48)), dtype=np.float32)
    states[3, 1, 7] = np.nan
    with pytest.raises(BadInput, match=material.rows[3].pair_id[:12]):
        head.fit(states, material.rows, head.groups_of(material), reading, 0.0)


def test_a_lora_is_shown_beside_the_instant_head(ready: Workspace) -> None:
    instant = reward.train(ready, settings())
    trained = reward.train(ready, lora(max_steps=0, epochs=0.1))
    assert trained.metrics["baseline_accuracy"] == instant.metrics["accuracy"]
    assert trained.metrics["baseline_log_loss"] == pytest.approx(instant.metrics["log_loss"])
    assert "baseline accuracy" in (trained.run_folder / "report.html").read_text("utf-8")
    alone = reward.train(ready, lora(name="alone", max_steps=0, epochs=0.1, baseline=False))
    assert alone.version == trained.version  # what is shown beside it is no part of it
    assert "baseline_accuracy" not in alone.metrics


def test_a_lora_may_start_from_the_fitted_head(ready: Workspace) -> None:
    """Before its first real step it scores as the head on the last state does, up to the offset of all scores."""
    trained = reward.train(ready, lora(head_start=True, max_steps=1, learning_rate=1e-9))
    at_end = reward.train(ready, settings(name="end", head_layers=[3], head_pooling="last"))
    scores = [
        [row["score"] for row in reward.score_items(ready, version, ITEMS)]
        for version in (trained.version, at_end.version)
    ]
    assert scores[0][0] - scores[0][1] == pytest.approx(scores[1][0] - scores[1][1], abs=1e-3)


def test_a_head_version_is_a_reward_wherever_one_is_wanted(ready: Workspace, tmp_path: Path) -> None:
    """Verify, show, lineage, diff, import, retire; and refused where stock PEFT can't hold it."""
    first, second = reward.train(ready, settings()), reward.train(ready, settings(head_prior=3.0))
    assert registry.verify(ready).ok
    difference = registry.diff(ready, first.version, second.version)
    assert "weight" in difference.tensors
    assert difference.settings["head_prior"] == (0.0, 3.0)
    with pytest.raises(BadInput, match=r"can't express: .*layer.*mean over the reply.*doubt"):
        registry.export_folder(ready, first.version, tmp_path / "out", base_path="x")
    opened = registry.open_version(ready, first.version)
    assert reward.adopt(ready, opened.folder) == first.version
    other = Workspace.create(tmp_path / "other", actor="tester")
    base = bases.get(ready, "tiny")
    add_from_dir(other, "tiny", base.folder)
    assert reward.adopt(other, opened.folder).digest == first.version.digest
    other.close()
    assert registry.retire(ready, str(second.version)).retired_at


def test_a_damaged_head_is_never_used(ready: Workspace) -> None:
    trained = reward.train(ready, settings())
    file = registry.open_version(ready, trained.version).folder / "head.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.chmod(0o644)
    file.write_bytes(bytes(raw))
    with pytest.raises(Exception, match=r"head\.safetensors"):
        open_reward(ready, trained.version)


def test_a_policy_is_trained_on_an_instant_reward(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    without_page(monkeypatch)
    reward.train(ready, settings(name="r"))
    trained = policy.train(ready, of_policy(max_steps=1))
    rows = [json.loads(line) for line in (trained.run_folder / "replies.jsonl").read_text("utf-8").splitlines()]
    assert any(row["scores"][0] is not None for row in rows)


def test_head_survives_reload_and_a_temperature(ready: Workspace, tmp_path: Path) -> None:
    """Promise 1 for heads: on another fresh base; divided by a temperature, score and doubt are divided by it."""
    trained = reward.train(ready, settings())
    opened = registry.open_version(ready, trained.version)
    base, place = bases.get(ready, "tiny"), Placement("cpu", "float32", "test")
    one = open_reward(ready, trained.version)
    ids = tuple(one.renderer.ids((*ITEMS[0].prompt, Message("assistant", ITEMS[0].reply))))
    ((score, doubt),) = scoring.score_with_doubt(one.model, [Group((), (ids,))])[0]
    assert doubt is not None and doubt > 0
    assert scoring.score_with_doubt(heads.load(opened.folder, base, place), [Group((), (ids,))]) == [[(score, doubt)]]
    write_scaled(opened.folder, "head", 2.0, tmp_path)
    cooled = scoring.score_with_doubt(heads.load(tmp_path, base, place), [Group((), (ids,))])[0][0]
    assert cooled == pytest.approx((score / 2, doubt / 2), rel=1e-4)
