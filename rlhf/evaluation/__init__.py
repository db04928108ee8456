"""Evaluation: versions on held-out pairs or prompts become a report that somebody can sign.

Takes: reward versions, a snapshot and a split (`held_out.py`); or two policies, prompts and a judge (`comparison.py`); or a
policy's training, versions or one policy's best of n, a proxy and a judge (`curves.py`); or a bandit's log (`bandit_logs.py`).
Gives: figures with sample sizes, intervals, method and assumptions, as JSON and as one self-contained page.
Writes: `reports/` under the artifact root, the table of reports; what policies wrote, in the cache; pairs for people to
judge, through the feedback door.
Never: promotes, fits anything on the pairs that it measures, leaves out a pair in silence, tells a labeler who wrote what.
"""

from rlhf.evaluation import sequential_words
from rlhf.evaluation.asked_prompts import Where
from rlhf.evaluation.comparison import compare
from rlhf.evaluation.curve_best_of import best_of
from rlhf.evaluation.curves import over_run, over_versions
from rlhf.evaluation.figures import difference, figures
from rlhf.evaluation.held_out import evaluate
from rlhf.evaluation.people_judge import Waiting
from rlhf.evaluation.report_diff import diff
from rlhf.evaluation.reports import Report, ReportRow, list_reports, open_report
from rlhf.evaluation.scored import ScoredPair
from rlhf.evaluation.until_decided import Stopping

__all__ = [
    "Report",
    "ReportRow",
    "ScoredPair",
    "Stopping",
    "Waiting",
    "Where",
    "best_of",
    "compare",
    "diff",
    "difference",
    "evaluate",
    "figures",
    "list_reports",
    "open_report",
    "over_run",
    "over_versions",
    "sequential_words",
]
