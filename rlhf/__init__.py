"""Human feedback in, better model out, and back.

Rooms, in the order in which data flows and imports point: errors, ids, records, config, measures, store, people, feedback,
labeling, snapshots, registry, engine, reward, evaluation, jobs, web, loop, cli. `rlhf/loop.py` shows them all at work on one page.
"""

__version__ = "0.1.0"
