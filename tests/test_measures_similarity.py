from __future__ import annotations

import itertools
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.measures.similarity import jaccard, near_duplicates, shingles

WORDS = [f"w{i}" for i in range(400)]


def _texts(n: int, seed: int) -> list[str]:
    """Texts of which about a third are lightly edited copies of an earlier one."""
    draw = random.Random(seed)
    texts: list[list[str]] = []
    for _ in range(n):
        if texts and draw.random() < 0.35:
            words = list(draw.choice(texts))
            for _ in range(draw.randint(0, 3)):
                words[draw.randrange(len(words))] = draw.choice(WORDS)
        else:
            words = draw.choices(WORDS, k=draw.randint(20, 60))
        texts.append(words)
    return [" ".join(words) for words in texts]


def test_banding_finds_what_comparing_all_pairs_finds() -> None:
    texts = _texts(150, 1)
    sets = list(shingles(texts, 3))
    every = {(i, j) for i, j in itertools.combinations(range(len(texts)), 2) if jaccard(sets[i], sets[j]) >= 0.8}
    copies = {(i, j) for i, j in every if jaccard(sets[i], sets[j]) == 1.0}
    found = near_duplicates(texts, 0.8)
    assert len(every) > 30
    assert {(i, j) for i, j, _ in found} <= every
    represented = {i for i, j in copies} | {j for i, j in copies}
    missed = {(i, j) for i, j in every - {(i, j) for i, j, _ in found} if not {i, j} & represented}
    assert not missed
    assert all(s == pytest.approx(jaccard(sets[i], sets[j])) for i, j, s in found)


def test_copies_are_paired_with_the_first_of_them() -> None:
    assert near_duplicates(["One  two three four.", "else", "one two THREE four .", "one two three four."]) == [
        (0, 2, 1.0),
        (0, 3, 1.0),
    ]


def test_short_and_empty_texts_are_handled() -> None:
    assert near_duplicates(["", " ", "hi", "Hi", "no"]) == [(2, 3, 1.0)]
    assert near_duplicates([]) == []


@settings(max_examples=40)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=12), st.sampled_from([0.3, 0.8, 1.0]))
def test_any_text_is_taken_and_every_pair_is_true(texts: list[str], threshold: float) -> None:
    sets = list(shingles(texts, 3))
    for i, j, similarity in near_duplicates(texts, threshold):
        assert i < j and similarity >= threshold
        assert similarity == pytest.approx(jaccard(sets[i], sets[j]))


def test_a_thousand_texts_of_one_template_stay_linear() -> None:
    texts = [f"please write a poem about {' '.join(WORDS[:30])} and number {i}" for i in range(1000)]
    before = time.process_time()
    found = near_duplicates(texts)
    assert time.process_time() - before < 10
    assert len({i for i, _, _ in found}) > 990


def test_a_threshold_outside_the_unit_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="threshold"):
        near_duplicates(["a"], 0.0)
