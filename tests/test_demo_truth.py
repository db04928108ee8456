"""Truth figures: the rule itself reaches the ceiling, a coin none of it, and a learnt reward stands between."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlhf.demo import KnownPair, demo_pairs, known_pair, majority, true_preference, truth_figures
from rlhf.demo import labelers as room
from rlhf.ids import chance
from rlhf.records import Judgement, SnapshotRow


@pytest.fixture(scope="module")
def known() -> list[KnownPair]:
    """Every shipped pair with the rule itself as its reward."""
    found = []
    for pair in demo_pairs():
        cast = room.votes(pair)
        difference = true_preference(pair.prompt, pair.reply_a, pair.reply_b)
        names = tuple(vote.labeler.name for vote in cast)
        found.append(KnownPair(pair.id, difference, difference, majority(vote.choice for vote in cast), names))
    return found


def test_the_rule_as_reward_reaches_the_ceiling(known: list[KnownPair]) -> None:
    figures = truth_figures(known)
    assert figures["truth_accuracy"] == 1.0
    assert figures["margin_spearman"] == pytest.approx(1.0)
    assert figures["label_accuracy"] == figures["rule_accuracy"]
    assert figures["label_accuracy_low"] < figures["noise_ceiling"] < figures["label_accuracy_high"]
    assert figures["ceiling_reached"] == pytest.approx(1.0, abs=0.06)
    assert figures["n_pairs"] == len(known) >= figures["n_labels"]


def test_chance_as_reward_reaches_nothing(known: list[KnownPair]) -> None:
    draw = chance(0, "coin")
    figures = truth_figures([replace(pair, margin=draw.gauss(0.0, 1.0)) for pair in known])
    assert figures["truth_accuracy_low"] < 0.5 < figures["truth_accuracy_high"]
    assert abs(figures["ceiling_reached"]) < 0.15
    assert abs(figures["margin_spearman"]) < 0.1


def test_a_noisy_reward_agrees_with_the_truth_more_than_with_the_labels(known: list[KnownPair]) -> None:
    draw = chance(0, "noise")
    figures = truth_figures([replace(pair, margin=pair.difference + draw.gauss(0.0, 1.0)) for pair in known])
    assert 0.5 < figures["label_accuracy"] < figures["truth_accuracy"] < 1.0
    assert 0.5 < figures["ceiling_reached"] < 1.0


def test_turning_every_pair_changes_no_figure(known: list[KnownPair]) -> None:
    other = {"a": "b", "b": "a", "tie": "tie"}
    turned = [replace(p, margin=-p.margin, difference=-p.difference, majority=other[p.majority]) for p in known]  # type: ignore[arg-type]
    assert truth_figures(turned) == pytest.approx(truth_figures(known))


def test_a_margin_of_zero_counts_a_half(known: list[KnownPair]) -> None:
    figures = truth_figures([replace(pair, margin=0.0) for pair in known])
    assert figures["truth_accuracy"] == figures["label_accuracy"] == 0.5
    assert figures["margin_spearman"] == 0.0


def test_known_pair_reads_a_snapshot_row_and_leaves_human_votes_out() -> None:
    pair = demo_pairs()[0]
    cast = [Judgement(pair.id, "a", "demo", labeler=f"sim-{i}", kind="simulated") for i in (1, 2)]
    human = [Judgement(pair.id, "b", "demo", labeler=f"person-{i}") for i in range(3)]
    known = known_pair(SnapshotRow(pair, (*cast, *human), "test", ("demo",), "00"), 0.25)
    assert (known.majority, known.labelers, known.margin) == ("a", ("sim-1", "sim-2"), 0.25)
    assert known.difference == true_preference(pair.prompt, pair.reply_a, pair.reply_b)


def test_pairs_without_a_majority_are_refused(known: list[KnownPair]) -> None:
    with pytest.raises(ValueError, match="no pairs"):
        truth_figures([])
    with pytest.raises(ValueError, match="label side"):
        truth_figures([replace(known[0], majority="tie")])
