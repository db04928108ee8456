"""Gates: what must be shown before an alias may move, kept as a log beside the alias's own.

A gate binds the moves of the alias that it was set on, and no other. It is checked against stored reports and sign-offs;
the registry computes no figure. A rollback never waits for a gate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, select

from rlhf.errors import BadInput, Conflict, NotFound
from rlhf.ids import canonical_json, digest_of, now_text
from rlhf.records import VersionRef
from rlhf.registry import gate_judges, gate_reports
from rlhf.registry.alias_names import name_of, require_free_word, require_why
from rlhf.registry.gate_reports import FoundReport
from rlhf.registry.gate_rules import GateRules, Rule
from rlhf.registry.locks import hold
from rlhf.registry.versions import resolve_in
from rlhf.store import Workspace, Write
from rlhf.store.tables import alias_gates, signoffs, versions

_HEX_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Gate:
    """The gate in force on an alias. digest: of its rules; seq counts the alias's gates."""

    alias: str
    seq: int
    digest: str
    rules: GateRules
    who: str
    why: str
    at: str

    def as_json(self) -> dict[str, Any]:
        return {
            "alias": self.alias,
            "seq": self.seq,
            "digest": self.digest,
            "rules": self.rules.model_dump(mode="json"),
            "who": self.who,
            "why": self.why,
            "at": self.at,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a version may pass. reasons: what is not met, in words, each on its own. fix: what to do about the first.

    evidence: the gate's digest, the report's, each figure with its bounds and n, and the sign-offs; empty where the
    alias has no gate.
    """

    passed: bool
    reasons: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    fix: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"passed": self.passed, "reasons": list(self.reasons), "evidence": dict(self.evidence), "fix": self.fix}


def set_gate(workspace: Workspace, alias: str, rules: GateRules, why: str) -> Gate:
    """Put a gate on an alias, in the place of the one in force; the same rules again change nothing.

    The alias need not be set yet. Raises BadInput for a rule whose figure none of the stored reports of that kind has,
    naming those that they have; NotFound for a judge that nothing answers to; BadUsage for what can't be an alias.
    """
    name = name_of(alias)
    require_free_word(alias)
    require_why(why, "the gate is set")
    content = rules.model_dump(mode="json")
    with workspace.write() as write:
        hold(write, f"alias:{name}")
        if rules.judge is not None:
            gate_judges.require_known(write.connection, rules.judge)
        _require_known_figures(write.connection, rules)
        last = _last(write.connection, alias)
        if last is not None and last.digest == digest_of(content):
            return _gate(last)
        _append(write, alias, last, content, why)
        made = _last(write.connection, alias)
        assert made is not None
        return _gate(made)


def remove_gate(workspace: Workspace, alias: str, why: str) -> None:
    """From here on the alias moves without a gate. Raises NotFound where it has none."""
    name = name_of(alias)
    require_why(why, "the gate is removed")
    with workspace.write() as write:
        hold(write, f"alias:{name}")
        last = _last(write.connection, alias)
        if last is None or last.rules is None:
            raise NotFound(f"{alias} has no gate", fix=f"set one: rlhf alias gate {alias} --rules FILE --why TEXT")
        _append(write, alias, last, None, why)


def gate_of(workspace: Workspace, alias: str) -> Gate | None:
    """The gate in force on the alias; None where it has none."""
    name_of(alias)
    with workspace.read() as connection:
        last = _last(connection, alias)
    return None if last is None or last.rules is None else _gate(last)


def check(workspace: Workspace, alias: str, version: VersionRef | str) -> Verdict:
    """Would the alias move to this version, if `workspace.actor` moved it now? Nothing is changed.

    Raises NotFound for an unknown version, Damaged where the report that decides was changed.
    """
    name = name_of(alias)
    with workspace.read() as connection:
        ref = resolve_in(connection, version) if isinstance(version, str) else version
        require_fits(connection, alias, name, ref)
        last = _last(connection, alias)
        if last is None or last.rules is None:
            return Verdict(True)
        gate = _gate(last)
        wanted = gate_reports.opponent(connection, alias, gate.rules, ref)
        report = gate_reports.newest(workspace, connection, gate.rules, ref, wanted)
        evidence: dict[str, Any] = {"digest": gate.digest, "seq": gate.seq}
        if report is None:
            missing, fix = gate_reports.said_missing(gate.rules, ref, wanted)
            return Verdict(False, (missing,), evidence, fix)
        figures = [_measured(rule, report) for rule in gate.rules.rules]
        signed, unsigned = _signed(connection, gate.rules, ref, report, workspace.actor)
    reasons = [reason for _, reason in figures if reason] + [reason for _, reason in unsigned]
    evidence |= {
        "report": report.digest,
        "against": report.other_digest,
        "figures": [figure for figure, _ in figures],
        "signoffs": signed,
    }
    return Verdict(
        not reasons,
        tuple(reasons),
        evidence,
        _fix(alias, ref, report, unsigned, any(reason for _, reason in figures)) if reasons else "",
    )


def require_fits(connection: Connection, alias: str, name: str, to: VersionRef) -> None:
    """Refuse a version of another name, and a retired one."""
    if to.name != name:
        raise BadInput(
            f"{alias} is an alias of {name}, {to} is not a version of {name}",
            fix=f"name a version {name}@… , or set the alias {to.name}@{alias.partition('@')[2]}",
        )
    retired_at = connection.execute(select(versions.c.retired_at).where(versions.c.digest == to.digest)).scalar_one()
    if retired_at is not None:
        raise BadInput(f"{to} was retired at {retired_at}", fix="choose a version that is not retired")


def require_met(connection: Connection, alias: str, version: VersionRef, verdict: Verdict) -> None:
    """Inside the move's transaction: refuse what isn't met, and a verdict on a gate that was changed since."""
    last = _last(connection, alias)
    digest = None if last is None or last.rules is None else last.digest
    if digest != verdict.evidence.get("digest"):
        raise Conflict(f"the gate of {alias} was changed meanwhile", fix="move it again if you still want to")
    if not verdict.passed:
        raise Conflict(
            f"{alias} has a gate, and {version} doesn't meet it: {'; '.join(verdict.reasons)}", fix=verdict.fix
        )


def _measured(rule: Rule, report: FoundReport) -> tuple[dict[str, Any], str | None]:
    """The rule with what the report says, and why it isn't met (None: it is)."""
    value, trouble = report.value(rule.figure, relative=rule.relative)
    n = report.n_of(rule.figure)
    said: dict[str, Any] = {**rule.model_dump(mode="json", exclude_none=True), "value": value, "n": n}
    where = f"report {report.digest[:_HEX_SHOWN]}"
    what = f"{rule.figure}{' against the other' if rule.relative else ''}"
    if trouble is not None:
        return said, f"{where} {trouble}"
    if value is None:  # relative to nothing: the alias's first version
        return said, None
    if rule.above is not None and not value > rule.above:
        return said, f"{what} is {value:g}, wanted above {rule.above:g} ({where})"
    if rule.below is not None and not value < rule.below:
        return said, f"{what} is {value:g}, wanted below {rule.below:g} ({where})"
    if rule.min_n is not None and (n is None or n < rule.min_n):
        items = report.items_of(rule.figure)
        return (
            said,
            f"{rule.figure} is of {n if n is not None else 'an unknown number of'} {items}, wanted {rule.min_n} or more ({where})",
        )
    return said, None


def _signed(
    connection: Connection, rules: GateRules, ref: VersionRef, report: FoundReport, mover: str
) -> tuple[list[dict[str, str]], list[tuple[str, str]]]:
    """The sign-offs that count, and the roles without one, each with the reason in words."""
    query = select(signoffs).where(signoffs.c.version_digest == ref.digest, signoffs.c.report_digest == report.digest)
    rows = connection.execute(query.order_by(signoffs.c.id)).all()
    found, unsigned = [], []
    for role in rules.signoffs:
        fitting = [row for row in rows if row.role == role and not (rules.four_eyes and row.who == mover)]
        if fitting:
            found.append({"role": role, "who": fitting[0].who, "at": fitting[0].at})
            continue
        other = f" other than {mover}, who moves it," if rules.four_eyes else ""
        unsigned.append((role, f"no {role}{other} has signed {ref} with report {report.digest[:_HEX_SHOWN]}"))
    return found, unsigned


def _fix(alias: str, ref: VersionRef, report: FoundReport, unsigned: list[tuple[str, str]], is_worse: bool) -> str:
    """What to do; a signature helps only where the figures are met."""
    if unsigned and not is_worse:
        role = f"'{unsigned[0][0]}'" if " " in unsigned[0][0] else unsigned[0][0]
        return f"read the report, then: rlhf adapter sign {ref} --report {report.digest[:_HEX_SHOWN]} --as {role}"
    return f"bring a better version or a larger report; what the gate wants: rlhf alias gate {alias}"


def _require_known_figures(connection: Connection, rules: GateRules) -> None:
    known = gate_reports.known_figures(connection, rules.report)
    unknown = [rule.figure for rule in rules.rules if rule.figure not in known]
    if known and unknown:
        raise BadInput(
            f"no {rules.report} report has a figure '{unknown[0]}'", fix=f"the figures are {', '.join(sorted(known))}"
        )


def _append(write: Write, alias: str, last: Row[Any] | None, content: Mapping[str, Any] | None, why: str) -> None:
    row = {
        "alias": alias,
        "seq": (last.seq if last is not None else 0) + 1,
        "digest": None if content is None else digest_of(content),
        "rules": None if content is None else canonical_json(content).decode(),
        "who": write.actor,
        "why": why.strip(),
        "at": now_text(),
    }
    write.connection.execute(alias_gates.insert().values(**row))
    action = "alias.ungate" if content is None else "alias.gate"
    write.audit(action, alias, {key: row[key] for key in ("seq", "digest", "why")})


def _last(connection: Connection, alias: str) -> Row[Any] | None:
    query = select(alias_gates).where(alias_gates.c.alias == alias).order_by(alias_gates.c.seq.desc()).limit(1)
    return connection.execute(query).first()


def _gate(row: Row[Any]) -> Gate:
    rules = GateRules(**json.loads(row.rules))
    return Gate(row.alias, row.seq, row.digest, rules, row.who, row.why, row.at)
