"""Ensembles as versions: members on their own draws, one score and its doubt, done again only where it isn't done."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from preferences import cut_polite
from pydantic import ValidationError
from test_reward_train import QUICK

from rlhf import registry, reward
from rlhf.engine import add_from_dir, bases
from rlhf.errors import Interrupted, NotFound
from rlhf.records import Message
from rlhf.reward.asked import asked_of, score_asked
from rlhf.reward.score import Item, open_reward
from rlhf.store import Workspace

ITEMS = [
    Item(i, (Message("user", f"Say {i}."),), text) for i, text in enumerate(("Please, of course.", "No.", "Maybe?"))
]


def settings(**more: object) -> reward.RewardSettings:
    return reward.RewardSettings(**{"name": "polite", **QUICK, "epochs": 1, "members": 3, "top_layers": 1, **more})  # type: ignore[arg-type]


@pytest.fixture
def ready(workspace: Workspace, tiny_base: object, tmp_path: Path) -> Workspace:
    cut_polite(workspace, tmp_path)
    return workspace


def scores(workspace: Workspace, version: object) -> torch.Tensor:
    return torch.tensor([row["score"] for row in reward.score_items(workspace, version, ITEMS)])  # type: ignore[arg-type]


def test_an_ensemble_is_one_version_that_names_its_members_and_scores_as_they_do(ready: Workspace) -> None:
    trained = reward.train(ready, settings())
    manifest = registry.show(ready, trained.version).manifest
    members = [registry.resolve(ready, f"polite.{i}@1") for i in (1, 2, 3)]
    assert trained.version.name == "polite" and manifest["kind"] == "ensemble"
    assert sorted(digest for _, digest in manifest["parents"]) == sorted(member.digest for member in members)
    alone = torch.stack([scores(ready, member) for member in members])
    assert torch.allclose(scores(ready, trained.version), alone.mean(0), atol=1e-4)
    assert float(alone.std(0).max()) > 1e-4  # other draws and seeds made other rewards
    assert trained.metrics["members"] == 3 and 0 <= trained.metrics["accuracy"] <= 1
    assert (trained.run_folder / "report.html").exists()
    assert open_reward(ready, trained.version).ref == trained.version


@pytest.mark.parametrize("how", ["min", "mean_minus_sd"])
def test_members_trained_once_serve_every_rule(ready: Workspace, how: str) -> None:
    mean = reward.train(ready, settings(members=2))
    other = reward.train(ready, settings(members=2, combine=how, doubt_k=2.0))
    alone = torch.stack([scores(ready, f"polite.{i}@1") for i in (1, 2)])
    wanted = alone.amin(0) if how == "min" else alone.mean(0) - 2 * alone.std(0)
    assert torch.allclose(scores(ready, other.version), wanted, atol=1e-4)
    assert other.version.digest != mean.version.digest
    assert [v.ref.name for v in registry.list_versions(ready)].count(
        "polite.1"
    ) == 1  # the same weights, no second version


def test_an_average_is_one_plain_adapter(ready: Workspace) -> None:
    trained = reward.train(ready, settings(members=2, combine="average"))
    manifest = registry.show(ready, trained.version).manifest
    assert manifest["kind"] == "lora" and len(manifest["parents"]) == 2
    assert torch.isfinite(scores(ready, trained.version)).all()


def test_what_is_done_is_not_trained_again(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlhf.reward import ensemble

    whole = reward.train(ready, settings(name="whole"))
    train_one, trained = ensemble.train_one, []

    def broken(workspace: Workspace, material: object, *args: object, **kwargs: object) -> object:
        trained.append(material.settings.name)  # type: ignore[attr-defined]
        if len(trained) == 2:
            raise RuntimeError("power cut")
        return train_one(workspace, material, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(ensemble, "train_one", broken)
        reward.train(ready, settings())
    with monkeypatch.context() as patch:
        patch.setattr(
            ensemble, "train_one", lambda w, m, *a, **k: (trained.append(m.settings.name), train_one(w, m, *a, **k))[1]
        )
        resumed = reward.train(ready, settings(), resume=True)
    assert trained == ["polite.1", "polite.2", "polite.2", "polite.3"]
    assert torch.equal(scores(ready, resumed.version), scores(ready, whole.version))


def test_a_member_that_is_interrupted_says_whose_it_is(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlhf.reward import ensemble

    def stopped(*_: object, **__: object) -> object:
        raise Interrupted("stopped at step 3 of 9", fix="go on with the same command and --resume")

    monkeypatch.setattr(ensemble, "train_one", stopped)
    with pytest.raises(Interrupted, match=r"polite\.1, member 1 of 3: stopped at step 3 of 9") as caught:
        reward.train(ready, settings())
    assert caught.value.fix == "go on with the command that trains polite and --resume: members that are done are kept"


def test_a_pair_scored_by_an_ensemble_has_both_doubts(ready: Workspace) -> None:
    trained = reward.train(ready, settings(members=2, baseline=False))
    opened = open_reward(ready, trained.version)
    pair = asked_of({"prompt": "Say 1.", "reply_a": "Please, of course.", "reply_b": "No."}, 1)
    (row,), singles = score_asked(opened, [pair]), list(reward.score_items(ready, trained.version, ITEMS[:2]))
    wanted = [reward.score_items(ready, trained.version, [Item(0, ITEMS[1].prompt, item.reply)]) for item in ITEMS[:2]]
    assert [row["doubt_a"], row["doubt_b"]] == pytest.approx([next(iter(one))["doubt"] for one in wanted], abs=1e-4)
    assert all(single["doubt"] > 0 for single in singles)


def test_an_ensemble_without_its_members_is_refused_by_their_digests(
    ready: Workspace, tmp_path: Path, tiny_base: object
) -> None:
    trained = reward.train(ready, settings(members=2, baseline=False))
    folder = registry.open_version(ready, trained.version).folder
    members = [registry.resolve(ready, f"polite.{i}@1") for i in (1, 2)]
    elsewhere = Workspace.create(tmp_path / "elsewhere", actor="sam")
    add_from_dir(elsewhere, "tiny", bases.get(ready, "tiny").folder)
    first = registry.export_folder(
        ready, members[0], tmp_path / "first", base_path=str(bases.get(ready, "tiny").folder)
    )
    reward.adopt(elsewhere, first, name="first")
    with pytest.raises(
        NotFound, match=f"has 2 members, and 1 of them are no versions here: sha256:{members[1].digest[:12]}"
    ):
        reward.adopt(elsewhere, folder, name="polite")
    second = registry.export_folder(
        ready, members[1], tmp_path / "second", base_path=str(bases.get(ready, "tiny").folder)
    )
    reward.adopt(elsewhere, second, name="second")
    assert reward.adopt(elsewhere, folder, name="polite").digest == trained.version.digest


def test_ensembles_of_neighbouring_seeds_share_no_member(ready: Workspace) -> None:
    digests = []
    for seed in (0, 1):
        reward.train(ready, settings(members=2, seed=seed, baseline=False))
        digests += [registry.resolve(ready, f"polite.{i}@{seed + 1}").digest for i in (1, 2)]
    assert len(set(digests)) == 4


def test_an_ensemble_is_shown_beside_an_instant_head(ready: Workspace) -> None:
    assert "baseline_accuracy" in reward.train(ready, settings(members=2)).metrics


def test_an_ensemble_is_one_heavy_job(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlhf.errors import Conflict
    from rlhf.reward import ensemble
    from rlhf.store.heavy import _mine, heavy

    opened, refused = ensemble.open_material, []

    def between(workspace: Workspace, *args: object) -> object:
        mine = _mine.set({})  # as another process sees it
        try:
            with heavy(workspace, "another training"):
                pass
        except Conflict as error:
            refused.append(error)
        finally:
            _mine.reset(mine)
        return opened(workspace, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(ensemble, "open_material", between)
    reward.train(ready, settings(members=2, baseline=False))
    assert len(refused) == 3


def test_a_child_of_an_average_says_its_own_rank(ready: Workspace) -> None:
    average = reward.train(ready, settings(members=2, combine="average"))
    child = reward.train(ready, settings(members=1, from_version=str(average.version), max_steps=1))
    kept = registry.show(ready, child.version).manifest["settings"]
    assert (kept["lora_r"], kept["lora_alpha"]) == (2 * QUICK["lora_r"], 2 * QUICK["lora_r"])  # type: ignore[operator]


def test_a_version_to_go_on_from_excludes_what_begins_anew() -> None:
    with pytest.raises(ValidationError, match="members trains every member from the base"):
        settings(from_version="polite@1")
    with pytest.raises(ValidationError, match="head_start begins a new adapter's head"):
        settings(members=1, head_start=True, from_version="polite@1")


def test_how_members_are_combined_needs_members() -> None:
    with pytest.raises(ValidationError, match="combine and doubt_k say how members are combined"):
        settings(members=1, combine="mean_minus_sd", doubt_k=2.0)


def test_an_ensembles_report_names_its_members(ready: Workspace) -> None:
    trained = reward.train(ready, settings(members=2, combine="min", baseline=False))
    page = (trained.run_folder / "report.html").read_text("utf-8")
    assert "polite.1@1" in page and "polite.2@1" in page and "combined by" in page and ">min<" in page.replace("\n", "")


def test_a_policy_is_trained_on_an_ensemble(ready: Workspace) -> None:
    from rlhf import policy

    trained = reward.train(ready, settings(members=2, combine="mean_minus_sd"))
    done = policy.train(
        ready,
        policy.PolicySettings(
            name="kind",
            reward=[str(trained.version)],
            base="tiny",
            method="dpo",
            max_steps=1,
            pairs_per_step=2,
            samples=2,
            max_new_tokens=4,
            watch_steps=0,
            dtype="float32",
            lora_r=4,
            learning_rate=1e-3,
        ),
    )
    parents = registry.show(ready, done.version).manifest["parents"]
    assert ["reward", trained.version.digest] in parents
