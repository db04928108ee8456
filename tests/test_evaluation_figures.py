"""Figures against what is known of the pairs: counting rules, mirror symmetry, intervals, empty corners."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlhf.errors import BadInput
from rlhf.evaluation import ScoredPair, difference, figures
from rlhf.evaluation.estimates import NO_INTERVAL
from rlhf.ids import chance, digest_of


def pair(i: int, margin: float | None, **fields: Any) -> ScoredPair:
    values: dict[str, Any] = {"group": f"g{i}", "target": 1.0, "chosen_length": 100, "rejected_length": 100}
    values |= {"chosen_is_a": i % 2 == 0, **fields}
    score = None if margin is None else margin / 2
    other = None if score is None else -score
    return ScoredPair(pair_id=digest_of(i), score_chosen=score, score_rejected=other, **values)


def drawn(n: int, seed: int = 0, *, sharper: float = 1.0, a_group: int = 1) -> list[ScoredPair]:
    """Pairs whose true log-odds are known: with sharper = 1 the scores are perfectly calibrated."""
    random = chance(seed, "pairs")
    pairs = []
    for i in range(n):
        odds = random.gauss(0, 1.3)
        margin = odds if random.random() < 1 / (1 + math.exp(-odds)) else -odds
        lengths = {"chosen_length": random.randint(10, 500), "rejected_length": random.randint(10, 500)}
        pairs.append(pair(i, sharper * margin, group=f"g{i // a_group}", **lengths))
    return pairs


def swapped(pairs: list[ScoredPair]) -> list[ScoredPair]:
    return [replace(p, score_chosen=p.score_rejected, score_rejected=p.score_chosen) for p in pairs]


def test_accuracy_counts_right_wrong_and_equal_scores() -> None:
    found = figures([pair(0, 2.0), pair(1, 1.0), pair(2, -1.0), pair(3, 0.0)])
    assert (found["n"], found["n_decided"], found["accuracy"]) == (4, 4, 0.625)
    assert found["log_loss"] == pytest.approx(np.mean(np.log1p(np.exp([-2.0, -1.0, 1.0, 0.0]))), abs=1e-6)
    assert found["brier"] == pytest.approx(np.mean((1 / (1 + np.exp([2.0, 1.0, -1.0, 0.0]))) ** 2), abs=1e-6)


def test_a_pair_that_could_not_be_scored_is_a_coin_and_is_counted() -> None:
    found = figures([pair(0, 3.0), pair(1, None)])
    assert (found["n"], found["n_too_long"], found["accuracy"]) == (2, 1, 0.75)
    assert found["log_loss"] == pytest.approx((math.log1p(math.exp(-3)) + math.log(2)) / 2, abs=1e-6)
    assert found["margins"]["n"] == found["measures"]["ece"]["n"] == 1


def test_ties_are_counted_and_left_out_of_accuracy() -> None:
    decided = drawn(60)
    ties = [pair(1000 + i, 5.0, target=0.5) for i in range(20)]
    found, without = figures(decided + ties), figures(decided)
    assert (found["n"], found["n_decided"], found["n_ties"]) == (80, 60, 20)
    for name in ("accuracy", "accuracy_low", "accuracy_high", "log_loss", "ece", "longer_wins"):
        assert found[name] == without[name]
    assert found["soft_log_loss"] > without["log_loss"] and "soft_log_loss" not in without  # sure of ties: punished


def test_the_soft_log_loss_is_least_where_the_score_says_the_share_of_votes() -> None:
    share = 0.75
    right = math.log(share / (1 - share))
    margins = (right - 0.5, right, right + 0.5)
    losses = [figures([pair(i, m, target=share) for i in range(4)])["soft_log_loss"] for m in margins]
    assert losses[1] < min(losses[0], losses[2])
    assert losses[1] == pytest.approx(-share * math.log(share) - (1 - share) * math.log(1 - share), abs=1e-6)


def test_swapping_the_scores_mirrors_accuracy_and_its_interval() -> None:
    pairs = [*drawn(150, a_group=2), pair(900, None), pair(901, 0.0)]
    one, other = figures(pairs), figures(swapped(pairs))
    assert other["accuracy"] == pytest.approx(1 - one["accuracy"], abs=1e-6)
    assert other["accuracy_low"] == pytest.approx(1 - one["accuracy_high"], abs=1e-6)
    assert other["margins"]["mean"] == pytest.approx(-one["margins"]["mean"], abs=1e-6)
    assert other["length_correlation"] == pytest.approx(-one["length_correlation"], abs=1e-6)


def test_the_order_of_the_pairs_changes_nothing() -> None:
    pairs = drawn(120, a_group=3)
    assert figures(pairs) == figures(pairs[::-1])


def test_the_seed_moves_intervals_and_never_the_accuracy() -> None:
    pairs = drawn(200)
    one, other = figures(pairs, seed=1), figures(pairs, seed=2)
    assert one["accuracy"] == other["accuracy"] and one["seed"] == 1
    assert (one["accuracy_low"], one["ece"]) != (other["accuracy_low"], other["ece"])
    assert figures(pairs, seed=1) == one


def test_every_figure_lies_in_its_interval_and_names_n_and_method() -> None:
    found = figures(drawn(300, a_group=2))
    for name, measure in found["measures"].items():
        assert measure["low"] <= measure["value"] <= measure["high"], name
        assert measure["n"] > 0 and measure["method"] and measure["level"] == 0.95
        flat = [found[name], found[f"{name}_low"], found[f"{name}_high"]]
        assert flat == [measure["value"], measure["low"], measure["high"]]
    json.dumps(found, allow_nan=False)


def test_the_interval_holds_the_true_accuracy_and_narrows_with_the_pairs() -> None:
    odds = np.abs(np.random.default_rng(0).normal(0, 1.3, 200_000))
    truth = float(np.mean(1 / (1 + np.exp(-odds))))  # a perfect score ranks the likelier side first
    some = [figures(drawn(400, seed)) for seed in range(8)]
    assert sum(f["accuracy_low"] <= truth <= f["accuracy_high"] for f in some) >= 6  # fewer by chance: 0.6 %
    small = figures(drawn(100))
    assert small["accuracy_high"] - small["accuracy_low"] > 1.5 * (some[0]["accuracy_high"] - some[0]["accuracy_low"])


def test_pairs_of_one_opening_widen_the_interval() -> None:
    alike = [pair(i, 1.0 if (i // 10) % 3 else -1.0, group=f"g{i // 10}") for i in range(300)]
    alone = [replace(p, group=p.pair_id) for p in alike]
    one, other = figures(alike), figures(alone)
    assert one["accuracy"] == other["accuracy"]
    assert one["accuracy_high"] - one["accuracy_low"] > 2 * (other["accuracy_high"] - other["accuracy_low"])


def test_a_calibrated_score_is_told_from_an_overconfident_one() -> None:
    calibrated, sure = figures(drawn(800)), figures(drawn(800, sharper=4.0))
    assert calibrated["ece"] <= calibrated["ece_if_perfect"]["p95"]
    assert sure["ece"] > 2 * sure["ece_if_perfect"]["p95"]
    assert sum(b["n"] for b in sure["reliability"]) == 800
    assert calibrated["calibration_p"] > 0.05 > 1e-3 > sure["calibration_p"]
    assert calibrated["spiegelhalter_p"] > 0.05 > 1e-3 > sure["spiegelhalter_p"] and sure["spiegelhalter_z"] > 0
    assert calibrated["accuracy"] == sure["accuracy"]


def test_all_right_is_no_certainty() -> None:
    found = figures([pair(i, 1.0) for i in range(30)])
    assert found["accuracy"] == found["accuracy_high"] == 1.0 and 0.85 < found["accuracy_low"] < 0.95
    assert found["measures"]["accuracy"]["method"] == "wilson"


def test_a_single_pair_has_figures_without_intervals() -> None:
    found = figures([pair(0, 1.0)])
    assert found["accuracy"] == 1.0 and found["accuracy_low"] is None and found["accuracy_high"] is None
    assert found["measures"]["accuracy"]["method"] == NO_INTERVAL
    json.dumps(found, allow_nan=False)


def test_pairs_of_one_group_have_no_interval() -> None:
    found = figures([replace(p, group="same") for p in drawn(50)])
    assert found["n_groups"] == 1
    assert all(m["low"] is None and m["method"] == NO_INTERVAL for m in found["measures"].values())


def test_only_ties_or_only_unscored_pairs_leave_figures_open() -> None:
    ties = figures([pair(i, 1.0, target=0.5) for i in range(3)])
    assert ties["accuracy"] is None and ties["n_decided"] == 0 and ties["ece"] is None and ties["margins"] is None
    unscored = figures([pair(i, None) for i in range(3)])
    assert unscored["accuracy"] == 0.5 and unscored["ece"] is None and unscored["length_correlation"] is None


def test_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        figures([])


def test_a_score_that_is_no_number_is_refused_by_pair() -> None:
    with pytest.raises(BadInput, match="wanted finite numbers"):
        pair(0, math.nan)
    with pytest.raises(ValueError, match="one score"):
        replace(pair(0, 1.0), score_rejected=None)


def test_a_score_that_is_length_is_seen_through() -> None:
    byte = [replace(p, score_chosen=p.chosen_length / 50, score_rejected=p.rejected_length / 50) for p in drawn(300)]
    found = figures(byte)
    assert found["accuracy"] == found["longer_wins"] and found["accuracy_minus_longer_wins"] == 0
    assert found["accuracy_chosen_longer"] == 1 and found["accuracy_chosen_shorter"] == 0
    assert found["length_correlation"] > 0.99
    sides = [found["measures"][f"accuracy_chosen_{side}"]["n"] for side in ("longer", "shorter")]
    assert sum(sides) == sum(p.length_difference != 0 for p in byte)


def test_the_guess_by_length_is_the_better_of_both_sides() -> None:
    long_lovers = drawn(300)
    short_lovers = [replace(p, chosen_length=p.rejected_length, rejected_length=p.chosen_length) for p in long_lovers]
    one, other = figures(long_lovers), figures(short_lovers)
    assert {one["length_guess_side"], other["length_guess_side"]} == {"longer", "shorter"}
    for found in (one, other):
        assert found["length_guess"] == pytest.approx(max(found["longer_wins"], 1 - found["longer_wins"]), abs=1e-6)
        gap = found["accuracy"] - found["length_guess"]
        assert found["accuracy_minus_length_guess"] == pytest.approx(gap, abs=2e-6)
    assert one["length_guess"] == other["length_guess"] and one["longer_wins"] != other["longer_wins"]


def test_small_parts_are_hidden_and_counted() -> None:
    pairs = [replace(p, source="big" if i < 60 else f"small{i % 2}") for i, p in enumerate(drawn(100))]
    found = figures(pairs)["by_source"]
    assert list(found["shown"]) == ["big"] and found["shown"]["big"]["n"] == 60
    assert found["hidden"] == {"parts": 2, "pairs": 40, "below": 30}


def test_a_version_differs_from_itself_by_nothing() -> None:
    found = difference(drawn(80), drawn(80))
    assert found["accuracy"]["value"] == found["log_loss"]["value"] == 0.0 and found["same_side"]["value"] == 1.0


def test_a_difference_is_paired_and_turns_its_sign() -> None:
    good, bad = drawn(400), [replace(p, score_chosen=(p.score_chosen or 0) - 0.8) for p in drawn(400)]
    one, other = difference(good, bad), difference(bad, good)
    assert one["accuracy"]["low"] > 0 and one["accuracy"]["value"] == -other["accuracy"]["value"]
    assert one["accuracy"]["value"] == pytest.approx(figures(good)["accuracy"] - figures(bad)["accuracy"], abs=1e-6)
    alone = figures(good)
    unpaired = (alone["accuracy_high"] - alone["accuracy_low"]) * math.sqrt(2)
    assert one["accuracy"]["high"] - one["accuracy"]["low"] < unpaired


def test_different_pairs_have_no_difference() -> None:
    with pytest.raises(ValueError, match="different pairs"):
        difference(drawn(10), drawn(11))
