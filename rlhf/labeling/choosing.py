"""What a vote on a pair is worth, what it costs, and with which probability the queue draws the pair for it.

Worths are rows that a reward wrote (`rlhf label rank`): a draw reads them, so that the page needs no model. Each is a share in
[0, 1]; a pair's benefit is their weighted sum, its effort the seconds that a labeler is expected to take. Among the n open pairs
of a draw

    p_i = floor / n + (1 - floor) x (benefit_i / effort_i) / sum_j (benefit_j / effort_j)

so that no pair's probability is ever 0: weighting votes by 1 / p undoes the choice. A pair without a row, such as a new one, has
the mean benefit per second of those with one. Where no pair of a draw has a row it is as if there were no rows.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache

from sqlalchemy import Connection, Select, bindparam, func, select

from rlhf.ids import now_text
from rlhf.labeling.counts import SOURCE, gold_pairs
from rlhf.labeling.rules import LabelRules, rules_in
from rlhf.records import Judgement
from rlhf.store import Workspace
from rlhf.store.tables import judgements, pair_worths, pairs

_AT_ONCE = 500  # ids in one query
_LEAST_S = 1.0  # no pair is read faster: an effort of nothing would win every draw
_PRIOR = (8.0, 0.015)  # seconds = 8 + 0.015 a character (some 250 words a minute would be 0.04; labelers skim)
_PRIOR_WORTH = 30  # answers that the prior counts as
_BELIEVED_S = (1.0, 1800.0)  # a pair left open over lunch says nothing of reading


@dataclass(frozen=True, slots=True)
class Worth:
    """What one pair's row says. doubt: what a vote is expected to tell the reward, in bits: large where p_a is near to 1/2 because
    the reward doesn't know; None where it can't score the pair. effort_s: seconds."""

    pair_id: str
    doubt: float | None
    disagreement: float
    coverage: float
    effort_s: float
    p_a: float | None = None

    def benefit(self, rules: LabelRules) -> float:
        return (
            rules.doubt_weight * (self.doubt or 0.0)
            + rules.disagreement_weight * self.disagreement
            + rules.coverage_weight * self.coverage
        )


@dataclass(frozen=True, slots=True)
class Effort:
    """Seconds of an answer by the characters read: seconds = start_s + per_character_s x characters."""

    start_s: float
    per_character_s: float
    n_answers: int

    def seconds(self, characters: int) -> float:
        return max(_LEAST_S, self.start_s + self.per_character_s * characters)


def probabilities(connection: Connection, pair_ids: Sequence[str]) -> list[float] | None:
    """Of each open pair of a draw, adding up to 1. None where none of them has a worth: the draw is then as without."""
    if connection.execute(_any_worth()).first() is None:
        return None
    known = {
        row.pair_id: Worth(row.pair_id, row.doubt, row.disagreement, row.coverage, row.effort_s, row.p_a)
        for start in range(0, len(pair_ids), _AT_ONCE)
        for row in connection.execute(_worths_of(), {"ids": list(pair_ids[start : start + _AT_ONCE])})
    }
    return shares([known.get(pair_id) for pair_id in pair_ids], rules_in(connection)) if known else None


@cache
def _any_worth() -> Select[str]:
    return select(pair_worths.c.pair_id).limit(1)


@cache
def _worths_of() -> Select[str, float, float, float, float, float]:
    row = pair_worths.c
    of = row.pair_id.in_(bindparam("ids", expanding=True))
    return select(row.pair_id, row.doubt, row.disagreement, row.coverage, row.effort_s, row.p_a).where(of)


def shares(worths: Sequence[Worth | None], rules: LabelRules) -> list[float]:
    """The module's formula; even where nothing is worth anything."""
    rates = [None if worth is None else worth.benefit(rules) / max(worth.effort_s, _LEAST_S) for worth in worths]
    there = [rate for rate in rates if rate is not None]
    usual = statistics.fmean(there) if there else 0.0
    filled = [usual if rate is None else rate for rate in rates]
    total, even = sum(filled), 1 / len(filled)
    if total <= 0.0:
        return [even] * len(filled)
    return [rules.floor * even + (1 - rules.floor) * rate / total for rate in filled]


