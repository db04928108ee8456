"""Training: what every training of ours shares, whatever it trains.

Takes: a run's name, settings and identity; a Trainer's callbacks. Gives: a run started or found again and held by one
process, steps of a fixed number of items in seeded order, checkpoints that are whole or not there, a progress bar, a
metrics file, a way to stop without loss. Writes: the run's folder and its row. Never: knows what is trained, publishes.
"""

from rlhf.training.run_folder import WAIT, Plan, Run, Trained, kept_dtype, told_to_all, under_way

__all__ = ["WAIT", "Plan", "Run", "Trained", "kept_dtype", "told_to_all", "under_way"]
