"""Erasure: a labeler, a subject, a pair or what is over its time goes from the whole workspace, and what had learnt is named.

Takes: whom or what to erase, how long a source is kept. Gives: what was erased, and the snapshots, versions and aliases touched.
Writes: nulls in the tables, keyed tombstones, shards, pages and logs without the words, an audit entry that names nobody; queued
trainings where asked. Never: leaves the words for a crash to keep (the same command goes on), changes a digest, touches weights (a
version that has learnt is listed; retiring, retraining and rolling back are people's), reaches copies outside the workspace (it
lists them).
"""

from rlhf.erasure.retention import Limit, expire, expired, limits, set_limit
from rlhf.erasure.retraining import queue_retraining
from rlhf.erasure.steps import Erasure, erase
from rlhf.erasure.touched import Touched

__all__ = [
    "Erasure",
    "Limit",
    "Touched",
    "erase",
    "expire",
    "expired",
    "limits",
    "queue_retraining",
    "set_limit",
]
