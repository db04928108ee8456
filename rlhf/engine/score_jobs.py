"""Scores and log-probabilities that somebody waits for, computed a batch at a time so that replies don't wait for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from threading import Event
from typing import Generic, TypeVar

from rlhf.engine import generation, scoring
from rlhf.engine.live_scorers import LivePolicy, LiveScorer
from rlhf.engine.packing import Group
from rlhf.engine.wanted import EngineFailed
from rlhf.errors import RlhfError

_TOKENS = 2048  # between two tokens of the replies under way; what is longer goes alone
T = TypeVar("T")


class Job(ABC, Generic[T]):
    """One result for each of what was asked, in the order given. lengths: tokens of each."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._batches = list(scoring.batches(lengths, _TOKENS))
        self._n = len(lengths)
        self._found: dict[int, T] = {}
        self.error: RlhfError | None = None
        self._done = Event()

    def advance(self) -> bool:
        """The engine's side: compute one batch; whether it was the last, or failed. Nobody is told before `tell`."""
        if not self._batches:
            return True
        batch = self._batches.pop(0)
        try:
            found = self.computed(batch)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            self.error = EngineFailed(f"the engine failed on {self.about}: {what[:300]}", fix="ask again")
            return True
        self._found.update(zip(batch, found, strict=True))
        return not self._batches

    def tell(self, error: RlhfError | None = None) -> None:
        """It is over: whoever waits goes on. error: it ends with this."""
        self.error = error or self.error
        self._done.set()

    @property
    @abstractmethod
    def about(self) -> str:
        """What it computes, for an error."""

    @abstractmethod
    def computed(self, batch: Sequence[int]) -> Sequence[T]:
        """The results of these."""

    def result(self) -> list[T]:
        """Wait for all of them. Raises EngineFailed."""
        self._done.wait()
        if self.error is not None:
            raise self.error
        return [self._found[i] for i in range(self._n)]


class ScoreJob(Job[list[tuple[float, float | None]]]):
    """The groups' scores."""

    about = "these scores"

    def __init__(self, scorer: LiveScorer, groups: Sequence[Group]) -> None:
        super().__init__([group.n_tokens for group in groups])
        self.scorer, self.groups = scorer, groups

    def computed(self, batch: Sequence[int]) -> list[list[tuple[float, float | None]]]:
        """See `Job.computed`."""
        return scoring.score_with_doubt(self.scorer, [self.groups[i] for i in batch], token_budget=_TOKENS)


class LogprobJob(Job[float]):
    """The sums of the log-probabilities of replies after their prompts, as `generation.log_probabilities` gives them."""

    about = "these log-probabilities"

    def __init__(self, policy: LivePolicy, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> None:
        super().__init__([len(prompt) + len(reply) for prompt, reply in zip(prompts, replies, strict=True)])
        self.policy, self.prompts, self.replies = policy, prompts, replies

    def computed(self, batch: Sequence[int]) -> list[float]:
        """See `Job.computed`."""
        prompts, replies = [self.prompts[i] for i in batch], [self.replies[i] for i in batch]
        return generation.log_probabilities(self.policy, prompts, replies, token_budget=_TOKENS)
