"""Repetition and distinctness of replies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.measures.text import distinct, repetition, words


def test_a_word_is_a_run_of_letters_and_marks_stand_alone() -> None:
    assert words("Don't STOP, 3 times!") == ["don", "'", "t", "stop", ",", "3", "times", "!"]
    assert words("漢字かな and so") == ["漢", "字", "か", "な", "and", "so"]


def test_a_loop_repeats_and_a_sentence_does_not() -> None:
    assert repetition("one two three four five six seven eight") == 0.0
    assert repetition("la " * 100) == pytest.approx(96 / 97)
    assert repetition("a b c d e a b c d e") == pytest.approx(2 / 7)  # 7 four-grams; a b c d and b c d e come twice
    assert repetition("too short now") == repetition("") == 0.0


def test_distinct_counts_over_all_replies_together() -> None:
    assert distinct(["a b c", "d e f"]) == 1.0
    assert distinct(["a b c", "a b c", "a b c", "a b c"]) == 0.25
    assert distinct(["word", ""]) == 0.0


def test_an_n_gram_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        repetition("a b", 0)


@given(st.text(), st.integers(1, 5))
def test_shares_stay_shares(text: str, n: int) -> None:
    assert 0.0 <= repetition(text, n) < 1.0
    assert 0.0 <= distinct([text, text], n) <= 1.0


@given(st.text(alphabet="ab \n", max_size=60))
def test_saying_it_twice_repeats_at_least_as_much(text: str) -> None:
    assert repetition(f"{text} {text}") >= repetition(text)
