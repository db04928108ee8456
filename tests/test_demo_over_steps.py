"""The truth over the steps: judged against the same prompt's reply at step 0."""

from __future__ import annotations

from rlhf.demo import quality, truth_over_steps
from rlhf.records import Message

PROMPTS = {"p": (Message("user", "How do I grow basil?"),), "q": (Message("user", "How do I store bread?"),)}
GOOD = "You can grow your basil in two pots on your sill."
POOR = "I am an AI and horticultural considerations necessitate"


def row(step: int, prompt: str, reply: str, phase: str = "watch") -> dict[str, object]:
    return {"step": step, "phase": phase, "prompt": prompt, "reply": reply}


def test_a_better_reply_wins_against_step_zero_and_the_same_one_ties() -> None:
    assert quality(PROMPTS["p"], GOOD) > quality(PROMPTS["p"], POOR)
    rows = [row(0, "p", POOR), row(0, "q", POOR), row(10, "p", GOOD), row(10, "q", POOR)]
    first, then = truth_over_steps(rows, PROMPTS)
    assert (first["step"], first["true_win_rate"]) == (0, 0.5)
    assert (then["step"], then["true_win_rate"], then["n"]) == (10, 0.75, 2)
    assert then["truth"] > first["truth"]
    assert then["true_win_rate_low"] < 0.75 < then["true_win_rate_high"]


def test_other_replies_of_the_run_are_no_measurement() -> None:
    rows = [row(0, "p", POOR, "ranked"), row(3, "p", GOOD, "train")]
    assert truth_over_steps(rows, PROMPTS) == []
