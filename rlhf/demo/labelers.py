"""Simulated labelers of known and different reliability, and the best that anything can score against them.

A labeler sees two replies, one on the left. It is careless with a fixed probability and then presses left or right by
chance; else it says tie where the rule's difference is below its own band, and else prefers the left reply with
probability

    sigmoid(slope * (points of left - points of right) + left_bias)

(Bradley-Terry with a position bias). Which reply stands left, who is asked and what is answered are drawn from the
seed and the pair's id alone, so that leaving out pairs never changes the other answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from rlhf.demo.rule import true_preference
from rlhf.ids import chance
from rlhf.measures.votes import majority as votes_majority
from rlhf.records import Pair

Side = Literal["a", "b", "tie"]
TRUE_TIE_POINTS = 0.05  # below this the rule itself prefers neither
VOTES_A_PAIR = 3


@dataclass(frozen=True, slots=True)
class Labeler:
    """slope: nats a point of quality. careless: share of blind answers. left_bias: nats. tie_points: a tie below."""

    name: str
    slope: float
    careless: float = 0.0
    left_bias: float = 0.0
    tie_points: float = 0.0
    cohort: str = "steady"


LABELERS = (
    Labeler("sim-1", slope=3.0),
    Labeler("sim-2", slope=2.5, careless=0.02, tie_points=0.3),
    Labeler("sim-3", slope=2.0, careless=0.03),
    Labeler("sim-4", slope=2.0, careless=0.05, tie_points=0.2),
    Labeler("sim-5", slope=1.5, careless=0.05),
    Labeler("sim-6", slope=1.5, left_bias=0.8, cohort="hurried"),
    Labeler("sim-7", slope=1.0, careless=0.15, cohort="hurried"),
    Labeler("sim-8", slope=0.8, careless=0.3, tie_points=0.2, cohort="hurried"),
)


@dataclass(frozen=True, slots=True)
class Vote:
    """One labeler's answer, in the pair's own sides; shown: 'ab' where reply a stood left, else 'ba'."""

    labeler: Labeler
    choice: Side
    shown: Literal["ab", "ba"]


def asked(pair_id: str, seed: int = 0) -> tuple[Labeler, ...]:
    """The three labelers whom the seed sends this pair to, no one twice."""
    return tuple(chance(seed, "asked", pair_id).sample(LABELERS, VOTES_A_PAIR))


def votes(pair: Pair, seed: int = 0) -> tuple[Vote, ...]:
    """What these labelers answer."""
    difference = true_preference(pair.prompt, pair.reply_a, pair.reply_b)
    return tuple(_vote(labeler, pair.id, difference, seed) for labeler in asked(pair.id, seed))


def _vote(labeler: Labeler, pair_id: str, difference: float, seed: int) -> Vote:
    draw = chance(seed, "vote", pair_id, labeler.name)
    shown: Literal["ab", "ba"] = "ab" if draw.random() < 0.5 else "ba"
    left, tie = _p_left_and_tie(labeler, difference if shown == "ab" else -difference)
    answer = draw.random()
    if answer < tie:
        return Vote(labeler, "tie", shown)
    return Vote(labeler, "a" if (answer < tie + left) == (shown == "ab") else "b", shown)


def _p_left_and_tie(labeler: Labeler, left_minus_right: float) -> tuple[float, float]:
    """(P(left), P(tie)) of one answer; the rest is P(right)."""
    attentive = 1.0 - labeler.careless
    if abs(left_minus_right) < labeler.tie_points:
        return labeler.careless / 2, attentive
    nats = labeler.slope * left_minus_right + labeler.left_bias
    preference = 0.5 * (1.0 + math.tanh(nats / 2))  # the sigmoid, without overflow
    return labeler.careless / 2 + attentive * preference, 0.0


def true_side(pair: Pair) -> Side:
    """The side that the rule prefers; a tie below `TRUE_TIE_POINTS`."""
    return side_of(true_preference(pair.prompt, pair.reply_a, pair.reply_b))


def side_of(difference: float) -> Side:
    if abs(difference) < TRUE_TIE_POINTS:
        return "tie"
    return "a" if difference > 0 else "b"


def majority(choices: Iterable[str]) -> Side:
    """The labelers' side, as everywhere else; 'tie' also where nobody voted."""
    return votes_majority(choices) or "tie"


def noise_ceiling(judged: Iterable[tuple[float, Sequence[Labeler]]]) -> float:
    """Expected accuracy of the true rule against the labelers' majority, over the pairs that have a majority.

    judged: (points of a - points of b, the labelers asked) a pair. Exact, over every combination of answers:

        sum P(the majority takes the rule's side) / sum P(there is a majority)

    A pair on which the rule is exactly even counts a half. No reward that knows only the two replies can expect more:
    each labeler's odds favour the rule's side once left and right are drawn. Raises ValueError without a pair.
    """
    right = decided = 0.0
    for difference, labelers in judged:
        p_better, p_worse = _p_majority(abs(difference), labelers)
        right += p_better if difference != 0 else (p_better + p_worse) / 2
        decided += p_better + p_worse
    if decided == 0.0:
        raise ValueError("no pairs: there is no ceiling of nothing")
    return right / decided


def _p_majority(gap: float, labelers: Sequence[Labeler]) -> tuple[float, float]:
    """P(the majority takes the better reply) and P(it takes the worse), left and right being drawn fairly."""
    answers = []
    for labeler in labelers:
        left_first, tie = _p_left_and_tie(labeler, gap)
        left_second, _ = _p_left_and_tie(labeler, -gap)
        better = (left_first + (1.0 - tie - left_second)) / 2
        answers.append(((1, better), (-1, 1.0 - tie - better), (0, tie)))
    chances = {1: 0.0, -1: 0.0, 0: 0.0}
    for combination in product(*answers):
        balance = sum(step for step, _ in combination)
        chances[(balance > 0) - (balance < 0)] += math.prod(p for _, p in combination)
    return chances[1], chances[-1]
