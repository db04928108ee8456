"""The decision record of a round: what, why, on which figures, by whom, and what would still be needed.

A report of kind `decision`, stored beside those it names by digest. It is never changed: that a promotion was taken back stands in
the alias's history, and a proposal that is promoted later gets a record of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.evaluation import open_report, reports
from rlhf.ids import digest_of
from rlhf.rounds.decision_page import render
from rlhf.rounds.outcome import Outcome, said
from rlhf.rounds.state import BECAUSE, Round, finished
from rlhf.store import Workspace, audit

KIND = "decision"
ACTION = "loop.decision"
SCHEMA_VERSION = 1
METHOD = {
    "change": "accuracy of the new reward minus the champion's on the same pairs, paired bootstrap over opening turns; below 0 = "
    "forgotten",
    "frozen": "the test side of the first round's snapshot, the same rows in every round",
    "newest": "the test side of this round's snapshot",
}


def record(workspace: Workspace, one: Round) -> dict[str, Any]:
    """Publish the round's record and note it in the audit log; the same round again is the same record, noted once."""
    verdicts = verdicts_of(one)
    content = {
        **_head(workspace, one, verdicts),
        "number": len(finished(workspace, one.settings)) + 1,
        "judgements": {"wanted": one.settings.min_new_judgements, **one.results.get(BECAUSE, {})},
        "trained_on": {key: one.results["mix"].get(key) for key in ("snapshot", "digest", "new", "replayed", "why")},
        "rewards": {side: one.results["measure"][side] for side in ("frozen", "newest")},
        "policies": list(one.results.get("compare", {}).get("against", ())),
        "phase": one.results["phase"],
        "asked": {key: value for key, value in one.results["ask"].items() if key != "source"},
    }
    return publish(workspace, one, content)


def publish(workspace: Workspace, one: Round, content: dict[str, Any]) -> dict[str, Any]:
    """Store the content under its digest, and the audit entry that names it."""
    content["digest"] = _content_digest(content)
    report = reports.publish(workspace, content, render(content))
    verdicts = content["verdicts"]
    with workspace.write() as write:
        if not any(e["details"].get("report") == report.digest for e in _noted(write.connection, one)):
            named = [{key: v[key] for key in ("alias", "candidate", "digest", "outcome", "reasons")} for v in verdicts]
            write.audit(ACTION, one.id, {"report": report.digest, "verdicts": named})
    return {"report": report.digest}


def _content_digest(content: Mapping[str, Any]) -> str:
    """Over what was decided, on what, and by whom; no id of a round or a run, and no time (of a sign-off, say)."""
    kept = {key: value for key, value in content.items() if key not in ("round", "verdicts", "title", "needed")}
    decided = [{key: v[key] for key in ("alias", "digest", "outcome", "reasons")} for v in content["verdicts"]]
    gates = [{key: v["gate"].get(key) for key in ("digest", "report", "figures")} for v in content["verdicts"]]
    return digest_of({**kept, "decided": decided, "gates": gates})


def verdicts_of(one: Round) -> list[dict[str, Any]]:
    return [one.results[step] for step in ("reward_verdict", "policy_verdict") if step in one.results]


def outcome(workspace: Workspace, one: Round, *, new: int | None, settled: Sequence[Mapping[str, Any]] = ()) -> Outcome:
    """A finished round as its caller hears of it."""
    report = open_report(workspace, one.results["decision"]["report"])
    return Outcome(
        "done",
        one.id,
        new,
        one.settings.min_new_judgements,
        decision=report.digest,
        path=str(report.path),
        verdicts=tuple(verdicts_of(one)),
        settled=tuple(dict(verdict) for verdict in settled),
    )


def _head(workspace: Workspace, one: Round, verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What every decision record has."""
    return {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "title": f"Round of {one.settings.name}: " + "; ".join(f"{v['candidate']} {v['outcome']}" for v in verdicts),
        "round": {
            "id": one.id,
            "runs": {role: one.results[role]["run"] for role in ("reward", "policy") if role in one.results},
        },
        "loop": one.settings.name,
        "settings_digest": digest_of(one.settings.content()),
        "actor": workspace.actor,
        "versions": _versions(one, verdicts),
        "verdicts": [dict(verdict) for verdict in verdicts],
        "needed": [f"{said(dict(v))} ({v['fix']})" for v in verdicts if v["outcome"] == "proposed"],
        "snapshot": {
            "name": one.results["cut"]["snapshot"],
            "digest": one.results["cut"]["digest"],
            "split": "test",
            "frozen": one.results["cut"]["frozen"],
            "frozen_digest": one.results["cut"]["frozen_digest"],
        },
        "simulated": _is_simulated(one),
        "seed": one.settings.seed,
        "method": METHOD,
    }


def settlement(workspace: Workspace, one: Round, verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The record of proposals that were promoted after the round, as their gates were met by then."""
    content = {**_head(workspace, one, verdicts), "settles": one.results["decision"]["report"]}
    return publish(workspace, one, content)


def _versions(one: Round, verdicts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The candidates with the figures that were decided on."""
    newest = one.results["measure"]["newest"]["figures"]
    compared = one.results.get("compare", {}).get("against") or [{"figures": {}}]
    figures = {**newest, **compared[0]["figures"]}
    return {v["candidate"]: {"digest": v["digest"], "figures": figures.get(v["candidate"], {})} for v in verdicts}


def _is_simulated(one: Round) -> bool:
    measured = [one.results["measure"]["newest"], *one.results.get("compare", {}).get("against", ())]
    return any(entry["simulated"] for entry in measured)


def _noted(connection: Any, one: Round) -> list[dict[str, Any]]:
    return audit.entries(connection, subject=one.id, action=ACTION)
