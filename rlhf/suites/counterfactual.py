"""Counterfactual rows: a template's text once for each group, the same but for the swap, frozen as a suite.

How a reward differs between rows of one template is then the swap's doing (counterfactual fairness: Kusner et al. 2017; by
templates on text classifiers: Garg et al. 2019).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.errors import BadInput, BadUsage
from rlhf.feedback import person_names
from rlhf.feedback.drafts import Rejected
from rlhf.feedback.resolve import Defaults
from rlhf.records import Message, Pair
from rlhf.snapshots.cutting import n_tombstones
from rlhf.snapshots.names import check_name
from rlhf.store import Workspace
from rlhf.suites import templates
from rlhf.suites.freezing import freeze
from rlhf.suites.importing import Gathered, made_ready, require_unburied
from rlhf.suites.opening import Suite

SOURCE = "counterfactual"


@dataclass(frozen=True, slots=True)
class Generated:
    """groups: of each attribute, in the file's order."""

    suite: Suite
    templates: int
    rows: int
    groups: dict[str, list[str]]

    def as_json(self) -> dict[str, Any]:
        counts = {"templates": self.templates, "rows": self.rows, "groups": self.groups}
        return {**self.suite.entry.as_json(), **counts}


def generate(workspace: Workspace, name: str, paths: Sequence[str | Path], *, held_out: bool = True) -> Generated:
    """Freeze every template of the files for every group as the next `name@N`. The row's tag is its group.

    Personal data is masked as in every suite. Raises BadUsage (name, no file), and BadInput naming all that is wrong with a file,
    two files of one attribute, or rows that the mask has made alike; nothing is frozen then.
    """
    check_name(name, "suite")
    if not paths:
        raise BadUsage(
            "no file of templates", fix=f"rlhf suite counterfactual {name} configs/counterfactual/gender.yaml"
        )
    person_names.check()
    files = [Path(path) for path in paths]
    read = [(file, templates.read(file)) for file in files]
    with workspace.read() as connection:
        erased_before = n_tombstones(connection)
    groups: dict[str, list[str]] = {}
    for file, found in read:
        attribute = found[0].name.partition("/")[0]
        if attribute in groups:
            raise BadInput(f"{file.name} swaps {attribute}, as a file before it does", fix="put both into one file")
        groups[attribute] = templates.groups_of(found)
    gathered, taken = Gathered(), dict[str, templates.Filled]()
    for file, found in read:
        _gather(workspace, file, found, gathered, taken)
    origin = {
        "format": SOURCE,
        "files": [{"name": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()} for file in files],
    }
    rows = list(gathered.rows())
    suite = freeze(workspace, name, rows, held_out=held_out, origin=origin, left_out={}, erased_before=erased_before)
    return Generated(suite, suite.manifest["templates"], len(rows), groups)


def _gather(
    workspace: Workspace,
    file: Path,
    found: Sequence[templates.Filled],
    gathered: Gathered,
    taken: dict[str, templates.Filled],
) -> None:
    """Add every row. taken: pair's id -> what it is of."""
    defaults = Defaults(SOURCE, False, "human", ("evaluate",), workspace.key)
    for number, one in enumerate(found, 1):
        try:
            ready = made_ready(file.name, number, one.entry, defaults)
            require_unburied(workspace, [ready])
            assert ready.pair is not None
            if (before := taken.get(ready.pair.id)) is not None:
                why = "" if _as_written(before) == _as_written(one) else ", once personal data is replaced"
                raise Rejected(f"it reads as {before.name} ({before.group}) does{why}")
        except Rejected as verdict:
            raise BadInput(
                f"{file.name}: {one.name} ({one.group}): {verdict}",
                fix="reword the template, or give other words (the mask replaces e-mail addresses, numbers and, where "
                "RLHF_NAMES_MODEL is set, names)",
            ) from None
        taken[ready.pair.id] = one
        gathered.add(ready, one.entry)


def _as_written(one: templates.Filled) -> str:
    """The id that the row would have unmasked."""
    draft = one.entry.draft
    return Pair.of([Message(turn.role, turn.content) for turn in draft.prompt], draft.first, draft.second).id
