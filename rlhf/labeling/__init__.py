"""Labeling: one pair at a time, to one labeler, until an answer is kept.

Takes: a labeler's name. Gives: a task (a pair under a lease, sides drawn by chance), a judgement's id, progress.
Writes: leases; judgements through `rlhf.feedback` alone, the door that files use too.
Never: shows where a pair comes from or which reply is `a`; lets an answer land on another pair than the one shown.

An answer is acknowledged when its transaction has committed: with SQLite's synchronous=FULL (the default) it survives a
power cut.
"""

from rlhf.labeling.answers import ANSWERS, Answer, answer, keep, undo
from rlhf.labeling.counts import LabelerCount, Progress, by_labeler, progress
from rlhf.labeling.leases import Task
from rlhf.labeling.quality import LabelerQuality, Quality, quality
from rlhf.labeling.queue import next_task

__all__ = [
    "ANSWERS",
    "Answer",
    "LabelerCount",
    "LabelerQuality",
    "Progress",
    "Quality",
    "Task",
    "answer",
    "by_labeler",
    "keep",
    "next_task",
    "progress",
    "quality",
    "undo",
]
