"""Which stored report a gate reads, and what it says of a version. Rows and `report.json` alone: no figure is computed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, select

from rlhf.errors import BadInput, BadUsage, NotFound
from rlhf.records import VersionRef
from rlhf.registry import gate_figures, gate_judges
from rlhf.registry.gate_figures import Figure
from rlhf.registry.gate_rules import FAIRNESS, GateRules
from rlhf.registry.versions import ref_of
from rlhf.store import Workspace
from rlhf.store.tables import alias_moves, reports, versions

_JSON_FILE = "report.json"
_TEST = "test"
_TEMPLATES = ["template"]  # a report's labelers, where its verdicts are those of whoever wrote a template file
_HEX_SHOWN = 12
_SUITE = "suite:"
_OTHER_END = {"low": "high", "high": "low"}
_MIN_HEX = 6


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
    kind: str
    title: str
    content: Mapping[str, Any]
    name: str
    other: str | None

    @property
    def other_digest(self) -> str | None:
        return None if self.other is None else self.content["versions"][self.other]["digest"]

    def figure(self, way: str, *, relative: bool = False) -> Figure:
        """A figure of the version. relative: minus the other's; without a value and without trouble where there is no other."""
        own = gate_figures.find(self._of(self.name), way)
        if not relative:
            return self._worded(own, self.name, way)
        if self.other is None:
            return replace(own, value=None, trouble=None, low=None, high=None, level=None, method=None)
        name, end = gate_figures.stem(way)
        if end:
            return self._paired(own, name, end)
        theirs = gate_figures.find(self._of(self.other), way)
        if own.value is None or theirs.value is None:
            mine = self._worded(own, self.name, way)
            return mine if mine.trouble else self._worded(theirs, self.other, way)
        return replace(
            own, value=own.value - theirs.value, low=None, high=None, level=None, method="difference of the two"
        )

    def _of(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.content["versions"][name]["figures"]
        return found

    def _worded(self, figure: Figure, name: str, way: str) -> Figure:
        if figure.trouble is None:
            return figure
        known = f"; {gate_figures.near(self._of(name), way)}" if figure.trouble.startswith("has no figure") else ""
        return replace(figure, value=None, trouble=f"{figure.trouble} of {name}{known}")

    def _paired(self, own: Figure, name: str, end: str) -> Figure:
        """An end of the report's paired difference, this version minus the other, whichever way round it stands there."""
        for entry in self.content.get("differences") or ():
            measure = entry.get(name)
            if {entry.get("a"), entry.get("b")} != {self.name, self.other} or not isinstance(measure, Mapping):
                continue
            is_ours = entry["a"] == self.name
            low, high = (
                measure.get(one) if is_ours else _turned(measure.get(_OTHER_END[one])) for one in ("low", "high")
            )
            value = low if end == "low" else high
            if gate_figures.is_number(value):
                n, level, method = measure.get("n", own.n), measure.get("level"), measure.get("method")
                return Figure(float(value), None, n, own.items, low, high, level, method)
        trouble = f"has no interval of the difference in {name} between {self.name} and {self.other}"
        return replace(own, value=None, trouble=trouble)


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
) -> tuple[FoundReport | None, str]:
    """The newest report of the kind that measures the version against the one wanted, its bytes checked; and which newer one was
    passed over and why, '' = none."""
    passed_over = ""
    query = select(reports).where(
        reports.c.kind == rules.report, reports.c.figures.contains(json.dumps(str(ref)), autoescape=True)
    )
    judge = gate_judges.digest_of_judge(connection, rules.judge)
    for row in connection.execute(query.order_by(reports.c.created_at.desc(), reports.c.digest)):
        found = _fitting(workspace, connection, row, rules, ref, wanted, judge)
        if found is not None and (why := _on_templates(found, rules)):
            passed_over = passed_over or f"{why}, and was passed over"
        elif found is not None:
            return found, passed_over
    return None, passed_over


def named(
    workspace: Workspace, connection: Connection, text: str, rules: GateRules, ref: VersionRef, wanted: Opponent
) -> FoundReport:
    """The report whose digest begins with `text`. Raises BadUsage, NotFound, and BadInput where the gate wouldn't read it."""
    digits = text.removeprefix("sha256:").lower()
    if len(digits) < _MIN_HEX or not set(digits) <= set("0123456789abcdef"):
        raise BadUsage(
            f"'{text}' is no report: wanted {_MIN_HEX} or more hex digits of its digest", fix="see: rlhf report list"
        )
    rows = connection.execute(select(reports).where(reports.c.digest.startswith(digits)).limit(2)).all()
    if len(rows) != 1:
        raise NotFound(f"there {'are several reports' if rows else 'is no report'} {text}", fix="see: rlhf report list")
    judge = gate_judges.digest_of_judge(connection, rules.judge)
    found = (
        _fitting(workspace, connection, rows[0], rules, ref, wanted, judge) if rows[0].kind == rules.report else None
    )
    if found is None:
        missing, fix = said_missing(rules, ref, wanted)
        raise BadInput(
            f"report {text} ({rows[0].kind}: {rows[0].title:.120}) isn't what the gate reads: {missing} in it", fix=fix
        )
    if why := _on_templates(found, rules):
        raise BadInput(f"the gate doesn't read it: {why}", fix=said_missing(rules, ref, wanted)[1])
    return found


