"""Ensembles: several members on one base, one score and its doubt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_engine_trunk import base_in, model_on

from rlhf.engine import rewards, scoring
from rlhf.engine.ensembles import EnsembleReward, Rule, SharedEnsemble, write_average
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement
from rlhf.errors import BadInput

GROUPS = [Group((1, 2, 3, 4), ((9, 8, 7), (5, 6))), Group((), ((3, 1, 4, 1, 5),))]
FLOAT32 = Placement("cpu", "float32", "test")


@pytest.fixture(scope="module", params=[1, 0], ids=["top layer", "all layers"])
def members(request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = []
    for seed in range(3):
        model = model_on(base_in(tiny_folder), top_layers=request.param)
        with torch.no_grad():
            chance = torch.Generator().manual_seed(seed)
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=chance) * 0.1)
        folder = tmp_path_factory.mktemp("members") / str(seed)
        model.save_pretrained(folder)
        folders.append(folder)
    return folders


def alone(members: list[Path], folder: Path) -> torch.Tensor:
    """(R, K): every member's own scores."""
    columns = [scoring.score(rewards.load(member, base_in(folder), FLOAT32), GROUPS) for member in members]
    return torch.tensor([[score for row in column for score in row] for column in columns]).T


def test_an_ensemble_scores_as_its_members_do_apart(members: list[Path], tiny_folder: Path) -> None:
    wanted = alone(members, tiny_folder)
    ensemble = EnsembleReward(members, base_in(tiny_folder), FLOAT32, Rule("mean"))
    found = scoring.score_with_doubt(ensemble, GROUPS)
    flat = torch.tensor([pair for row in found for pair in row])
    assert torch.allclose(flat[:, 0], wanted.mean(1), atol=1e-5)
    assert torch.allclose(flat[:, 1], wanted.std(1), atol=1e-5)
    assert float(wanted.std(1).min()) > 1e-3  # the members do differ


def test_an_ensemble_scores_the_same_whatever_was_scored_before(members: list[Path], tiny_folder: Path) -> None:
    ensemble = EnsembleReward(members, base_in(tiny_folder), FLOAT32, Rule("mean"))
    first = scoring.score(ensemble, GROUPS)
    for one, other in zip(scoring.score(ensemble, GROUPS[::-1])[::-1], first, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_the_rules_are_what_they_are_called() -> None:
    scores = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])
    sd = scores.std(1)
    for rule, wanted in (
        (Rule("mean"), scores.mean(1)),
        (Rule("min"), scores.amin(1)),
        (Rule("mean_minus_sd", k=2.0), scores.mean(1) - 2 * sd),
        (Rule("mean_minus_sd", k=2.0, scale=0.5), (scores.mean(1) - 2 * sd) / 2),
    ):
        both = rule.of(scores)
        assert torch.allclose(both[:, 0], wanted)
        assert torch.allclose(both[:, 1], sd * rule.scale)
    with pytest.raises(ValueError, match="two or more"):
        Rule().of(scores[:, :1])


def test_a_shared_ensemble_combines_what_its_members_say(members: list[Path], tiny_folder: Path) -> None:
    class Member:
        def __init__(self, folder: Path) -> None:
            self.model = rewards.load(folder, base_in(tiny_folder), FLOAT32)

        def score(self, groups: list[Group], *, token_budget: int = 4096) -> list[list[float]]:
            return scoring.score(self.model, groups, token_budget=token_budget)

    shared = SharedEnsemble([Member(folder) for folder in members], Rule("min"))
    wanted = alone(members, tiny_folder)
    flat = torch.tensor([pair for row in shared.score_with_doubt(GROUPS) for pair in row])
    assert torch.allclose(flat[:, 0], wanted.amin(1), atol=1e-5)
    assert [score for row in shared.score(GROUPS) for score in row] == flat[:, 0].tolist()
    assert shared.score([]) == []


def test_the_average_is_of_the_products_and_not_of_the_factors(
    members: list[Path], tiny_folder: Path, tmp_path: Path
) -> None:
    write_average(members, tmp_path)
    merged = rewards.load(tmp_path, base_in(tiny_folder), FLOAT32)
    parts = [rewards.load(folder, base_in(tiny_folder), FLOAT32) for folder in members]

    def change(model: object, name: str) -> torch.Tensor:
        return dict(model.named_modules())[name].get_delta_weight("default")  # type: ignore[attr-defined]

    names = [name for name, module in merged.named_modules() if hasattr(module, "get_delta_weight")]
    assert names
    for name in names:
        assert torch.allclose(
            change(merged, name), torch.stack([change(part, name) for part in parts]).mean(0), atol=1e-5
        )
    heads = [part.get_base_model().score.weight for part in parts]
    assert torch.allclose(merged.get_base_model().score.weight, torch.stack(list(heads)).mean(0))


def test_members_on_different_modules_are_not_averaged(members: list[Path], tiny_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    model_on(base_in(tiny_folder), top_layers=2).save_pretrained(other)
    with pytest.raises(BadInput, match="different modules"):
        write_average([members[0], other], tmp_path)
