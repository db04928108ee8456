"""A snapshot's rows as training rows: tokens with a shared prefix, target and margin. What can't train is counted, never lost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from rlhf.engine.packing import Group
from rlhf.engine.rendering import Renderer
from rlhf.records import SnapshotRow
from rlhf.reward.targets import strength_of, target_of


@dataclass(frozen=True, slots=True)
class TrainRow:
    """One pair, the better reply first. target: P(chosen is better) in [0.5, 1]. weight 0 = only keeps processes in step."""

    pair_id: str
    prefix: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    target: float
    margin: float
    weight: float = 1.0

    @property
    def group(self) -> Group:
        return Group(self.prefix, (self.chosen, self.rejected))

    @property
    def n_tokens(self) -> int:
        return len(self.prefix) + len(self.chosen) + len(self.rejected)


@dataclass(frozen=True, slots=True)
class RowCounts:
    """What became of the side's pairs: trained on + too_long + undecided = pairs."""

    pairs: int
    trained_on: int
    too_long: int
    undecided: int
    ties: int
    shortened: int  # among those trained on: pairs whose oldest turns were dropped

    def as_json(self) -> dict[str, int]:
        return asdict(self)


def training_rows(
    rows: Iterable[SnapshotRow], renderer: Renderer, labels: Literal["soft", "majority"], margin: float
) -> tuple[list[TrainRow], RowCounts]:
    """Rows that can train, in the snapshot's order, and the count of all."""
    taken: list[TrainRow] = []
    n = dict.fromkeys(("pairs", "too_long", "undecided", "ties", "shortened"), 0)
    for row in rows:
        n["pairs"] += 1
        p_a = target_of(row.judgements, labels)
        rendered = renderer.pair(row.pair) if p_a is not None else None
        if p_a is None:
            n["undecided"] += 1
        elif rendered is None:
            n["too_long"] += 1
        else:
            a_first = p_a >= 0.5
            chosen, rejected = (rendered.a, rendered.b) if a_first else (rendered.b, rendered.a)
            target = p_a if a_first else 1 - p_a
            n["ties"] += target == 0.5
            n["shortened"] += rendered.n_dropped_turns > 0
            wanted = margin * (strength_of(row.judgements) - 1) if target > 0.5 else 0.0
            taken.append(TrainRow(row.pair.id, rendered.prefix, chosen, rejected, target, wanted))
    return taken, RowCounts(trained_on=len(taken), **n)


def micro_batches(rows: Sequence[TrainRow], token_budget: int) -> list[list[TrainRow]]:
    """The rows cut, in order, where the next one would pass the budget; a longer row goes alone."""
    cut: list[list[TrainRow]] = []
    total = 0
    for row in rows:
        if not cut or total + row.n_tokens > token_budget:
            cut.append([])
            total = 0
        cut[-1].append(row)
        total += row.n_tokens
    return cut
