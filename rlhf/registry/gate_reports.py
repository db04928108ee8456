"""Which stored report a gate reads, and what it says of a version. Rows and `report.json` alone: no figure is computed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from rlhf.records import VersionRef
from rlhf.registry import gate_judges
from rlhf.registry.gate_rules import GateRules
from rlhf.registry.versions import ref_of
from rlhf.store import Workspace
from rlhf.store.tables import alias_moves, reports, versions

_JSON_FILE = "report.json"
_TEST = "test"


@dataclass(frozen=True, slots=True)
class Opponent:
    """Whom a report must hold the version against; digest None = anybody, or nobody."""

    digest: str | None
    words: str
    spelled: str


@dataclass(frozen=True, slots=True)
class FoundReport:
    """A report that measures the version: its digest, its content, the version's name in it and the other's."""

    digest: str
    content: Mapping[str, Any]
    name: str
    other: str | None

    @property
    def other_digest(self) -> str | None:
        return None if self.other is None else self.content["versions"][self.other]["digest"]

    def value(self, figure: str, *, relative: bool = False) -> tuple[float | None, str | None]:
        """A figure of the version, or the words why there is none. relative: minus the other's, None where there is no
        other."""
        if not relative:
            return self._own(self.name, figure)
        if self.other is None:
            return None, None
        stem, end = _stem(figure)
        if end:
            return self._paired(stem, end)
        (mine, trouble), (other, their_trouble) = (self._own(name, figure) for name in (self.name, self.other))
        if mine is None or other is None:
            return None, trouble or their_trouble
        return mine - other, None

    def n_of(self, figure: str) -> int | None:
        """How many items the figure is of: its own number where the report gives one, else the version's n. Of a win rate the
        pairs that the judge told apart or called a tie: neither coins nor equal texts, which nobody has judged."""
        figures = self.content["versions"][self.name]["figures"]
        measure = (figures.get("measures") or {}).get(_stem(figure)[0]) or {}
        n = measure.get("n_judged", measure.get("n", figures.get("n")))
        return n if _is_number(n) else None

    def items_of(self, figure: str) -> str:
        """What `n_of` counts, in a word."""
        figures = self.content["versions"][self.name]["figures"]
        measure = (figures.get("measures") or {}).get(_stem(figure)[0]) or {}
        return "judged replies" if "n_judged" in measure else "items"

    def _own(self, name: str, figure: str) -> tuple[float | None, str | None]:
        figures = self.content["versions"][name]["figures"]
        if _is_number(figures.get(figure)):
            return float(figures[figure]), None
        if figure in figures and figures[figure] is None:
            return None, f"gives no {figure} of {name}"
        known = ", ".join(sorted(key for key, value in figures.items() if _is_number(value)))
        return None, f"has no figure '{figure}' of {name}; it has {known}"

    def _paired(self, stem: str, end: str) -> tuple[float | None, str | None]:
        """An end of the report's paired difference, this version minus the other, whichever way round it stands there."""
        for entry in self.content.get("differences") or ():
            measure = entry.get(stem)
            if {entry.get("a"), entry.get("b")} != {self.name, self.other} or not isinstance(measure, Mapping):
                continue
            is_ours = entry["a"] == self.name
            value = measure.get(end if is_ours else {"low": "high", "high": "low"}[end])
            if isinstance(value, int | float):
                return (value if is_ours else -value), None
        return None, f"has no interval of the difference in {stem} between {self.name} and {self.other}"


