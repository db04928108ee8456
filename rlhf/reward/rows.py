"""A snapshot's rows as training rows: tokens with a shared prefix, target and margin. What can't train is counted, never lost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from rlhf.engine.packing import Group
from rlhf.engine.rendering import RenderedPair, Renderer
from rlhf.records import SnapshotRow
from rlhf.reward.aside import is_aside
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
        """Tokens in a packed row."""
        return len(self.prefix) + len(self.chosen) + len(self.rejected)

    @property
    def longest(self) -> int:
        """Tokens of the longer full rendering."""
        return len(self.prefix) + max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True, slots=True)
class RowCounts:
    """What became of the side's pairs: trained_on + set_aside + too_long + refused + same + undecided = pairs.

    set_aside: left for calibration, whatever else they are. refused: the chat template doesn't take the turns. same: it renders
    both replies alike.
    """

    pairs: int
    trained_on: int
    too_long: int
    refused: int
    same: int
    undecided: int
    ties: int
    shortened: int  # among those trained on: pairs whose oldest turns were dropped
    set_aside: int = 0

    def as_json(self) -> dict[str, int]:
        return asdict(self)


def training_rows(
    rows: Iterable[SnapshotRow],
    renderer: Renderer,
    labels: Literal["soft", "majority"],
    margin: float,
    set_aside: float = 0.0,
) -> tuple[list[TrainRow], RowCounts]:
    """Rows that can train, in the snapshot's order, and the count of all. set_aside: share left for calibration (`is_aside`)."""
    taken: list[TrainRow] = []
    n = dict.fromkeys(("pairs", "set_aside", "too_long", "refused", "same", "undecided", "ties", "shortened"), 0)
    for row in rows:
        n["pairs"] += 1
        if is_aside(row.pair.group, set_aside):
            n["set_aside"] += 1
            continue
        p_a = target_of(row.judgements, labels)
        if p_a is None:
            n["undecided"] += 1
            continue
        rendered = renderer.pair(row.pair)
        if not isinstance(rendered, RenderedPair):
            n[rendered] += 1
        else:
            a_first = p_a >= 0.5
            chosen, rejected = (rendered.a, rendered.b) if a_first else (rendered.b, rendered.a)
            target = p_a if a_first else 1 - p_a
            n["ties"] += target == 0.5
            n["shortened"] += rendered.n_dropped_turns > 0
            wanted = margin * (strength_of(row.judgements) - 1) if target > 0.5 else 0.0
            taken.append(TrainRow(row.pair.id, rendered.prefix, chosen, rejected, target, wanted))
    return taken, RowCounts(trained_on=len(taken), **n)


def micro_batches(rows: Sequence[TrainRow], token_budget: int, *, padded: bool = False) -> list[list[TrainRow]]:
    """The rows cut where the next one would pass the budget; a longer row goes alone.

    padded: rows of like length come together (the step's sum doesn't depend on their order), and the padding counts.
    """
    cut: list[list[TrainRow]] = []
    widest = total = 0
    for row in sorted(rows, key=lambda row: row.longest) if padded else rows:
        widest = max(widest, row.longest)
        wanted = 2 * (len(cut[-1]) + 1) * widest if cut and padded else total + row.n_tokens
        if not cut or wanted > token_budget:
            cut.append([])
            widest, total = row.longest, 0
        cut[-1].append(row)
        total += row.n_tokens
    return cut
