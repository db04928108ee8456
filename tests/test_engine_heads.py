"""Heads on inner states: score and doubt through the one scorer, alone and on a policy's base, which stays as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf.engine import heads, policies, scoring, states
from rlhf.engine.bases import Base
from rlhf.engine.heads import Head, SharedHead
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement
from rlhf.engine.rendering import Renderer
from rlhf.engine.rewards import LoraShape
from rlhf.engine.states import Reading
from rlhf.errors import BadInput
from rlhf.measures import bayes_logistic

CPU = Placement("cpu", "float32", "test")
GROUPS = [
    Group(tuple(range(5, 25)), (tuple(range(30, 38)), (40, 41), (50, 51, 52))),
    Group((), (tuple(range(60, 90)),)),
    Group((7, 8, 9), ((9, 9, 9), (3,))),
]


@pytest.fixture
def head(tiny_base: Base) -> Head:
    """A head of layers 1 and 2 with a posterior from twenty drawn pairs."""
    draw = np.random.default_rng(0)
    reading = Reading((1, 2), ("last", "mean"), states.opening_of(Renderer(tiny_base.tokenizer(), 1024)))
    n_features = reading.n_features(48)
    differences = draw.normal(size=(20, n_features)) * 0.3
    posterior = bayes_logistic.fit(differences, draw.random(20), precision=2.0)
    return Head.of(posterior, draw.normal(size=n_features) * 0.1, reading, 48)


def flat(rows: list[list[tuple[float, float | None]]]) -> np.ndarray:
    return np.array([value for row in rows for value in row], dtype=float)


def test_a_head_scores_what_its_posterior_says_of_the_states(tiny_base: Base, head: Head) -> None:
    model = heads.on_base(head, tiny_base, CPU)
    found = flat(scoring.score_with_doubt(model, GROUPS))
    centred = states.states(model.model, head.reading, GROUPS).double().numpy() - head.mean.double().numpy()
    assert np.allclose(found[:, 0], head.posterior.logits(centred), atol=1e-4)
    assert np.allclose(found[:, 1] ** 2, head.posterior.variances(centred), rtol=1e-3)
    assert (found[:, 1] > 0).all()


def test_a_score_depends_neither_on_the_batch_nor_on_the_attention(tiny_base: Base, head: Head) -> None:
    model = heads.on_base(head, tiny_base, CPU)
    together = flat(scoring.score_with_doubt(model, GROUPS))
    alone = [Group((), ((*g.prefix, *reply),)) for g in GROUPS for reply in g.replies]
    assert np.allclose(flat(scoring.score_with_doubt(model, alone, token_budget=1)), together, atol=1e-4)
    model.model.set_attn_implementation("sdpa")
    assert np.allclose(flat(scoring.score_with_doubt(model, GROUPS)), together, atol=1e-4)
    assert np.allclose([s for row in scoring.score(model, GROUPS) for s in row], together[:, 0], atol=1e-4)


def test_a_head_comes_back_from_its_folder(tiny_base: Base, head: Head, tmp_path: Path) -> None:
    head.save(tmp_path)
    again = Head.read(tmp_path)
    assert again.reading == head.reading
    model, other = heads.on_base(head, tiny_base, CPU), heads.load(tmp_path, tiny_base, CPU)
    for name, array in vars(head).items():
        assert not isinstance(array, torch.Tensor) or torch.equal(array, getattr(again, name)), name
    # Two copies of a base in memory may be multiplied in another order, by where they lie: to the last bits, no further.
    ours, theirs = (flat(scoring.score_with_doubt(m, GROUPS)) for m in (model, other))
    assert np.allclose(ours, theirs, rtol=0, atol=1e-6)


def test_on_a_policys_base_a_head_scores_the_same_and_leaves_it_as_it_was(
    tiny_base: Base, head: Head, tmp_path: Path
) -> None:
    head.save(tmp_path)
    model = policies.fresh(tiny_base, CPU, LoraShape(4, 8, 0.0, 0), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()  # an adapter that is not off would change the scores
    model.train()
    before = {name: (p.requires_grad, p.detach().clone()) for name, p in model.named_parameters()}
    shared = SharedHead(model, tmp_path)
    alone = flat(scoring.score_with_doubt(heads.load(tmp_path, tiny_base, CPU), GROUPS))
    assert np.allclose(flat(shared.score_with_doubt(GROUPS)), alone, atol=1e-4)
    assert np.allclose([s for row in shared.score(GROUPS) for s in row], alone[:, 0], atol=1e-4)
    assert model.active_adapters == ["default"]
    assert all(module.training for module in model.modules())
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == before[name][0] and torch.equal(parameter, before[name][1]), name


def test_a_head_of_another_base_is_refused(tiny_base: Base, head: Head) -> None:
    wide = Head(head.reading, 64, head.weight, head.mean, head.scale, head.prior_variance, head.shrink)
    with pytest.raises(BadInput, match="64 numbers"):
        heads.on_base(wide, tiny_base, CPU)
    high = Head(Reading((9,), ("last",), ()), 48, *(torch.ones(48),) * 3, torch.ones(1), torch.zeros(48, 1))
    with pytest.raises(BadInput, match="layer 9"):
        heads.on_base(high, tiny_base, CPU)


def test_only_a_head_of_one_layers_last_token_starts_a_lora_head(head: Head) -> None:
    with pytest.raises(BadInput, match="last and mean"):
        head.at_last_token()
    plain = Head(
        Reading((3,), ("last",), ()),
        4,
        torch.ones(4),
        torch.ones(4),
        torch.full((4,), 2.0),
        torch.ones(1),
        torch.ones(4, 1),
    )
    assert torch.equal(plain.at_last_token(), torch.full((1, 4), 0.5))
