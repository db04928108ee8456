"""What a run's rewards say of sampled replies: each reward's score through the one scorer, and the points that train.

Points of a reply: the weighted sum of the rewards' scores, less `length_penalty` for each token, less `cut_off_penalty` where it
was cut off. Weights are on raw scores: rewards of different scale need weights that say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rlhf.engine.packing import Group, share
from rlhf.engine.rendering import Renderer
from rlhf.records import Message


@dataclass(frozen=True, slots=True)
class Drawn:
    """A sampled reply. prompt: the messages it answers, as they were rendered."""

    prompt: tuple[Message, ...]
    text: str
    n_tokens: int
    cut_off: bool


@dataclass(frozen=True, slots=True)
class Scored:
    """scores: each reward's, in order; points: what trains. None where a reward could not score the reply (too long, refused)."""

    points: float | None
    scores: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Points:
    """How scores become points."""

    weights: tuple[float, ...]
    length_penalty: float = 0.0
    cut_off_penalty: float = 0.0

    def of(self, reply: Drawn, scores: Sequence[float | None]) -> float | None:
        if any(score is None or not math.isfinite(score) for score in scores):
            return None
        total = sum(weight * (score or 0.0) for weight, score in zip(self.weights, scores, strict=True))
        return total - self.length_penalty * reply.n_tokens - self.cut_off_penalty * reply.cut_off


class Scorer(Protocol):
    """A reward that scores groups of replies: `engine.shared.SharedReward`, or a reward model of its own."""

    def score(self, groups: Sequence[Group], *, token_budget: int = 4096) -> list[list[float]]: ...


class Rewards:
    """The rewards that a run's replies get their points from."""

    def __init__(self, rewards: Sequence[tuple[Scorer, Renderer]], points: Points, token_budget: int) -> None:
        self.rewards, self.points, self.token_budget = tuple(rewards), points, token_budget

    def score(self, replies: Sequence[Drawn]) -> list[Scored]:
        """One result a reply, in the order given; replies to one prompt share its tokens in the forward."""
        columns = [self._scores(reward, renderer, replies) for reward, renderer in self.rewards]
        rows = [tuple(row) for row in zip(*columns, strict=True)]
        return [Scored(self.points.of(reply, row), row) for reply, row in zip(replies, rows, strict=True)]

    def _scores(self, reward: Scorer, renderer: Renderer, replies: Sequence[Drawn]) -> list[float | None]:
        found: list[float | None] = [None] * len(replies)
        rendered = [renderer.reply(reply.prompt, reply.text) for reply in replies]
        fits = [(i, r[0]) for i, r in enumerate(rendered) if not isinstance(r, str)]
        shared = share([replies[i].prompt for i, _ in fits], [ids for _, ids in fits], self.token_budget)
        scores = reward.score([group for group, _ in shared], token_budget=self.token_budget)
        for (_, owners), row in zip(shared, scores, strict=True):
            for own, score in zip(owners, row, strict=True):
                for n in own:
                    found[fits[n][0]] = score
        return found