def opponent(connection: Connection, alias: str, rules: GateRules, ref: VersionRef) -> Opponent:
    """Whom the gate wants the version held against now."""
    if rules.against == "any":
        return Opponent(None, "", "")
    base = connection.execute(select(versions.c.base_digest).where(versions.c.digest == ref.digest)).scalar_one()
    manifest = connection.execute(select(versions.c.manifest).where(versions.c.digest == ref.digest)).scalar_one()
    base_name = f"base:{json.loads(manifest)['base']['name']}"
    if rules.against == "base":
        return Opponent(base, f" against its base ({base_name})", f" {base_name}")
    query = select(alias_moves.c.to_digest).where(alias_moves.c.alias == alias).order_by(alias_moves.c.seq.desc())
    in_force = connection.execute(query.limit(1)).scalar()
    if in_force is not None:
        champion = ref_of(connection.execute(select(versions).where(versions.c.digest == in_force)).one())
        return Opponent(in_force, f" against {champion}, which {alias} points at", f" {champion}")
    if rules.report == "evaluation":  # a base has no scores
        return Opponent(None, "", "")
    return Opponent(base, f" against its base ({base_name}), as {alias} points at nothing yet", f" {base_name}")


def newest(
    workspace: Workspace, connection: Connection, rules: GateRules, ref: VersionRef, wanted: Opponent
) -> FoundReport | None:
    """The newest report of the kind that measures the version against the one wanted; its bytes are checked."""
    query = select(reports).where(
        reports.c.kind == rules.report, reports.c.figures.contains(json.dumps(str(ref)), autoescape=True)
    )
    judge = gate_judges.digest_of_judge(connection, rules.judge)
    for row in connection.execute(query.order_by(reports.c.created_at.desc(), reports.c.digest)):
        content = json.loads(workspace.artifacts.read_file(connection, f"{row.path}/{_JSON_FILE}"))
        names = {version["digest"]: name for name, version in content["versions"].items()}
        if ref.digest not in names or not (wanted.digest is None or wanted.digest in names):
            continue
        fits = (
            _is_on_evaluated(content, rules) if rules.report == "evaluation" else _is_on_compared(content, rules, judge)
        )
        if not fits:
            continue
        other = None if wanted.digest is None else names[wanted.digest]
        return FoundReport(row.digest, content, names[ref.digest], other)
    return None


def said_missing(rules: GateRules, ref: VersionRef, wanted: Opponent) -> tuple[str, str]:
    """That no report fits, in words, and the command that makes one."""
    on = f" on the test side of {rules.snapshot}" if rules.snapshot else ""
    if rules.report == "evaluation":
        words = f"no evaluation report of {ref}{wanted.words}{on or ' on the test side of a snapshot'}"
        return words, f"make one: rlhf evaluate {ref}{wanted.spelled} --snapshot {rules.snapshot or 'S'}"
    by = f", judged by {rules.judge}" if rules.judge else ""
    words = f"no comparison report of {ref}{wanted.words}{on}{by}"
    held = f" --snapshot {rules.snapshot}" if rules.snapshot else ""
    return words, f"make one: rlhf compare {ref}{wanted.spelled or ' B'}{held} --judge {rules.judge or 'JUDGE'}"


def known_figures(connection: Connection, kind: str) -> set[str]:
    """Names of the numbers in the stored reports of a kind (an interval's end that was once None counts)."""
    return {
        figure
        for text in connection.execute(select(reports.c.figures).where(reports.c.kind == kind)).scalars()
        for figures in json.loads(text).values()
        for figure, value in figures.items()
        if value is None or _is_number(value)
    }


def _is_on_evaluated(content: Mapping[str, Any], rules: GateRules) -> bool:
    """Held-out pairs only: a figure on what a version was trained on says nothing."""
    on = content["snapshot"]
    return on["split"] == _TEST and rules.snapshot in (None, on["name"])


def _is_on_compared(content: Mapping[str, Any], rules: GateRules, judge: str | None) -> bool:
    """judge: digest of the reward that the rules name, where they name one."""
    is_on = rules.snapshot in (None, content["prompts"]["snapshot"])
    return is_on and gate_judges.judged_by(content["judge"], rules.judge, judge)


def _stem(figure: str) -> tuple[str, str]:
    """`accuracy_low` → (`accuracy`, `low`); `accuracy` → (`accuracy`, ``)."""
    stem, _, end = figure.rpartition("_")
    return (stem, end) if end in ("low", "high") else (figure, "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
