"""A judged pair with a version's two scores: what every figure is computed from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rlhf.errors import BadInput
from rlhf.records import Judgement, Message, Pair

PROMPT_CHARACTERS, REPLY_CHARACTERS = 500, 700


@dataclass(frozen=True, slots=True)
class CohortVote:
    """What one cohort of labelers said of a pair. target: share of its verdict on the chosen reply's side, in [0, 1]; people: its
    labelers as `source labeler`, those that are known."""

    cohort: str
    target: float
    people: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """chosen: the reply that the labelers prefer; of a tie, reply a.

    score_chosen, score_rejected: float, or both None where the pair could not be scored (too long).
    target: share of the verdict on the chosen reply's side, in [0.5, 1]; 0.5 = tie. Lengths in characters, n_tokens
    over prompt and both replies. group: what is resampled together (the conversation's opening turn). stratum: how the
    labelers agreed. prompt, chosen, rejected: texts for the examples, possibly shortened. strata, styles: of a suite's row,
    and so are tags (attribute, value) and template (`suites.rows.SuiteRow`); rows of one template are resampled together.
    chosen_is_a: the preferred reply is the pair's `a`.
    """

    pair_id: str
    group: str
    score_chosen: float | None
    score_rejected: float | None
    target: float
    chosen_length: int
    rejected_length: int
    n_tokens: int = 0
    source: str = ""
    stratum: str = ""
    truncated: bool = False
    prompt: str = ""
    chosen: str = ""
    rejected: str = ""
    strata: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    chosen_is_a: bool = True
    cohorts: tuple[CohortVote, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    template: str = ""

    def __post_init__(self) -> None:
        if not 0.5 <= self.target <= 1:
            raise ValueError(f"target = {self.target}; wanted 0.5 (tie) to 1 (all for the chosen reply)")
        if (self.score_chosen is None) != (self.score_rejected is None):
            raise ValueError(f"pair {self.pair_id} has one score; wanted both or neither")
        if self.margin is not None and not math.isfinite(self.margin):
            raise BadInput(
                f"pair {self.pair_id[:12]} has the scores {self.score_chosen} and {self.score_rejected}; wanted "
                "finite numbers",
                fix="the version is broken: check it with rlhf adapter verify",
            )

    @property
    def margin(self) -> float | None:
        """Score of the chosen reply - score of the rejected one; None = not scored."""
        return (
            None
            if self.score_chosen is None or self.score_rejected is None
            else self.score_chosen - self.score_rejected
        )

    @property
    def is_tie(self) -> bool:
        return self.target == 0.5

    @property
    def length_difference(self) -> int:
        return self.chosen_length - self.rejected_length


class PairScore(Protocol):
    """What a scorer says of a pair: the reward room's record of that name."""

    @property
    def score_a(self) -> float | None: ...
    @property
    def score_b(self) -> float | None: ...
    @property
    def n_tokens(self) -> int: ...
    @property
    def truncated(self) -> bool: ...


class Row(Protocol):
    """A frozen row: a snapshot's, or a suite's, which has strata and styles too."""

    @property
    def pair(self) -> Pair: ...
    @property
    def judgements(self) -> tuple[Judgement, ...]: ...
    @property
    def sources(self) -> tuple[str, ...]: ...
    @property
    def digest(self) -> str: ...


def scored_pair(
    row: Row,
    p_a: float,
    judgements: Sequence[Judgement],
    score: PairScore,
    *,
    strata: tuple[str, ...] = (),
    styles: tuple[str, ...] = (),
    tags: tuple[tuple[str, str], ...] = (),
    template: str = "",
) -> ScoredPair:
    """A row with its target (P(a better)) and its score, turned so that the preferred reply is `chosen`."""
    pair = row.pair
    a_first = p_a >= 0.5
    chosen, rejected = (pair.reply_a, pair.reply_b) if a_first else (pair.reply_b, pair.reply_a)
    scores: tuple[Any, Any] = (score.score_a, score.score_b) if a_first else (score.score_b, score.score_a)
    return ScoredPair(
        pair_id=pair.id,
        group=f"template {template.rpartition('/')[0]}" if template else pair.group,
        score_chosen=scores[0],
        score_rejected=scores[1],
        target=max(p_a, 1.0 - p_a),
        chosen_length=len(chosen),
        rejected_length=len(rejected),
        n_tokens=score.n_tokens,
        source=" + ".join(row.sources),
        stratum=agreement(judgements),
        truncated=score.truncated,
        prompt=ending(pair.prompt),
        chosen=beginning(chosen),
        rejected=beginning(rejected),
        strata=strata,
        styles=styles,
        chosen_is_a=a_first,
        cohorts=tuple(_cohorts(judgements, a_first)),
        tags=tags,
        template=template,
    )


def _cohorts(judgements: Sequence[Judgement], a_first: bool) -> Iterator[CohortVote]:
    from rlhf.reward.targets import target_of

    for cohort in sorted({j.cohort for j in judgements if j.cohort}):
        own = [j for j in judgements if j.cohort == cohort]
        p_a = target_of(own, "soft")
        if p_a is not None:
            people = sorted({f"{j.source} {j.labeler}" for j in own if j.labeler})
            yield CohortVote(cohort, float(p_a) if a_first else 1.0 - float(p_a), tuple(people))


def agreement(judgements: Sequence[Judgement]) -> str:
    """How the labelers of a pair agree: 'one vote', 'all agree' or 'votes divided'; skips don't vote."""
    votes = ["tie" if j.choice == "both_bad" else j.choice for j in judgements if j.choice != "skip"]
    if len(votes) < 2:
        return "one vote"
    return "all agree" if len(set(votes)) == 1 else "votes divided"


def ending(prompt: Sequence[Message]) -> str:
    """The prompt as turns, its end kept: the last turn is what the replies answer."""
    text = "\n".join(f"{m.role}: {m.content}" for m in prompt)
    return text if len(text) <= PROMPT_CHARACTERS else f"… {text[-PROMPT_CHARACTERS:]}"


def beginning(reply: str) -> str:
    if len(reply) <= REPLY_CHARACTERS:
        return reply
    return f"{reply[:REPLY_CHARACTERS]} … ({len(reply) - REPLY_CHARACTERS:,} more characters)"
