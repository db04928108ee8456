"""Rounds: new judgements in, a decision out, and again.

Takes: loop settings (one YAML), a workspace with a base and judged pairs. Gives: the outcome of a round, or how many judgements
are missing. Writes: a run of kind `loop` with `state.json`, snapshots, versions and reports through their rooms, alias moves
that the gate allows, unjudged pairs for the labeling queue, a decision record. Never: moves an alias past its gate, trains
twice, changes the frozen suite, forgets what a killed process had done.
"""

from rlhf.rounds.outcome import Outcome
from rlhf.rounds.round import once, watch
from rlhf.rounds.settings import LoopSettings

__all__ = ["LoopSettings", "Outcome", "once", "watch"]
