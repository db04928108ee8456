"""Is a gate met? Every rule with what was found: its figure, of how many, its interval and how that was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from rlhf.errors import BadInput
from rlhf.records import VersionRef
from rlhf.registry import gate_log, gate_reports, gate_signs, gate_trials
from rlhf.registry.alias_names import name_of
from rlhf.registry.gate_log import Gate
from rlhf.registry.gate_reports import FoundReport
from rlhf.registry.gate_rules import WORD_OF, GateRules, Rule
from rlhf.registry.gate_trials import Trials
from rlhf.registry.versions import require_fits, resolve_in
from rlhf.store import Workspace

_HEX_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a version may pass. reasons: what is not met, in words, each on its own. fix: what to do about the first.

    results: each thing that the gate asks, in order: `rule` in words, `met`, `reason`, and what was found. evidence: the gate's
    digest, the report's, each figure with its bounds and n, the sign-offs, the canary; empty where the alias has no gate. report:
    the one that was read. cautions: what holds less than it seems, and the newer report that was passed over.
    """

    passed: bool
    reasons: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    fix: str = ""
    results: tuple[Mapping[str, Any], ...] = ()
    report: FoundReport | None = None
    gate: Gate | None = None
    cautions: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "reasons": list(self.reasons),
            "rules": [dict(result) for result in self.results],
            "evidence": dict(self.evidence),
            "fix": self.fix,
            "cautions": list(self.cautions),
        }


@dataclass(frozen=True, slots=True)
class _Part:
    """What came of one part of a gate."""

    evidence: Mapping[str, Any]
    results: tuple[Mapping[str, Any], ...]
    fix: str = ""

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(result["reason"] for result in self.results if not result["met"]))


def check(
    workspace: Workspace,
    alias: str,
    version: VersionRef | str,
    *,
    trials: Trials | None = None,
    report: str | None = None,
) -> Verdict:
    """Would the alias move to this version, if `workspace.actor` moved it now? Nothing is changed.

    trials: how a version's canary went (`serving.trial_of`); without it no canary counts. report: read this one instead of the
    newest that fits, to see what it would say: a move reads the newest. Raises NotFound for an unknown version or report, BadInput
    for a report that the gate doesn't read, Damaged where the report that decides was changed.
    """
    name = name_of(alias)
    with workspace.read() as connection:
        ref = resolve_in(connection, version) if isinstance(version, str) else version
        require_fits(connection, alias, name, ref)
        gate = gate_log.in_force(connection, alias)
        if gate is None:
            if report is not None:
                raise BadInput(f"{alias} has no gate, so no report decides", fix=f"see: rlhf alias gate {alias}")
            return Verdict(True)
        found, parts, passed_over = None, [], ""
        if gate.rules.needs_report:
            wanted = gate_reports.opponent(connection, alias, gate.rules, ref)
            if report is not None:
                found = gate_reports.named(workspace, connection, report, gate.rules, ref, wanted)
            else:
                found, passed_over = gate_reports.newest(workspace, connection, gate.rules, ref, wanted)
            parts = (
                [_unread(gate.rules, ref, wanted, passed_over)]
                if found is None
                else [
                    _figures(alias, gate.rules, ref, wanted, found),
                    _signed(connection, gate.rules, ref, found, workspace.actor),
                ]
            )
        if gate.rules.canary is not None:
            parts.append(_canary(connection, trials, alias, ref, gate.rules))
    evidence: dict[str, Any] = {"digest": gate.digest, "seq": gate.seq, "class": gate.rules.risk_class}
    for part in parts:
        evidence |= part.evidence
    reasons = tuple(reason for part in parts for reason in part.reasons)
    fix = next((part.fix for part in parts if part.reasons), "")
    results = tuple(result for part in parts for result in part.results)
    cautions = (*gate.rules.cautions, *((passed_over,) if passed_over else ()))
    return Verdict(not reasons, reasons, evidence, fix, results, found, gate, cautions)


