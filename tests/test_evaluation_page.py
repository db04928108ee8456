"""The page and its words: extremes chosen rightly, headline true in every corner."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf.evaluation import ScoredPair, figures
from rlhf.evaluation.examples import examples, surest
from rlhf.evaluation.held_out import method
from rlhf.evaluation.judged_by import FILE, TEMPLATE, as_each_did, as_they_did, judge_of_card, judged_by
from rlhf.evaluation.page import render
from rlhf.evaluation.scored import REPLY_CHARACTERS, CohortVote, agreement, scored_pair
from rlhf.evaluation.wording import against_length, caution_of, cautions, number
from rlhf.records import Judgement, Message, Pair, SnapshotRow
from rlhf.reward.score import PairScore


def pair(i: int, margin: float | None, **fields: Any) -> ScoredPair:
    values: dict[str, Any] = {"group": f"g{i}", "target": 1.0, "chosen_length": 100 + i, "rejected_length": 100}
    values |= fields
    return ScoredPair(f"{i:064x}", score_chosen=margin, score_rejected=None if margin is None else 0.0, **values)


def content(scored: list[ScoredPair], **changed: Any) -> dict[str, Any]:
    version = {
        "digest": "d" * 64,
        "kind": "lora",
        "base": "tiny",
        "base_digest": "b" * 64,
        "simulated": False,
        "trained_on": None,
        "trained_on_digest": None,
        "seen_openings": None,
        "figures": figures(scored),
    }
    return {
        "title": "hh@1 on s@1 (test)",
        "digest": "e" * 64,
        "versions": {"hh@1": version},
        "differences": [],
        "snapshot": {
            "kind": "snapshot",
            "name": "s@1",
            "digest": "f" * 64,
            "split": "test",
            "pairs": len(scored),
            "without_verdict": 0,
            "without_consent": 0,
        },
        "labelers": ["human"],
        "simulated": False,
        "seed": 0,
        "method": method(changed.get("labelers", ["human"])),
        **changed,
    }


def page_of(scored: list[ScoredPair], **changed: Any) -> str:
    return render(content(scored, **changed), {"hh@1": scored})


def test_the_surest_pairs_are_shown_on_both_sides() -> None:
    scored = [pair(i, margin) for i, margin in enumerate([0.1, 5.0, -4.0, -0.2, 3.0, 0.0])]
    scored += [pair(10, None), pair(11, 9.0, target=0.5)]
    right, wrong = surest(scored, 2)
    assert [p.score_chosen for p in right] == [5.0, 3.0] and [p.score_chosen for p in wrong] == [-4.0, -0.2]


def test_examples_escape_what_people_wrote() -> None:
    evil = {"prompt": "<img src=x>", "chosen": "</blockquote><script>", "rejected": "{0} {x} %s", "source": "<b>"}
    html = examples([pair(0, 1.0, **evil)], ["human"])
    assert "<img" not in html and "<script" not in html and "<b>" not in html and "{0} {x} %s" in html
    assert "P(preferred is better) <strong>0.73</strong>" in html, "sigmoid of a margin of 1"


def test_the_page_shows_the_interval_the_method_and_every_digest() -> None:
    html = page_of([pair(i, 1.0 if i % 3 else -1.0) for i in range(60)])
    for wanted in ("66.7 %", "of 60 held-out pairs", "cluster bootstrap over 60 groups", *(c * 64 for c in "bdef")):
        assert wanted in html
    assert "can&#39;t be ruled out" in html  # nobody knows what it was trained on


@pytest.mark.parametrize(
    ("scored", "said"),
    [
        ([pair(0, 1.0, target=0.5)], "all 1 pairs are ties"),
        ([pair(0, 1.0)], "no interval can be formed"),
        ([pair(0, None), pair(1, None)], "2 too long to be scored"),
        ([pair(0, 1.0, truncated=True), pair(1, -1.0)], "1 scored with their oldest turns left out"),
    ],
)
def test_a_corner_is_said_in_words(scored: list[ScoredPair], said: str) -> None:
    assert said in page_of(scored)


def test_a_version_no_better_than_length_is_told_so() -> None:
    by_length = figures([pair(i + 1, float((i % 2) * 2 - 1), chosen_length=100 + (i % 2) * 2 - 1) for i in range(80)])
    assert "don't show that the version is better" in against_length(by_length)
    beats = figures([pair(i + 1, 1.0, chosen_length=100 + (i % 2) * 2 - 1) for i in range(80)])
    assert "is better than that guess by" in against_length(beats)
    loses = figures([pair(i + 1, -1.0) for i in range(79)] + [pair(99, 1.0)])
    assert "is worse than that guess by" in against_length(loses)


def short_lover(n: int = 120) -> list[ScoredPair]:
    """Scores that follow shortness; in two of three pairs the shorter reply was preferred."""
    lengths = [100 + (10 + i) * (1 if i % 3 == 0 else -1) for i in range(n)]
    return [pair(i, (100 - length) / 50, chosen_length=max(length, 1)) for i, length in enumerate(lengths)]


def test_a_score_that_prefers_short_replies_is_set_against_the_guess_that_does_too() -> None:
    f = figures(short_lover())
    assert (f["length_guess_side"], f["length_guess"]) == ("shorter", f["accuracy"])
    said = against_length(f)
    assert said.startswith("Always guessing the shorter reply is right in 66.7 %; these pairs don't show")
    assert "Caution: its scores may follow length; it prefers shorter replies (rank correlation −" in said
    html = page_of(short_lover())
    assert "Length guess: shorter wins" in html and "guess: shorter wins" in html and "the other way round" in html
    assert "Caution" not in against_length(figures([pair(i, 1.0 if i % 3 else -1.0) for i in range(60)]))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.05, 0.093, "No difference shown between hh@2 and hh@1: +2.2 points (−5.0 to +9.3)."),
        (0.01, 0.034, "hh@2 ranks more pairs as the labelers did than hh@1: +2.2 points (+1.0 to +3.4)."),
        (-0.034, -0.01, "hh@2 ranks fewer pairs as the labelers did than hh@1: +2.2 points (−3.4 to −1.0)."),
        (None, None, "hh@2 against hh@1: +2.2 points; no interval can be formed."),
    ],
)
def test_two_versions_are_compared_before_either_is_praised(low: float | None, high: float | None, said: str) -> None:
    scored = [pair(i, 1.0 if i % 3 else -1.0) for i in range(60)]
    measure = {"value": 0.022, "low": low, "high": high, "n": 60, "method": "bootstrap"}
    gap = {"a": "hh@2", "b": "hh@1", "accuracy": measure, "log_loss": measure, "same_side": measure}
    made = content(scored, differences=[gap])
    made["versions"]["hh@2"] = made["versions"]["hh@1"]
    html = render(made, {"hh@1": scored, "hh@2": scored})
    assert said in html and html.index(said) < html.index('class="number"')


def test_a_method_is_said_once_and_a_hard_word_is_explained() -> None:
    html = page_of([pair(i, (1.0 + i / 50) if i % 3 else -1.0) for i in range(60)])
    assert (
        html.count("a: wilson")
        == html.count("b: cluster bootstrap over 60 groups")
        == html.count("over 60 groups<")
        == 1
    )
    assert html.count("bias-shifted") == 1 and "resampling alone raises the ECE" in html


def test_numbers_keep_their_sign_and_their_minus() -> None:
    assert [number(v, f) for v, f in ((0.6651, "%"), (-0.1, "+%"), (0.25, "+3"), (-1.5, "2"), (None, "%"))] == [
        "66.5",
        "−10.0",
        "+0.250",
        "−1.50",
        "–",
    ]


def row(choices: str, **fields: Any) -> tuple[SnapshotRow, tuple[Judgement, ...]]:
    made = Pair.of([Message("user", "Why?")], "short", "x" * (REPLY_CHARACTERS + 5))
    names = {"a": "a", "b": "b", "t": "tie", "n": "both_bad", "s": "skip"}
    judgements = tuple(Judgement(made.id, names[c], "s", labeler=str(i)) for i, c in enumerate(choices))  # type: ignore[arg-type]
    return SnapshotRow(made, judgements, "test", ("s", "t"), "0" * 64), judgements


@pytest.mark.parametrize("p_a", [1.0, 0.75, 0.5, 0.25, 0.0])
def test_a_row_is_turned_so_that_the_preferred_reply_is_chosen(p_a: float) -> None:
    snapshot_row, judgements = row("ab")
    made = scored_pair(snapshot_row, p_a, judgements, PairScore(2.0, -1.0, 7, True))
    chosen = snapshot_row.pair.reply_a if p_a >= 0.5 else snapshot_row.pair.reply_b
    assert made.target == max(p_a, 1 - p_a) and made.chosen_length == len(chosen)
    assert made.margin == (3.0 if p_a >= 0.5 else -3.0)
    assert (made.source, made.truncated, made.n_tokens, made.is_tie) == ("s + t", True, 7, p_a == 0.5)


def test_a_long_reply_says_how_much_is_not_shown() -> None:
    snapshot_row, judgements = row("a")
    made = scored_pair(snapshot_row, 1.0, judgements, PairScore(0.0, 0.0, 7, False))
    assert "(5 more characters)" in made.chosen + made.rejected


def test_agreement_tells_one_vote_from_many() -> None:
    assert [agreement(row(c)[1]) for c in ("a", "as", "aa", "tn", "ab", "aat")] == [
        "one vote",
        "one vote",
        "all agree",
        "all agree",
        "votes divided",
        "votes divided",
    ]


def voted(i: int, cohort: str, people: int) -> ScoredPair:
    names = tuple(f"s p{i % people}" for i in range(people))
    return pair(i, 1.0 if i % 4 else -1.0, cohorts=(CohortVote(cohort, 1.0, names),))


def test_agreement_by_cohort_is_drawn_and_small_cohorts_are_counted() -> None:
    scored = [voted(i, "north", 6) for i in range(40)] + [voted(i + 50, "rare", 2) for i in range(40)]
    html = page_of(scored)
    assert 'id="v0-by-cohort' in html and "north 75.0 (" in html and "Not shown: 1 of fewer than" in html
    hidden = page_of([voted(i, "rare", 2) for i in range(40)])
    assert 'id="v0-by-cohort' not in hidden and "agreement by cohort is hidden: 1 of fewer than" in hidden
    assert "rare" not in hidden


def test_a_file_that_names_nobody_is_not_called_people_anywhere() -> None:
    scored = [pair(i, 1.0 if i % 3 else -1.0) for i in range(60)]
    measure = {"value": 0.022, "low": 0.01, "high": 0.034, "n": 60, "method": "bootstrap"}
    gap = {"a": "hh@2", "b": "hh@1", "accuracy": measure, "log_loss": measure, "same_side": measure}
    made = content(scored, labelers=[FILE], differences=[gap])
    made["versions"]["hh@2"] = made["versions"]["hh@1"]
    html = render(made, {"hh@1": scored, "hh@2": scored})
    for said in (
        "ranks the two replies as the suite says in 66.7 %",
        "hh@2 ranks more pairs as the suite says than hh@1",
        "percent of the decided pairs ranked as the suite says",
        "Right of zero is ranked as the suite says",
        "the better, as the suite says, score",
        "the suite&#39;s file, which names nobody",
        "share of decided pairs ranked as the suite says",
        "who judged its pairs, and how often they would agree with each other, is unknown",
    ):
        assert said in html, said
    for wrong in ("as people did", "labelers did", "preferred by the labelers", "these labelers"):
        assert wrong not in html, wrong
    by_template = page_of(scored, labelers=[TEMPLATE])
    assert "the better, as whoever wrote the templates said" in by_template and "labelers did" not in by_template
    assert "preferred by the labelers" in page_of(scored) and "as people did" in page_of(scored)


def test_labelers_and_a_file_that_names_some_of_them_are_both_said() -> None:
    both = ["file", "human"]
    assert as_each_did(both) == "people did and the suite says"
    assert as_each_did(["human", "simulated"]) == "people and the simulated labelers did"
    assert as_they_did(both).startswith("as the labelers did, or where none is named")
    assert judged_by(both) == "the suite's file, which names nobody, human"
    assert judge_of_card(both) == "the labelers of the pairs, and the suite's file, which names nobody"
    assert judge_of_card([]) == judge_of_card(["human"]) == "the labelers of the pairs"


def test_a_small_p_is_said_to_be_small_and_divided_votes_excuse_a_version_that_is_less_sure() -> None:
    sure = [pair(i, 9.0 if i % 2 else -9.0) for i in range(80)]
    html = page_of(sure)
    assert "p below 0.001" in html and "p = 0.000" not in html and "Some votes were divided" not in html
    fair = [pair(i, 1.0 if i % 4 else -1.0) for i in range(80)]
    assert "(Kolmogorov-Smirnov): p = 0." in page_of(fair)
    assert "counts majorities" in page_of([*fair, pair(90, 1.0, target=2 / 3)])
    assert "counts majorities" not in page_of([*fair, pair(90, 1.0, target=0.5)]), "a tie isn't in the plot"


@pytest.mark.parametrize(
    ("split", "n_seen", "said"),
    [
        ("test", 0, ""),
        ("test", None, ""),
        (None, None, ""),
        ("test", 3, "Caution: 3 of these opening turns were in its training, so these figures are too good."),
        ("train", None, "which is not held out; whether these opening turns were in its training can't be told."),
        ("not held out", 0, "a suite that is not held out; of these opening turns none was in its training."),
        (
            "not held out",
            7,
            "not held out; 7 of these opening turns were in its training, so these figures are too good.",
        ),
    ],
)
def test_a_caution_says_what_is_known_of_a_versions_training(split: str | None, n_seen: int | None, said: str) -> None:
    assert caution_of(split, n_seen).endswith(said) and bool(caution_of(split, n_seen)) is bool(said)


def test_cautions_name_the_versions_that_learnt_from_these_pairs() -> None:
    made = content([pair(i, 1.0 if i % 3 else -1.0) for i in range(6)])
    assert list(cautions(made)) == []
    made["versions"]["hh@2"] = {**made["versions"]["hh@1"], "seen_openings": 4, "trained_on": "s@1"}
    (said,) = cautions(made)
    assert said.startswith("Caution: 4 of these opening turns were in the training of hh@2 (snapshot s@1)")
    made["snapshot"]["split"] = "not held out"
    assert next(cautions(made)).startswith("Caution: s@1 is not held out")
