"""Verdicts to figures: what counts as what, and both sides' figures as mirror images."""

from __future__ import annotations

import json

import pytest
from written_replies import pairs_of, reply_of, verdicts_of

from rlhf.evaluation.judges import COIN, TIE, Verdict
from rlhf.evaluation.reply_pairs import ReplyPair
from rlhf.evaluation.win_rates import difference, figures


def test_a_win_rate_is_the_share_won_with_ties_half() -> None:
    pairs = pairs_of([(f"a {i}", f"b {i}") for i in range(10)])
    a, b = figures(pairs, verdicts_of([1, 1, 1, 1, 1, 0.5, 0.5, 0, 0, 0]))
    assert (a["win_rate"], b["win_rate"]) == (0.6, 0.4)
    assert (a["n"], a["n_wins"], a["n_losses"], a["n_ties"]) == (10, 5, 3, 2)
    assert (b["n_wins"], b["n_losses"]) == (3, 5)
    assert a["win_rate_low"] < 0.6 < a["win_rate_high"]


def test_the_other_side_s_figures_are_the_mirror_image() -> None:
    pairs = pairs_of([("x" * (20 + 7 * i % 40), "y" * (15 + 11 * i % 50)) for i in range(60)])
    a, b = figures(pairs, verdicts_of([float(i % 5 not in (0, 3)) for i in range(60)]))
    for name, mirror in (
        ("win_rate", "win_rate"),
        ("length_controlled_win_rate", "length_controlled_win_rate"),
        ("win_rate_longer", "win_rate_shorter"),
    ):
        assert a[name] + b[mirror] == pytest.approx(1.0, abs=2e-6)
        assert a[f"{name}_low"] + b[f"{mirror}_high"] == pytest.approx(1.0, abs=2e-6)
        assert a[f"{name}_low"] < a[name] < a[f"{name}_high"]


def test_a_coin_counts_a_half_and_an_unjudged_pair_nothing() -> None:
    pairs = pairs_of([(f"a {i}", f"b {i}") for i in range(4)])
    a, b = figures(pairs, [Verdict(1.0, 2.0), Verdict(None), COIN, TIE])
    assert (a["win_rate"], a["n"], a["n_prompts"]) == (pytest.approx(2 / 3, abs=1e-6), 3, 4)
    assert (a["n_coins"], a["n_not_judged"], a["n_ties"]) == (1, 1, 1)
    assert b["win_rate"] == pytest.approx(1 / 3, abs=1e-6)


def test_judged_are_those_that_a_judge_told_apart_or_called_a_tie_not_coins_and_not_equal_texts() -> None:
    pairs = pairs_of([(f"longer a {i}", f"b {i}") for i in range(5)] + [("same", "same")])
    for f in figures(pairs, [Verdict(1.0), Verdict(0.0), Verdict(0.5), COIN, Verdict(None), TIE]):
        assert (f["n"], f["n_judged"], f["n_coins"], f["n_identical"]) == (5, 3, 1, 1)
        assert f["measures"]["win_rate"]["n"] == 5
        assert {f["measures"][name]["n_judged"] for name in ("win_rate", "length_controlled_win_rate")} == {3}
        assert sorted(f["measures"][f"win_rate_{side}"]["n_judged"] for side in ("longer", "shorter")) == [0, 3]


def test_nothing_judged_is_no_figure_and_writing_is_measured_all_the_same() -> None:
    a, _ = figures(pairs_of([("a b", "c d")] * 3), verdicts_of([None] * 3))
    assert a["win_rate"] is None and a["n"] == 0 and a["mean_tokens"] == 2
    assert "0 pairs are fewer" in a["length_controlled_why"]
    with pytest.raises(ValueError, match="no pairs"):
        figures([], [])


def test_prompts_of_one_opening_turn_count_as_one() -> None:
    """Sixteen prompts that open alike tell of one conversation: no interval."""
    texts = [(f"a {i}", f"b {i}") for i in range(16)]
    wins = verdicts_of([1, 0] * 8)
    alone, together = figures(pairs_of(texts), wins)[0], figures(pairs_of(texts, group="Hello"), wins)[0]
    assert alone["win_rate_low"] is not None and alone["n_groups"] == 16
    assert together["win_rate_low"] is None and together["n_groups"] == 1 and together["win_rate"] == 0.5


def test_kl_is_per_reply_and_per_token_against_the_base() -> None:
    pairs = pairs_of([("one two three", "one"), ("four five six", "two")])
    a, b = figures(pairs, verdicts_of([1, 0]))
    assert (a["kl"], a["kl_per_token"]) == (1.5, 0.5)
    assert (b["kl"], b["kl_per_token"]) == (0.0, 0.0)
    assert a["log_likelihood_base"] == b["log_likelihood_base"] == -2.0


def test_what_the_replies_are_like_is_measured_on_each_side() -> None:
    pairs = pairs_of([("la " * 30, "all of these words differ"), ("lo " * 30, "and so do those over there")])
    pairs = [ReplyPair(p.prompt, reply_of(p.prompt, p.a.text, cut_off=True), p.b) for p in pairs]
    a, b = figures(pairs, verdicts_of([0, 0]))
    assert (a["cut_off"], b["cut_off"]) == (1.0, 0.0)
    assert a["repetition"] > 0.9 and b["repetition"] == 0.0
    assert a["distinct_2"] < 0.1 < b["distinct_2"] == 1.0
    assert (a["mean_tokens"], a["mean_characters"]) == (30, 90)
    gap = difference(pairs)
    assert gap["cut_off"]["value"] == 1.0 and gap["repetition"]["value"] == pytest.approx(a["repetition"], abs=1e-6)
    assert gap["log_likelihood_base"]["value"] == 0.0 and gap["mean_tokens"]["value"] == pytest.approx(24.5)


def test_refusals_are_counted_on_each_side_and_between_them() -> None:
    pairs = pairs_of(
        [("I'm sorry, but I can't help with that.", f"Boil {i} eggs for seven minutes.") for i in range(9)]
    )
    pairs += pairs_of([("Put it in the oven.", "I cannot assist with this.")])
    a, b = figures(pairs, verdicts_of([0] * 10))
    assert (a["refusal"], b["refusal"]) == (0.9, 0.1) and a["refusal_low"] < 0.9
    assert difference(pairs)["refusal"]["value"] == pytest.approx(0.8)


def test_distinct_n_grams_rise_with_n_where_words_repeat_and_sentences_do_not() -> None:
    a, _ = figures(
        pairs_of([("one two three", "x"), ("two one three", "y"), ("three two one", "z")]), verdicts_of([1] * 3)
    )
    found = [a[f"distinct_{n}"] for n in (1, 2, 3)]
    assert found == [pytest.approx(1 / 3, abs=1e-6), pytest.approx(5 / 6, abs=1e-6), 1.0]


def test_figures_are_plain_json_and_the_seed_decides_the_resamples() -> None:
    pairs = pairs_of([("x" * (i + 3), "y" * (40 - i)) for i in range(30)])
    verdicts = verdicts_of([float(i * i % 7 > 2) for i in range(30)])
    one, again, other = (figures(pairs, verdicts, seed=seed)[0] for seed in (0, 0, 1))
    assert json.dumps(one, allow_nan=False) == json.dumps(again) != json.dumps(other)
