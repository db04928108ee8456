"""Feedback: any file, click or call becomes accepted pairs and judgements, through one door.

Takes: files (HH, TRL, votes, PandaLM, ratings, events; plain or gzip), hub ids, single judgements. Gives: receipts
that account for every row, pairs with their judgements in force, files for others. Writes: pairs, pair_sources,
judgements, comments, imports, rejected_rows. Never: edits what is there, drops a row in silence, stores text before
personal data is replaced, brings back what was erased.

Start at `imports.py`: files → rows (`rows.py`) → drafts (`formats/`) → masked records (`resolve.py`) → tables
(`intake.py`).
"""

from rlhf.feedback.exporting import export
from rlhf.feedback.imports import Refused, import_files, receipts
from rlhf.feedback.judging import judge, judge_in
from rlhf.feedback.preference_files import preference_files
from rlhf.feedback.reading import current_judgements, read_pairs
from rlhf.feedback.showing import PairLine, PairPage, list_pairs, show_pair, sources

__all__ = [
    "PairLine",
    "PairPage",
    "Refused",
    "current_judgements",
    "export",
    "import_files",
    "judge",
    "judge_in",
    "list_pairs",
    "preference_files",
    "read_pairs",
    "receipts",
    "show_pair",
    "sources",
]
