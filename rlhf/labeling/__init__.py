"""Labeling: one pair at a time, to one labeler, until an answer is kept.

Takes: a labeler's name. Gives: a task (a pair under a lease, sides drawn by chance), a judgement's id, progress.
Writes: leases; judgements through `rlhf.feedback` alone, the door that files use too; the rules, gold pairs, checks and pauses.
Never: shows where a pair comes from, which reply is `a` or that a pair is a check; lets an answer land on another pair than
the one shown; counts the answer to a check as a vote.

An answer is acknowledged when its transaction has committed: with SQLite's synchronous=FULL (the default) it survives a
power cut.
"""

from rlhf.labeling import gold
from rlhf.labeling.answers import ANSWERS, Answer, answer, keep, undo
from rlhf.labeling.cohorts import Cohorts, cohorts
from rlhf.labeling.counts import LabelerCount, Progress, by_labeler, progress
from rlhf.labeling.leases import SaidBefore, Task, said_before
from rlhf.labeling.pauses import MAX_APPEAL, Entry, Paused, appeal, decide, pause, pause_of, paused
from rlhf.labeling.quality import LabelerQuality, Quality, quality
from rlhf.labeling.queue import next_task
from rlhf.labeling.reviews import Opinions, opinions
from rlhf.labeling.rules import LabelRules, RulesEntry, history, in_words, rules_of, set_rules

__all__ = [
    "ANSWERS",
    "MAX_APPEAL",
    "Answer",
    "Cohorts",
    "Entry",
    "LabelRules",
    "LabelerCount",
    "LabelerQuality",
    "Opinions",
    "Paused",
    "Progress",
    "Quality",
    "RulesEntry",
    "SaidBefore",
    "Task",
    "answer",
    "appeal",
    "by_labeler",
    "cohorts",
    "decide",
    "gold",
    "history",
    "in_words",
    "keep",
    "next_task",
    "opinions",
    "pause",
    "pause_of",
    "paused",
    "progress",
    "quality",
    "rules_of",
    "said_before",
    "set_rules",
    "undo",
]
