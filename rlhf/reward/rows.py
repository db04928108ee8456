"""A snapshot's rows as training rows: tokens with a shared prefix, target and margin. What can't train is counted, never lost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from rlhf.engine.packing import Group
from rlhf.engine.rendering import RenderedPair, Renderer
from rlhf.measures.length import signed_ranks
from rlhf.measures.reliability import Reliability
from rlhf.records import SnapshotRow
from rlhf.reward.aside import is_aside
from rlhf.reward.targets import Labels, Target, Ties, smoothed, strength_of, training_target


@dataclass(frozen=True, slots=True)
class TrainRow:
    """One pair, the better reply first.

    target: P(chosen is better) in [0.5, 1]; tie: share of ties in it. weight: of the pair, 1 unless votes are weighted; 0 = only
    keeps processes in step. length: signed rank in [-1, 1] of its replies' length difference, chosen - rejected in characters,
    among the training's pairs (`measures.length.signed_ranks`).
    """

    pair_id: str
    prefix: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    target: float
    margin: float
    weight: float = 1.0
    tie: float = 0.0
    length: float = 0.0

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
    """What became of the side's pairs: trained_on + set_aside + too_long + refused + same + undecided + dropped = pairs.

    set_aside: left for calibration, whatever else they are. refused: the chat template doesn't take the turns. same: it renders
    both replies alike. dropped: ties that ties=drop leaves out.
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
    dropped: int = 0

    def as_json(self) -> dict[str, int]:
        return asdict(self)


def training_rows(
    rows: Iterable[SnapshotRow],
    renderer: Renderer,
    labels: Labels,
    margin: float,
    set_aside: float = 0.0,
    *,
    ties: Ties = "half",
    smoothing: float = 0.0,
    trust: Reliability | None = None,
) -> tuple[list[TrainRow], RowCounts]:
    """Rows that can train, in the snapshot's order, and the count of all. set_aside: share left for calibration (`is_aside`).

    trust: in the labelers, for labels=reliability (`targets.trust_in` of the rows that aren't set aside).
    """
    taken: list[TrainRow] = []
    longer: list[int] = []
    reasons = ("pairs", "set_aside", "too_long", "refused", "same", "undecided", "dropped", "ties", "shortened")
    n = dict.fromkeys(reasons, 0)
    for row in rows:
        n["pairs"] += 1
        if is_aside(row.pair.group, set_aside):
            n["set_aside"] += 1
            continue
        said = training_target(row.judgements, labels, ties, trust)
        if not isinstance(said, Target):
            n[said] += 1
            continue
        rendered = renderer.pair(row.pair)
        if not isinstance(rendered, RenderedPair):
            n[rendered] += 1
        else:
            p_a, a_first = smoothed(said.p_a, smoothing), said.p_a >= 0.5
            chosen, rejected = (rendered.a, rendered.b) if a_first else (rendered.b, rendered.a)
            target = p_a if a_first else 1 - p_a
            n["ties"] += target == 0.5
            n["shortened"] += rendered.n_dropped_turns > 0
            wanted = margin * (strength_of(row.judgements) - 1) if target > 0.5 else 0.0
            taken.append(
                TrainRow(row.pair.id, rendered.prefix, chosen, rejected, target, wanted, said.weight, said.tie)
            )
            longer.append((len(row.pair.reply_a) - len(row.pair.reply_b)) * (1 if a_first else -1))
    ranks = signed_ranks(longer).tolist()
    taken = [replace(row, length=rank) for row, rank in zip(taken, ranks, strict=True)]
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