def _unread(rules: GateRules, ref: VersionRef, wanted: gate_reports.Opponent, passed_over: str) -> _Part:
    """Without a report nothing that it would show is met."""
    missing, fix = gate_reports.said_missing(rules, ref, wanted)
    missing += f" ({passed_over})" if passed_over else ""
    unmet = [*(rule.words for rule in rules.rules), *(f"signed by {role}" for role in rules.signoffs)]
    return _Part({}, tuple({"rule": words, "met": False, "reason": missing} for words in unmet), fix)


def _figures(
    alias: str, rules: GateRules, ref: VersionRef, wanted: gate_reports.Opponent, report: FoundReport
) -> _Part:
    measured = [_measured(rule, report) for rule in rules.rules]
    evidence = {
        "report": report.digest,
        "against": report.other_digest,
        "figures": [said for said, _ in measured],
    }
    results = tuple(
        {"rule": rule.words, "met": reason is None, "reason": reason, **said}
        for rule, (said, reason) in zip(rules.rules, measured, strict=True)
    )
    look = f"what the gate wants: rlhf alias gate {alias}"
    if all(
        result["met"] or result["value"] is None for result in results
    ):  # nothing is worse, something isn't measured
        _, make = gate_reports.said_missing(rules, ref, wanted)
        return _Part(evidence, results, f"bring a report that measures it ({make}), or correct the rule; {look}")
    return _Part(evidence, results, f"bring a better version or a larger report; {look}")


def _measured(rule: Rule, report: FoundReport) -> tuple[dict[str, Any], str | None]:
    """The rule with what the report says, and why it isn't met (None: it is)."""
    found = report.figure(rule.figure, relative=rule.relative)
    said: dict[str, Any] = {**rule.model_dump(mode="json", exclude_none=True), **found.as_json()}
    where = f"report {report.digest[:_HEX_SHOWN]}"
    what = f"{rule.figure}{' against the other' if rule.relative else ''}"
    if found.trouble is not None:
        wanted = " and ".join(f"{WORD_OF[name]} {bound:g}" for name, bound in rule.bounds.items())
        return said, f"{where} {found.trouble}, wanted {what} {wanted}"
    if found.value is None:  # relative to nothing: the alias's first version
        return said, None
    if (bound := rule.broken(found.value)) is not None:
        return said, f"{what} is {found.value:g}, wanted {bound} ({where})"
    if rule.min_n is not None and (found.n is None or found.n < rule.min_n):
        n = found.n if found.n is not None else "an unknown number of"
        return said, f"{rule.figure} is of {n} {found.items}, wanted {rule.min_n} or more ({where})"
    return said, None


def _signed(connection: Connection, rules: GateRules, ref: VersionRef, report: FoundReport, mover: str) -> _Part:
    """A signature helps only where the figures are met: this part's fix comes after theirs."""
    found = gate_signs.signed(connection, rules, ref, report.digest, mover)
    results = tuple(
        {"rule": f"signed by {one.role}", "met": one.who is not None, "reason": one.reason or None, **one.as_json()}
        for one in found
    )
    lacking = next((one.role for one in found if one.who is None), "")
    role = f"'{lacking}'" if " " in lacking else lacking
    fix = f"read the report, then: rlhf adapter sign {ref} --report {report.digest[:_HEX_SHOWN]} --as {role}"
    return _Part({"signoffs": [one.as_json() for one in found if one.who is not None]}, results, fix)


def _canary(connection: Connection, trials: Trials | None, alias: str, ref: VersionRef, rules: GateRules) -> _Part:
    trial = gate_trials.trial_of(connection, trials, alias, ref, rules)
    reason, fix = gate_trials.missing(trial, alias, ref, rules)
    told = None if trial is None else trial.as_json()
    result = {"rule": f"canary {rules.canary}", "met": not reason, "reason": reason or None, "trial": told}
    return _Part({"canary": told}, (result,), fix)
