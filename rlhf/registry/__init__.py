"""Registry: finished runs become immutable versions behind movable aliases.

Takes: a PEFT folder with its draft and evidence; a version's or an alias's name. Gives: version references, folders
checked against their digests, lineage, differences, stock PEFT folders. Writes: `versions/` under the artifact root,
the tables of versions, parents, alias moves, gates, sign-offs and decisions. Never: loads a model, imports torch, unpickles a file,
answers an unknown name with the base.
"""

from rlhf.registry import aliases, decisions, gates
from rlhf.registry.ancestry import Lineage, Relative, SnapshotOrigin, descendants, lineage
from rlhf.registry.decision_log import Decision
from rlhf.registry.difference import Difference, diff
from rlhf.registry.gate_classes import read_classes, read_rules
from rlhf.registry.gate_rules import GateRules, Rule
from rlhf.registry.gate_trials import Trial, Trials
from rlhf.registry.gates import Gate, Verdict
from rlhf.registry.portability import ImportedFolder, export_folder, find_published, read_folder
from rlhf.registry.publishing import Evidence, VersionDraft, check_evidence, check_name, publish
from rlhf.registry.signing import SignOff, sign
from rlhf.registry.verification import Verification, verify
from rlhf.registry.versions import OpenVersion, VersionRow, list_versions, open_version, resolve, retire, show

__all__ = [
    "Decision",
    "Difference",
    "Evidence",
    "Gate",
    "GateRules",
    "ImportedFolder",
    "Lineage",
    "OpenVersion",
    "Relative",
    "Rule",
    "SignOff",
    "SnapshotOrigin",
    "Trial",
    "Trials",
    "Verdict",
    "Verification",
    "VersionDraft",
    "VersionRow",
    "aliases",
    "check_evidence",
    "check_name",
    "decisions",
    "descendants",
    "diff",
    "export_folder",
    "find_published",
    "gates",
    "lineage",
    "list_versions",
    "open_version",
    "publish",
    "read_classes",
    "read_folder",
    "read_rules",
    "resolve",
    "retire",
    "show",
    "sign",
    "verify",
]
