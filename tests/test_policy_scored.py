"""Points of replies: the one scorer's scores, whatever stands beside a reply; weights, penalties, and what can't be scored."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from policies import parts, settings

from rlhf import reward
from rlhf.engine.policies import TRAINED
from rlhf.policy.scored import Drawn, Points, Rewards
from rlhf.policy.setup import Setup
from rlhf.records import Message
from rlhf.reward.score import Item
from rlhf.store import Workspace

ASKED = (Message("user", "Question 3 about red?"),)
LONGER = (*ASKED, Message("assistant", "blue"), Message("user", "And now?"))
TEXTS = ["Yes red thanks", "No", "", "Yes", "Yes red", "No red blue é", "Yes red thanks"]


def drawn(prompt: tuple[Message, ...], text: str, n_tokens: int = 5, cut_off: bool = False) -> Drawn:
    return Drawn(prompt, text, n_tokens, cut_off)


REPLIES = [drawn(prompt, text) for prompt in (ASKED, LONGER) for text in TEXTS]


@pytest.fixture(scope="module")
def setup(policy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    """Two rewards on one base, and a policy in training that has moved away from it."""
    workspace = Workspace.open(policy_root, actor="tester")
    two = settings(reward=["r@1", "r@2"], from_version="start@1", method="grpo")
    _, made = parts(workspace, tmp_path_factory.mktemp("scored"), two)
    workspace.close()
    return made


def plain(policy_root: Path, version: str, replies: Sequence[Drawn]) -> list[float]:
    """What `rlhf reward score` says of them."""
    workspace = Workspace.open(policy_root, actor="tester")
    items = [Item(i, reply.prompt, reply.text) for i, reply in enumerate(replies)]
    found = [row["score"] for row in reward.score_items(workspace, version, items)]
    workspace.close()
    return found


def test_scores_are_those_of_the_version_alone(setup: Setup, policy_root: Path) -> None:
    """Promise 2: with the policy's adapter beside it, both rewards, every reply, float32."""
    scored = setup.rewards.score(REPLIES)
    for k, version in enumerate(("r@1", "r@2")):
        alone = plain(policy_root, version, REPLIES)
        assert len({round(score, 3) for score in alone}) > 5, "replies that all score alike show nothing"
        assert [one.scores[k] for one in scored] == pytest.approx(alone, abs=1e-4)
    assert scored[0].scores[0] != pytest.approx(scored[0].scores[1], abs=1e-3)


@pytest.mark.parametrize("budget", [16, 200, 100_000])
def test_a_score_does_not_depend_on_what_stands_beside_it(setup: Setup, budget: int) -> None:
    wanted = {(r.prompt, r.text): s.points for r, s in zip(REPLIES, setup.rewards.score(REPLIES), strict=True)}
    rewards = Rewards(setup.rewards.rewards, setup.rewards.points, budget)
    order = list(REPLIES)
    random.Random(1).shuffle(order)
    together = rewards.score(order)
    alone = [rewards.score([one])[0] for one in order[:4]]
    for one, scored in [*zip(order, together, strict=True), *zip(order, alone, strict=False)]:
        assert scored.points == pytest.approx(wanted[one.prompt, one.text], abs=1e-4)


def test_scoring_does_not_touch_the_adapter_in_training(setup: Setup) -> None:
    setup.model.train()
    before = {n: (p.requires_grad, p.detach().clone()) for n, p in setup.model.named_parameters() if "lora_" in n}
    setup.rewards.score(REPLIES[:3])
    assert setup.model.active_adapters == [TRAINED] and setup.model.training
    for name, parameter in setup.model.named_parameters():
        if name in before:
            grad, value = before[name]
            assert parameter.requires_grad == grad and bool((parameter == value).all()), name


def test_points_are_the_weighted_sum_less_the_penalties() -> None:
    points = Points((2.0, -0.5), length_penalty=0.1, cut_off_penalty=3.0)
    assert points.of(drawn(ASKED, "x", 7), [1.5, 4.0]) == pytest.approx(2 * 1.5 - 0.5 * 4.0 - 0.7)
    assert points.of(drawn(ASKED, "x", 7, True), [1.5, 4.0]) == pytest.approx(2 * 1.5 - 0.5 * 4.0 - 0.7 - 3.0)
    assert Points((1.0,)).of(drawn(ASKED, "x", 700, True), [1.5]) == 1.5


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -math.inf])
def test_a_reply_that_one_reward_cannot_score_has_no_points(bad: float | None) -> None:
    assert Points((1.0, 1.0)).of(drawn(ASKED, "x"), [2.0, bad]) is None


def test_settings_reach_the_points(policies: Workspace, tmp_path: Path) -> None:
    chosen = settings(reward=["r@1", "r@2"], reward_weights=[0.5, -2.0], length_penalty=0.25, cut_off_penalty=1.5)
    _, made = parts(policies, tmp_path / "run", chosen)
    assert made.rewards.points == Points((0.5, -2.0), 0.25, 1.5)
    (one,) = made.rewards.score([drawn(ASKED, "Yes", 4, True)])
    assert None not in one.scores
    assert one.points == pytest.approx(0.5 * one.scores[0] - 2.0 * one.scores[1] - 1.0 - 1.5)  # type: ignore[operator]


def test_an_unscorable_reply_is_none_and_leaves_the_others_alone(setup: Setup) -> None:
    """Too long for the reward, or refused by the template: no score, and the replies beside it get theirs."""
    good = [drawn(ASKED, "Yes red"), drawn(ASKED, "No"), drawn(LONGER, "Yes")]
    wanted = [one.points for one in setup.rewards.score(good)]
    endless = drawn(ASKED, "x" * 2000, 2000, True)
    mixed = setup.rewards.score([good[0], endless, good[1], drawn((), "x" * 2000), good[2]])
    assert mixed[1].points is None and mixed[1].scores == (None, None) and mixed[3].points is None
    assert [mixed[i].points for i in (0, 2, 4)] == pytest.approx(wanted, abs=1e-4)


def test_the_same_reply_twice_has_the_very_same_score(setup: Setup) -> None:
    """To the last bit: GRPO divides by the spread of a prompt's scores, and would learn from the rounding."""
    twice = [one for one in REPLIES for _ in range(2)]
    random.Random(0).shuffle(twice)
    points: dict[tuple[object, str], set[object]] = {}
    for one, scored in zip(twice, setup.rewards.score(twice), strict=True):
        points.setdefault((one.prompt, one.text), set()).add(scored.points)
    assert all(len(values) == 1 for values in points.values())


def test_nothing_to_score_is_no_error(setup: Setup) -> None:
    assert setup.rewards.score([]) == []
    (only,) = setup.rewards.score([drawn(ASKED, "x" * 2000)])
    assert only.points is None
