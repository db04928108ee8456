"""Suites: frozen prompts and pairs that versions are measured on, with strata and tags, and a mark whether they are held out.

Takes: files (JSONL, RewardBench's and RM-Bench's shapes), a snapshot's side, or templates with slots. Gives: checked `Suite`s,
read as rows; which rows a snapshot's train side knows too. Writes: Parquet shards and `manifest.json` under
`artifacts/suites/<name>/<number>/`, a row in `suites`, an audit entry; at an erasure, shards without the words. Never: puts a row
into the store's pairs, where it would be labeled and trained on; changes what was frozen; imports torch.
"""

from rlhf.suites.counterfactual import Generated, generate
from rlhf.suites.freezing import cut
from rlhf.suites.importing import FORMATS, Imported, import_files
from rlhf.suites.names import SuiteEntry, list_suites
from rlhf.suites.opening import Suite, open_suite
from rlhf.suites.overlap import Seen, TrainSide, seen_in, train_side, train_sides
from rlhf.suites.rows import SuiteRow

__all__ = [
    "FORMATS",
    "Generated",
    "Imported",
    "Seen",
    "Suite",
    "SuiteEntry",
    "SuiteRow",
    "TrainSide",
    "cut",
    "generate",
    "import_files",
    "list_suites",
    "open_suite",
    "seen_in",
    "train_side",
    "train_sides",
]
