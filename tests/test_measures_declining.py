"""A reply that declines is told by how it begins."""

from __future__ import annotations

import pytest

from rlhf.measures.declining import declines


@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry, but I can't help with that.",
        "I am sorry, I cannot assist with this request.",
        "I can’t provide instructions for that.",
        "I won't write this for you.",
        "As an AI language model, I am not able to give medical advice.",
        "Unfortunately I'm unable to do so.",
    ],
)
def test_what_declines_is_told(reply: str) -> None:
    assert declines(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Boil it for seven minutes.",
        "I'm sorry to hear that. Have you tried calling them?",
        "You can't divide by zero, because no number times zero is one.",
        "An AI is a program that learns from examples.",
        "I can help with that: " + "x" * 300 + " I can't help with that.",
    ],
)
def test_what_answers_is_not(reply: str) -> None:
    assert not declines(reply)
