"""How close a learnt reward comes to the known rule, beside how close anything could come to the noisy labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.demo.labelers import LABELERS, Side, majority, noise_ceiling, side_of
from rlhf.demo.rule import true_preference
from rlhf.measures.intervals import wilson
from rlhf.measures.ranking import hits, spearman
from rlhf.records import SnapshotRow


@dataclass(frozen=True, slots=True)
class KnownPair:
    """One held-out pair. margin: the learnt reward of a minus that of b. difference: the rule's points of a minus b.

    majority: the side that its labelers took; labelers: their names, each one of `LABELERS`.
    """

    pair_id: str
    margin: float
    difference: float
    majority: Side
    labelers: tuple[str, ...]


def known_pair(row: SnapshotRow, margin: float) -> KnownPair:
    """A snapshot's row with the learnt reward's margin for its reply a over its reply b; only simulated votes count."""
    cast = [judgement for judgement in row.judgements if judgement.kind == "simulated" and judgement.labeler]
    difference = true_preference(row.pair.prompt, row.pair.reply_a, row.pair.reply_b)
    names = tuple(str(judgement.labeler) for judgement in cast)
    return KnownPair(row.pair.id, margin, difference, majority(judgement.choice for judgement in cast), names)


def truth_figures(scored: Sequence[KnownPair]) -> dict[str, Any]:
    """Figures with their sample sizes.

    truth_accuracy: agreement with the rule where it prefers a side (`n_truths` pairs); `_low`, `_high`: Wilson, 95 %.
    label_accuracy: agreement with the labelers' majority where there is one (`n_labels` pairs), with the same interval.
    rule_accuracy: what the rule itself scores against those same majorities.
    noise_ceiling: what the rule can expect to score against these labelers, see `labelers.noise_ceiling`.
    ceiling_reached: (label_accuracy - 0.5) / (noise_ceiling - 0.5): 0 is a coin, 1 the rule; by luck it may pass 1.
    margin_spearman: rank correlation of the margins with the rule's differences over all pairs.

    A margin of exactly 0 counts a half. The intervals take pairs as independent; two may share a prompt. Raises
    ValueError where no pair has a truth and a majority, KeyError for a labeler who is not one of `LABELERS`.
    """
    true_sides = [(pair.margin, side_of(pair.difference)) for pair in scored]
    labels = [(pair.margin, pair.majority) for pair in scored]
    by_rule = [(pair.difference, pair.majority) for pair in scored]
    known = {labeler.name: labeler for labeler in LABELERS}
    ceiling = noise_ceiling((pair.difference, [known[name] for name in pair.labelers]) for pair in scored)
    figures = {
        "n_pairs": len(scored),
        **_agreement("truth", true_sides),
        **_agreement("label", labels),
        "rule_accuracy": _agreement("rule", by_rule)["rule_accuracy"],
        "noise_ceiling": ceiling,
        "margin_spearman": spearman([pair.margin for pair in scored], [pair.difference for pair in scored]),
    }
    figures["ceiling_reached"] = (figures["label_accuracy"] - 0.5) / (ceiling - 0.5)
    return figures


def _agreement(name: str, sided: Sequence[tuple[float, Side]]) -> dict[str, float]:
    """Share of decided pairs whose margin (above 0 = a) lies on the given side, with its interval and their number."""
    turned = [margin if side == "a" else -margin for margin, side in sided if side != "tie"]
    if not turned:
        raise ValueError(f"none of {len(sided)} pairs has a {name} side")
    right = float(hits(turned).sum())
    interval = wilson(right, len(turned))
    return {f"{name}_accuracy": right / len(turned), f"{name}_accuracy_low": interval.low,
            f"{name}_accuracy_high": interval.high, f"n_{name}s": len(turned)}  # fmt: skip
