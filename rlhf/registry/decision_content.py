"""What stands in a decision: which figures of how many, by which methods, assuming what, signed by whom, on whose judgements.

Everything is by digest, number or count: no reply, no prompt, and no person but those who acted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from rlhf.errors import RlhfError
from rlhf.records import VersionRef
from rlhf.registry import gate_figures
from rlhf.registry.ancestry import lineage
from rlhf.registry.gate_checks import Verdict
from rlhf.registry.gate_reports import FoundReport
from rlhf.store import Workspace
from rlhf.store.tables import alias_moves, decisions, reports

_JSON_FILE = "report.json"
_MEASURES = ("evaluation", "comparison")  # kinds of report that a promotion may rest on


def of_promotion(
    workspace: Workspace, alias: str, to: VersionRef, verdict: Verdict, evidence: Mapping[str, Any]
) -> dict[str, Any]:
    """Read before the move's transaction: files may be large. evidence: what the caller names, a report or a round, say."""
    with workspace.read() as connection:
        last = connection.execute(
            select(alias_moves.c.seq, alias_moves.c.to_digest, alias_moves.c.at)
            .where(alias_moves.c.alias == alias)
            .order_by(alias_moves.c.seq.desc())
            .limit(1)
        ).first()
        report = verdict.report or _report_of(workspace, connection, to, evidence)
        changes = _gate_changes(connection, alias, "" if last is None else last.at)
    return {
        "gate": _gate(verdict),
        "gate_changes": changes,
        "report": None if report is None else _report(report),
        "figures": _figures(report, to.digest, None if last is None else last.to_digest),
        "methods": None if report is None else dict(report.content.get("method") or {}),
        "assumptions": [] if report is None else _assumptions(report),
        "signoffs": list(verdict.evidence.get("signoffs", ())),
        "canary": verdict.evidence.get("canary"),
        "data": _data(workspace, to),
        "evidence": dict(evidence),
    }


def of_rollback(connection: Connection, alias: str, returns_to: int) -> dict[str, Any]:
    """Rows alone: the way back waits for no file. returned_to: the decision by which the alias had come there."""
    query = select(decisions.c.number).where(decisions.c.alias == alias, decisions.c.alias_seq == returns_to)
    return {"returned_to": connection.execute(query).scalar(), "gate": None}


def _gate(verdict: Verdict) -> dict[str, Any] | None:
    if verdict.gate is None:
        return None
    gate = verdict.gate
    named = {
        "class": gate.rules.risk_class,
        "digest": gate.digest,
        "seq": gate.seq,
        "set_by": gate.who,
        "set_at": gate.at,
    }
    return {**named, "results": [dict(result) for result in verdict.results]}


def _gate_changes(connection: Connection, alias: str, since: str) -> list[dict[str, Any]]:
    """Changes of the alias's gate since it moved last: asked less of before a promotion, an alias shows it in the promotion."""
    query = select(decisions).where(decisions.c.alias == alias, decisions.c.kind == "gate", decisions.c.at >= since)
    return [
        {
            "decision": row.number,
            "who": row.who,
            "at": row.at,
            "no_more": json.loads(row.content)["gate"]["no_more"],
            "new": json.loads(row.content)["gate"]["new"],
        }
        for row in connection.execute(query.order_by(decisions.c.number))
    ]


def _report_of(
    workspace: Workspace, connection: Connection, to: VersionRef, evidence: Mapping[str, Any]
) -> FoundReport | None:
    """Without a gate: the report that the caller names, else the newest that measures the version; None where none can be read."""
    query = select(reports).where(
        reports.c.kind.in_(_MEASURES), reports.c.figures.contains(json.dumps(str(to)), autoescape=True)
    )
    if isinstance(named := evidence.get("report"), str):
        query = select(reports).where(reports.c.digest == named)
    for row in connection.execute(query.order_by(reports.c.created_at.desc(), reports.c.digest)):
        try:
            content = json.loads(workspace.artifacts.read_file(connection, f"{row.path}/{_JSON_FILE}"))
        except RlhfError:
            continue  # nothing is asked of it, so a damaged one keeps nothing from moving; `adapter verify` names it
        names = {version["digest"]: name for name, version in content["versions"].items()}
        if to.digest in names:
            return FoundReport(row.digest, row.kind, row.title, content, names[to.digest], None)
    return None


def _report(report: FoundReport) -> dict[str, Any]:
    return {
        "digest": report.digest,
        "kind": report.kind,
        "title": report.title,
        "n": report.content["versions"][report.name]["figures"].get("n"),
        "simulated": bool(report.content.get("simulated", False)),
        "seed": report.content.get("seed"),
    }


def _figures(report: FoundReport | None, to: str, before: str | None) -> dict[str, Any]:
    """The plain figures of what the alias moves to and, from the same report, of what it moves from."""
    versions = () if report is None else report.content["versions"].values()
    of = {version["digest"]: gate_figures.flat(version["figures"]) for version in versions}
    return {"to": of.get(to), "from": of.get(before or "")}


def _assumptions(report: FoundReport) -> list[str]:
    """The report's own, and what its figures rest on by the way it was made."""
    content = report.content
    own = content.get("assumptions") or ()
    said = [f"{key}: {value}" for key, value in own.items()] if isinstance(own, Mapping) else [str(one) for one in own]
    if (snapshot := content.get("snapshot")) and report.kind == "evaluation":
        is_suite = snapshot["split"] == "not held out"
        said.append(
            f"on {snapshot['name']}, not held out"
            if is_suite
            else f"on the {snapshot['split']} side of {snapshot['name']}"
        )
    if (judge := content.get("judge")) and report.kind == "comparison":
        flattered = ", ".join(judge.get("flatters") or ())
        said.append(
            f"judged by {judge['name']}" + (f", which trained {flattered} and flatters it" if flattered else "")
        )
        if (known := judge.get("agreement")) is not None:
            value, n = known["agreement"]["value"], known["agreement"]["n"]
            said.append(
                "nobody has checked the judge against people"
                if value is None
                else f"the judge agrees with people on {value:.1%} of {n} pairs that it was not trained on"
            )
            by_source = (known.get("by_source") or {}).get("shown", {})
            said += [f"of these, from {name}: {m['value']:.1%} of {m['n']}" for name, m in by_source.items()]
    if content.get("simulated"):
        said.append("simulated labelers: the figures say nothing about human preferences")
    return said


def _data(workspace: Workspace, to: VersionRef) -> list[dict[str, Any]]:
    """The snapshots behind the version: how many judgements, of how many labelers, under which consent."""
    try:
        line = lineage(workspace, to)
    except RlhfError as error:
        return [{"unreadable": error.message}]
    return [
        {
            "snapshot": origin.names[-1] if origin.names else None,
            "digest": origin.digest,
            "pairs": origin.pairs,
            "judgements": origin.judgements,
            "labelers": origin.labelers,
            "kinds": origin.kinds,
            "consents": origin.consents,
        }
        for origin in line.snapshots
    ]
