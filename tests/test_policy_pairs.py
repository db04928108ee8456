"""What the ranked replies of a run say beside their pairs."""

from __future__ import annotations

import pytest

from rlhf.engine.generation import Sampled
from rlhf.policy.pairs import Ranked, length_correlation
from rlhf.policy.prompts import Prompt, RenderedPrompt
from rlhf.policy.scored import Drawn, Scored


def ranked(name: str, *replies: tuple[float | None, int]) -> Ranked:
    """One prompt with (points, tokens) of each reply."""
    return Ranked(
        RenderedPrompt(Prompt(name, ()), (), ()),
        tuple(Sampled((), False) for _ in replies),
        tuple(Drawn((), "text", n_tokens, False) for _, n_tokens in replies),
        tuple(Scored(points, (points,)) for points, _ in replies),
    )


def test_points_are_held_against_length_within_prompts_alone() -> None:
    """Prompt q draws longer replies and more points; within each prompt the longer one has fewer."""
    found = length_correlation([ranked("p", (2.0, 5), (1.0, 6)), ranked("q", (9.0, 50), (8.0, 60), (None, 70))])
    assert found == (pytest.approx(-1.0), 2)


def test_replies_without_points_or_of_one_length_give_no_correlation() -> None:
    assert length_correlation([ranked("p", (None, 5), (None, 6))]) is None
    assert length_correlation([ranked("p", (1.0, 5), (2.0, 5))]) is None


def test_one_prompt_tells_nothing_of_length() -> None:
    assert length_correlation([ranked("p", (2.0, 5), (1.0, 6))]) is None
    alike = ranked("q", (3.0, 7), (4.0, 7))
    assert length_correlation([ranked("p", (2.0, 5), (1.0, 6)), alike]) is None, "q's replies are of one length"
