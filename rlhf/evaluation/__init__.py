"""Evaluation: versions on held-out pairs become a report that somebody can sign.

Takes: version names, a snapshot and a split. Gives: figures with sample sizes, intervals, method and assumptions, as
JSON and as one self-contained page. Writes: `reports/` under the artifact root, the table of reports.
Never: promotes, fits anything on the pairs that it measures, leaves out a pair in silence.
"""

from rlhf.evaluation.figures import difference, figures
from rlhf.evaluation.held_out import evaluate
from rlhf.evaluation.reports import Report, ReportRow, diff, list_reports, open_report
from rlhf.evaluation.scored import ScoredPair

__all__ = [
    "Report",
    "ReportRow",
    "ScoredPair",
    "diff",
    "difference",
    "evaluate",
    "figures",
    "list_reports",
    "open_report",
]
