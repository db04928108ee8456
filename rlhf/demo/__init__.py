"""Demo: preferences that may ship with the project, and the truth behind them.

Takes: a path, or a learnt reward's margins. Gives: votes of simulated labelers over replies sampled from the base model
(SmolLM2-135M-Instruct, Apache-2.0), how close a reward comes to the rule that the labelers follow, and what the rule says of a
policy training step by step.
Writes: the one file that it is asked for.
Never: passes for human feedback (every row says `simulated`), samples or scores with a model, touches the store.
"""

from rlhf.demo.labelers import LABELERS, Labeler, majority, noise_ceiling, true_side
from rlhf.demo.over_steps import truth_over_steps
from rlhf.demo.preferences import DemoFacts, demo_pairs, write_preferences
from rlhf.demo.prompts import prompts
from rlhf.demo.rule import parts, quality, true_preference
from rlhf.demo.truth import KnownPair, known_pair, truth_figures

__all__ = [
    "LABELERS",
    "DemoFacts",
    "KnownPair",
    "Labeler",
    "demo_pairs",
    "known_pair",
    "majority",
    "noise_ceiling",
    "parts",
    "prompts",
    "quality",
    "true_preference",
    "true_side",
    "truth_figures",
    "truth_over_steps",
    "write_preferences",
]
