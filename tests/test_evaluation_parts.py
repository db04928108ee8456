"""Accuracy by strata, the worst of them, the style matrix, and cohorts: against what the margins say by hand."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf.evaluation import parts, selection
from rlhf.evaluation.estimates import MIN_SHOWN
from rlhf.evaluation.figures import figures
from rlhf.evaluation.scored import CohortVote, ScoredPair
from rlhf.ids import digest_of


def pair(i: int, margin: float, **fields: Any) -> ScoredPair:
    values: dict[str, Any] = {"group": f"g{i}", "target": 1.0, "chosen_length": 9, "rejected_length": 8, **fields}
    return ScoredPair(digest_of(i), score_chosen=margin, score_rejected=0.0, **values)


def right(n: int, n_right: int, start: int = 0, **fields: Any) -> list[ScoredPair]:
    """n pairs, n_right of them ranked rightly."""
    return [pair(start + i, 1.0 if i < n_right else -1.0, **fields) for i in range(n)]


def test_the_worst_stratum_is_named_with_an_interval_that_allows_for_the_search() -> None:
    pairs = (
        right(60, 54, 0, strata=("easy",)) + right(60, 36, 100, strata=("hard",)) + right(9, 0, 200, strata=("few",))
    )
    found = figures(pairs)
    assert found["worst_stratum_name"] == "hard" and found["worst_stratum"] == pytest.approx(0.6)
    assert set(found["by_subset"]["shown"]) == {"easy", "hard"} and found["by_subset"]["hidden"]["parts"] == 1
    worst, own = found["measures"]["worst_stratum"], found["by_subset"]["shown"]["hard"]
    assert worst["low"] < own["low"] and worst["high"] > own["high"] and worst["level"] == pytest.approx(0.975)
    assert "Bonferroni over 2 strata" in worst["method"]


def test_a_row_of_two_strata_counts_in_both_and_without_strata_sources_are_taken() -> None:
    both = figures(right(40, 30, strata=("chat", "long")))
    assert {name: m["n"] for name, m in both["by_subset"]["shown"].items()} == {"chat": 40, "long": 40}
    by_source = figures(right(40, 39, source="x") + right(40, 20, 50, source="y"))
    assert by_source["worst_stratum_name"] == "y" and by_source["by_subset"]["shown"] == {}


def test_the_style_matrix_is_easy_below_the_diagonal_and_hard_above_it() -> None:
    n_right = {"0>0": 8, "1>1": 7, "2>2": 6, "1>0": 10, "2>0": 10, "2>1": 9, "0>1": 4, "0>2": 1, "1>2": 5}
    pairs = [p for k, (cell, n) in enumerate(n_right.items()) for p in right(10, n, 100 * k, styles=(cell,))]
    matrix = figures(pairs)["style_matrix"]
    for cell, n in n_right.items():
        i, j = map(int, cell.split(">"))
        assert matrix["cells"][i][j]["value"] == pytest.approx(n / 10) and matrix["cells"][i][j]["n"] == 10
    assert matrix["easy"] == pytest.approx(29 / 30, abs=1e-6)
    assert matrix["normal"] == pytest.approx(0.7) and matrix["hard"] == pytest.approx(1 / 3, abs=1e-6)
    assert figures(right(10, 5))["style_matrix"] is None


def test_the_intervals_of_parts_are_over_openings_not_pairs() -> None:
    alike = [pair(i, 1.0 if i % 7 else -1.0, strata=("s",), group=f"g{i // 9}") for i in range(90)]
    alone = [pair(i, 1.0 if i % 7 else -1.0, strata=("s",)) for i in range(90)]
    one, other = (figures(side)["measures"]["worst_stratum"] for side in (alike, alone))
    assert "10 groups" in one["method"] and other["method"] == "wilson", "each pair its own opening: independent"


def test_each_cohort_is_agreed_with_by_its_own_votes() -> None:
    def voted(i: int, margin: float) -> ScoredPair:
        who = (f"s w{i % 7}",)
        votes = (CohortVote("for", 1.0, who), CohortVote("against", 0.0, who), CohortVote("split", 0.5, who))
        return pair(i, margin, cohorts=(*votes, CohortVote("tiny", 1.0, ("s only",))))

    found = parts.by_cohort([voted(i, 1.0 if i % 4 else -1.0) for i in range(MIN_SHOWN + 10)], 0)
    assert found["shown"]["for"]["value"] == pytest.approx(0.75)
    assert found["shown"]["against"]["value"] == pytest.approx(0.25) and found["shown"]["against"]["people"] == 7
    assert set(found["shown"]) == {"for", "against"} and found["hidden"]["cohorts"] == 1


def test_precision_is_of_the_sure_pairs_and_a_pair_without_scores_is_never_sure() -> None:
    sure = [pair(i, 3.0 if i % 10 else -3.0) for i in range(50)]
    unsure = [pair(100 + i, 0.1) for i in range(30)]
    unscored = [
        ScoredPair(digest_of(200 + i), f"u{i}", None, None, 1.0, chosen_length=1, rejected_length=1) for i in range(20)
    ]
    found = figures(sure + unsure + unscored, confidences=(0.5, 0.9))["precision"]
    assert found[1]["value"] == pytest.approx(0.9) and found[1]["n"] == 50 and found[1]["coverage"] == 0.5
    assert found[0]["coverage"] == 1.0 and found[0]["n"] == 100  # a coin's confidence is 0.5
    assert found[1]["low"] < 0.9 < found[1]["high"] and found[1]["method"] == "exact (Clopper-Pearson)"
    grouped = selection.precision([pair(i, 3.0, group="same") for i in range(5)], (0.9,))
    assert "1 opening turns for independent" in grouped[0]["method"]
