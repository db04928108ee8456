"""The demo's known rule: each part does what its line says, and length alone doesn't explain the whole."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.demo import demo_pairs, parts, quality, true_preference
from rlhf.demo.rule import WEIGHTS
from rlhf.measures.ranking import pearson
from rlhf.records import Message

PROMPT = (Message("user", "How do I keep basil plants alive in winter?"),)
BASE = "Basil plants need light in winter. Put the pot by the window and keep the soil damp."


def test_weights_name_every_part_and_sum_to_ten() -> None:
    assert set(asdict(WEIGHTS)) == set(parts(PROMPT, BASE))
    assert sum(asdict(WEIGHTS).values()) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("part", "better", "worse"),
    [
        ("topic", BASE, "Cars need fuel in July. Put the key by the window and keep the seat damp."),
        ("reader", "You should water your basil plants.", "I water my basil plants."),
        ("concrete", "Water basil plants 2 times, such as Monday and Friday.", "Water basil plants now and then."),
        ("plain", "Put it by the sun, and it will be fine.", "Horticultural illumination considerations predominate."),
        ("direct", BASE, "Sure! " + BASE),
        ("direct", BASE, "As an AI language model, " + BASE),
        ("complete", BASE, BASE + " Then turn the"),
    ],
)
def test_each_part_prefers_what_it_describes(part: str, better: str, worse: str) -> None:
    assert parts(PROMPT, better)[part] > parts(PROMPT, worse)[part]


def test_topic_is_read_from_every_user_turn_and_not_from_the_assistants() -> None:
    longer = (*PROMPT, Message("assistant", "Give them compost."), Message("user", "And how do I water them?"))
    assert parts(longer, "Water in the morning.")["topic"] > parts(PROMPT, "Water in the morning.")["topic"]
    assert parts(longer, "Compost.")["topic"] == 0.0


def test_a_late_word_does_not_count_as_topic() -> None:
    early, late = "Basil plants. " + "so " * 60, "so " * 60 + "Basil plants."
    assert parts(PROMPT, early)["topic"] > parts(PROMPT, late)["topic"] == 0.0


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_has_points_between_zero_and_ten(question: str, reply: str) -> None:
    prompt = (Message("user", question),)
    assert all(0.0 <= value <= 1.0 for value in parts(prompt, reply).values())
    assert 0.0 <= quality(prompt, reply) <= 10.0 + 1e-9
    assert true_preference(prompt, reply, reply) == 0.0


def test_saying_the_same_again_gains_little() -> None:
    """Rates, not counts: a reply pasted after itself, twice as long, moves by less than half a point in the mean."""
    moved = [quality(p.prompt, f"{p.reply_a} {p.reply_a}") - quality(p.prompt, p.reply_a) for p in demo_pairs()]
    assert abs(float(np.mean(moved))) < 0.5


def test_length_does_not_explain_the_rule_on_the_shipped_pairs() -> None:
    pairs = demo_pairs()
    difference = [true_preference(p.prompt, p.reply_a, p.reply_b) for p in pairs]
    characters = [len(p.reply_a) - len(p.reply_b) for p in pairs]
    words = [len(p.reply_a.split()) - len(p.reply_b.split()) for p in pairs]
    assert abs(pearson(difference, characters)) < 0.3
    assert abs(pearson(difference, words)) < 0.3


def test_every_part_tells_many_shipped_pairs_apart_and_none_is_the_whole_rule() -> None:
    pairs = demo_pairs()
    whole = [true_preference(p.prompt, p.reply_a, p.reply_b) for p in pairs]
    for name in asdict(WEIGHTS):
        gap = [parts(p.prompt, p.reply_a)[name] - parts(p.prompt, p.reply_b)[name] for p in pairs]
        assert np.mean(np.array(gap) != 0.0) > 0.2, name
        assert 0.05 < pearson(gap, whole) < 0.8, name