def keep_worths(workspace: Workspace, worths: Iterable[Worth], *, by: str, n_votes: int) -> int:
    """Put these rows in the place of all that were there. Gives their number.

    by: digest of the reward version; the audit log says when another one takes over, not each time that it takes votes in.
    """
    at = now_text()
    rows = [{**asdict(worth), "by": by, "n_votes": n_votes, "updated_at": at} for worth in worths]
    with workspace.write() as write:
        before = write.connection.execute(select(pair_worths.c.by).limit(1)).scalar()
        write.connection.execute(pair_worths.delete())
        for start in range(0, len(rows), _AT_ONCE):
            write.connection.execute(pair_worths.insert(), rows[start : start + _AT_ONCE])
        if before != by:
            write.audit("label.rank", by, {"pairs": len(rows), "votes": n_votes})
    return len(rows)


def forget_worths(workspace: Workspace) -> int:
    """Take all rows away: draws are even again. Gives their number."""
    with workspace.write() as write:
        n = write.connection.execute(select(func.count()).select_from(pair_worths)).scalar_one()
        write.connection.execute(pair_worths.delete())
        write.audit("label.rank", "none", {"forgotten": n})
    return int(n)


def may_be_drawn(workspace: Workspace, overlap: int) -> Callable[[str, Sequence[Judgement]], bool]:
    """Of a pair with its judgements in force: whether somebody may still be asked about it. overlap: people wanted a pair."""
    with workspace.read() as connection:
        known, most = set(connection.scalars(gold_pairs())), overlap + rules_in(connection).more

    def may(pair_id: str, said: Sequence[Judgement]) -> bool:
        n = sum(vote.source == SOURCE and vote.kind == "human" and vote.choice != "skip" for vote in said)
        return n < most and pair_id not in known

    return may


def n_judgements(workspace: Workspace) -> int:
    """How many were ever kept: another number says that there is something new to take in."""
    with workspace.read() as connection:
        return connection.execute(select(func.count()).select_from(judgements)).scalar_one()


def effort(workspace: Workspace) -> Effort:
    """A robust line through the seconds of past answers: Theil and Sen's median slope over pairs of answers that stand half the
    list apart by length, and the median rest, drawn to a prior that counts as 30 answers."""
    length = func.length(pairs.c.prompt) + func.length(pairs.c.reply_a) + func.length(pairs.c.reply_b)
    asked = (
        select(length, judgements.c.seconds)
        .join(pairs, pairs.c.id == judgements.c.pair_id)
        .where(judgements.c.seconds.between(*_BELIEVED_S), judgements.c.choice != "skip", pairs.c.erased_at.is_(None))
        .order_by(judgements.c.id.desc())
        .limit(20_000)
    )
    with workspace.read() as connection:
        return line_of([(int(row[0]), float(row[1])) for row in connection.execute(asked)])


def line_of(answers: Sequence[tuple[int, float]]) -> Effort:
    """`effort` of (characters, seconds)."""
    start, slope = _PRIOR
    ordered = sorted(answers)
    half = len(ordered) // 2
    slopes = [
        (b[1] - a[1]) / (b[0] - a[0])
        for a, b in zip(ordered, ordered[len(ordered) - half :], strict=False)
        if b[0] > a[0]
    ]
    trust = len(ordered) / (len(ordered) + _PRIOR_WORTH)
    if slopes:
        slope = max(0.0, trust * statistics.median(slopes) + (1 - trust) * slope)
    if ordered:
        rest = statistics.median(seconds - slope * length for length, seconds in ordered)
        start = trust * rest + (1 - trust) * start
    return Effort(start, slope, len(ordered))


def disagreement(choices: Mapping[str, int]) -> float:
    """How evenly answers are split between the sides, in [0, 1]: 1 - |a - b| / n, ties half to each; 0 of fewer than two."""
    n = sum(choices.get(choice, 0) for choice in ("a", "b", "tie", "both_bad"))
    return 0.0 if n < 2 else 1 - abs(choices.get("a", 0) - choices.get("b", 0)) / n