def _fitting(
    workspace: Workspace,
    connection: Connection,
    row: Row[Any],
    rules: GateRules,
    ref: VersionRef,
    wanted: Opponent,
    judge: str | None,
) -> FoundReport | None:
    """The report with its bytes checked; None where it isn't what the rules want to read."""
    content = json.loads(workspace.artifacts.read_file(connection, f"{row.path}/{_JSON_FILE}"))
    names = {version["digest"]: name for name, version in content["versions"].items()}
    if ref.digest not in names or not (wanted.digest is None or wanted.digest in names):
        return None
    fits = _is_on_evaluated(content, rules) if rules.report == "evaluation" else _is_on_compared(content, rules, judge)
    if not fits:
        return None
    other = None if wanted.digest is None else names[wanted.digest]
    return FoundReport(row.digest, row.kind, row.title, content, names[ref.digest], other)


def _on_templates(report: FoundReport, rules: GateRules) -> str:
    """Why the report counts for none of the rules: nobody judged its pairs, and whoever wrote templates can write trivial ones. ''
    where it counts."""
    if rules.is_of_fairness or report.kind != "evaluation" or report.content.get("labelers") != _TEMPLATES:
        return ""
    return (
        f"report {report.digest[:_HEX_SHOWN]} on {report.content['snapshot']['name']} has the verdicts of whoever wrote its "
        f"templates, which count for {FAIRNESS}* alone"
    )


def said_missing(rules: GateRules, ref: VersionRef, wanted: Opponent) -> tuple[str, str]:
    """That no report fits, in words, and the command that makes one."""
    on = f" on the test side of {rules.snapshot}" if rules.snapshot else ""
    if rules.report == "evaluation":
        words = f"no evaluation report of {ref}{wanted.words}{on or ' on the test side of a snapshot'}"
        return words, f"make one: rlhf evaluate {ref}{wanted.spelled}{_data_option(rules.snapshot or 'S')}"
    by = f", judged by {rules.judge}" if rules.judge else ""
    words = f"no comparison report of {ref}{wanted.words}{on}{by}"
    held = _data_option(rules.snapshot) if rules.snapshot else ""
    return words, f"make one: rlhf compare {ref}{wanted.spelled or ' B'}{held} --judge {rules.judge or 'JUDGE'}"


def _data_option(name: str) -> str:
    """A data set as `evaluate` and `compare` take it."""
    is_suite = name.startswith(_SUITE)
    return f" --suite {name.removeprefix(_SUITE)}" if is_suite else f" --snapshot {name}"


def unknown_figures(connection: Connection, rules: GateRules) -> tuple[list[str], list[str]]:
    """Figures of the rules that no stored report of that kind has, and the ways to those that they have; none are unknown while
    there is no report (an interval's end that was once None counts)."""
    texts = connection.execute(select(reports.c.figures).where(reports.c.kind == rules.report)).scalars()
    every = [figures for text in texts for figures in json.loads(text).values()]
    known = sorted({name for figures in every for name in gate_figures.ways(figures)})
    if not known:
        return [], []
    wanted = dict.fromkeys(rule.figure for rule in rules.rules)
    return [one for one in wanted if all(_lacks(figures, one) for figures in every)], known


def _lacks(figures: Mapping[str, Any], way: str) -> bool:
    trouble = gate_figures.find(figures, way).trouble
    return trouble is not None and trouble.startswith("has")


def _is_on_evaluated(content: Mapping[str, Any], rules: GateRules) -> bool:
    """Held-out pairs only: a figure on what a version was trained on says nothing."""
    on = content["snapshot"]
    return on["split"] == _TEST and rules.snapshot in (None, on["name"])


def _is_on_compared(content: Mapping[str, Any], rules: GateRules, judge: str | None) -> bool:
    """judge: digest of the reward that the rules name, where they name one."""
    is_on = rules.snapshot in (None, content["prompts"]["snapshot"])
    return is_on and gate_judges.judged_by(content["judge"], rules.judge, judge)


def _turned(value: Any) -> float | None:
    return -value if gate_figures.is_number(value) else None
