"""Simulated labelers: their known reliability shows in their answers, and the ceiling is what a simulation finds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlhf.demo import LABELERS, Labeler, demo_pairs, majority, noise_ceiling, true_preference, true_side
from rlhf.demo import labelers as room
from rlhf.records import Message, Pair

PERFECT = Labeler("perfect", slope=1000.0)
BLIND = Labeler("blind", slope=1.0, careless=1.0)


def _gap(pair: Pair) -> float:
    return true_preference(pair.prompt, pair.reply_a, pair.reply_b)


def test_three_different_labelers_judge_each_pair_and_all_get_their_share() -> None:
    asked = [room.asked(pair.id) for pair in demo_pairs()]
    assert all(len({labeler.name for labeler in group}) == 3 for group in asked)
    counts = [sum(labeler in group for group in asked) for labeler in LABELERS]
    assert sum(counts) == 3 * len(asked)
    assert min(counts) > 0.7 * len(asked) * 3 / len(LABELERS)


def test_votes_are_the_seeds_and_another_seed_gives_others() -> None:
    pairs = demo_pairs()[:50]
    assert [room.votes(p, 0) for p in pairs] == [room.votes(p, 0) for p in pairs]
    assert [room.votes(p, 0) for p in pairs] != [room.votes(p, 1) for p in pairs]


def test_reliable_labelers_follow_the_rule_more_often_than_hurried_ones() -> None:
    right: dict[str, list[bool]] = {labeler.name: [] for labeler in LABELERS}
    for pair in demo_pairs():
        for vote in room.votes(pair):
            if vote.choice != "tie":
                right[vote.labeler.name].append(vote.choice == true_side(pair))
    share = {name: float(np.mean(answers)) for name, answers in right.items()}
    assert min(share["sim-1"], share["sim-2"]) > max(share["sim-7"], share["sim-8"]) + 0.1
    assert min(share.values()) > 0.55


def test_only_the_biased_labeler_prefers_the_left() -> None:
    left: dict[str, list[bool]] = {labeler.name: [] for labeler in LABELERS}
    for pair in demo_pairs():
        for vote in room.votes(pair):
            if vote.choice != "tie":
                left[vote.labeler.name].append((vote.choice == "a") == (vote.shown == "ab"))
    share = {name: float(np.mean(answers)) for name, answers in left.items()}
    assert share["sim-6"] > 0.55
    assert max(abs(share[name] - 0.5) for name in share if name != "sim-6") < 0.09  # three standard errors of some 300


def test_ties_come_from_labelers_with_a_band_alone_and_only_on_close_pairs() -> None:
    for pair in demo_pairs():
        for vote in room.votes(pair):
            if vote.choice == "tie":
                assert abs(_gap(pair)) < vote.labeler.tie_points


def test_truth_turns_with_the_sides() -> None:
    prompt = (Message("user", "How do I keep basil plants alive?"),)
    pair = Pair.of(prompt, "Keep your basil plants by a window for 8 hours.", "Sure! Horticultural considerations vary")
    assert true_side(pair) == pair.side_of("Keep your basil plants by a window for 8 hours.")
    turned = Pair(pair.id, pair.prompt, pair.reply_b, pair.reply_a)
    assert sorted((true_side(pair), true_side(turned))) == ["a", "b"]
    assert room.side_of(0.0) == "tie"


@pytest.mark.parametrize(
    ("choices", "side"),
    [
        (["a", "a", "b"], "a"),
        (["a", "b", "b"], "b"),
        (["a", "tie", "tie"], "a"),
        (["a", "b", "tie"], "tie"),
        (["b", "skip", "both_bad"], "b"),
        ([], "tie"),
    ],
)
def test_majority_takes_a_tie_as_half_a_vote_for_each(choices: list[str], side: str) -> None:
    assert majority(choices) == side


def test_ceiling_of_perfect_labelers_is_one_and_of_blind_ones_a_coin() -> None:
    assert noise_ceiling([(1.0, [PERFECT] * 3), (-2.0, [PERFECT] * 3)]) == pytest.approx(1.0)
    assert noise_ceiling([(1.0, [BLIND] * 3)]) == pytest.approx(0.5)
    assert noise_ceiling([(0.0, [PERFECT] * 3)]) == pytest.approx(0.5)


def test_ceiling_of_one_labeler_is_its_own_accuracy() -> None:
    assert noise_ceiling([(0.7, [Labeler("x", slope=2.0)])]) == pytest.approx(1 / (1 + math.exp(-1.4)))


def test_ceiling_equals_what_many_simulated_seeds_find() -> None:
    pairs = demo_pairs()[:150]
    right = decided = 0
    expected = []
    for seed in range(40):
        expected.append(noise_ceiling((_gap(p), room.asked(p.id, seed)) for p in pairs))
        for pair in pairs:
            side = majority(vote.choice for vote in room.votes(pair, seed))
            decided += side != "tie"
            right += side != "tie" and (side == "a") == (_gap(pair) > 0)
    assert right / decided == pytest.approx(float(np.mean(expected)), abs=0.015)  # 6,000 majorities: one s.e. is 0.004


def test_ceiling_of_no_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        noise_ceiling([])
