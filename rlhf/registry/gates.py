"""Gates: what must be shown before an alias may move.

A gate binds the moves of the alias that it was set on, and no other. It is checked against stored reports, sign-offs and what
rollouts tell; the registry computes no figure. A rollback never waits for a gate. Who is known here as a person changes gates only
with the permission `gate`, which who promotes doesn't have; and every change is a decision that anybody can read.
"""

from __future__ import annotations

import difflib

from sqlalchemy import Connection, select

from rlhf.errors import BadInput, Conflict, Forbidden, NotFound
from rlhf.people import accounts
from rlhf.records import VersionRef
from rlhf.registry import gate_figures, gate_judges, gate_log, gate_reports
from rlhf.registry.alias_names import name_of, require_free_word, require_why
from rlhf.registry.gate_checks import Verdict, check
from rlhf.registry.gate_log import Gate
from rlhf.registry.gate_rules import GateRules, contradiction
from rlhf.registry.locks import hold
from rlhf.registry.versions import require_fits
from rlhf.store import Workspace
from rlhf.store.tables import alias_gates

__all__ = [
    "Gate",
    "Verdict",
    "check",
    "gate_of",
    "list_gates",
    "remove_gate",
    "require_fits",
    "require_gate",
    "require_met",
    "set_gate",
    "unknown_figures",
]


def set_gate(workspace: Workspace, alias: str, rules: GateRules, why: str) -> Gate:
    """Put a gate on an alias, in the place of the one in force; the same rules again change nothing.

    The alias need not be set yet. Raises BadInput for two rules that nothing meets, and for a rule whose figure none of the stored
    reports of that kind has, naming the nearest (a way into a report, with dots, may lead to what is still to come:
    `unknown_figures`); Forbidden for a person without the permission; NotFound for a judge that nothing answers to; BadUsage for
    what can't be an alias.
    """
    name = name_of(alias)
    require_free_word(alias)
    require_why(why, "the gate is set")
    if said := contradiction(rules.rules):
        raise BadInput(said, fix="drop one of the two, or correct its bound")
    with workspace.write() as write:
        hold(write, f"alias:{name}")
        if rules.judge is not None:
            gate_judges.require_known(write.connection, rules.judge)
        _require_known_figures(write.connection, rules)
        there = gate_log.in_force(write.connection, alias)
        if there is not None and there.rules == rules:
            return there
        _require_may(write.connection, write.actor, alias)
        made = gate_log.append(write, alias, rules, why)
        assert made is not None
        return made


def remove_gate(workspace: Workspace, alias: str, why: str) -> None:
    """From here on the alias moves without a gate. Raises NotFound where it has none."""
    name = name_of(alias)
    require_why(why, "the gate is removed")
    with workspace.write() as write:
        hold(write, f"alias:{name}")
        if gate_log.in_force(write.connection, alias) is None:
            raise NotFound(f"{alias} has no gate", fix=f"set one: rlhf alias gate {alias} --rules FILE --why TEXT")
        _require_may(write.connection, write.actor, alias)
        gate_log.append(write, alias, None, why)


def gate_of(workspace: Workspace, alias: str) -> Gate | None:
    """The gate in force on the alias; None where it has none."""
    name_of(alias)
    with workspace.read() as connection:
        return gate_log.in_force(connection, alias)


def require_gate(workspace: Workspace, alias: str) -> Gate:
    """The gate in force on the alias. Raises NotFound where it has none: somebody who asks what a gate says means one."""
    if (gate := gate_of(workspace, alias)) is not None:
        return gate
    near = difflib.get_close_matches(alias, [one.alias for one in list_gates(workspace)], n=1)
    raise NotFound(
        f"no gate is on {alias}" + (f" (nearest: {near[0]})" if near else ""),
        fix=f"see which aliases have one: rlhf gate list; put one on: rlhf alias gate {alias} --rules FILE --why TEXT",
    )


def list_gates(workspace: Workspace) -> tuple[Gate, ...]:
    """Every gate in force, by alias; its alias need not be set yet."""
    with workspace.read() as connection:
        named = connection.execute(select(alias_gates.c.alias).distinct().order_by(alias_gates.c.alias)).scalars().all()
        return tuple(gate for alias in named if (gate := gate_log.in_force(connection, alias)) is not None)


def unknown_figures(workspace: Workspace, rules: GateRules) -> list[str]:
    """Figures of the rules that no stored report of their kind has yet: spelled wrong, or still to come."""
    with workspace.read() as connection:
        return gate_reports.unknown_figures(connection, rules)[0]


def require_met(connection: Connection, alias: str, version: VersionRef, verdict: Verdict) -> None:
    """Inside the move's transaction: refuse what isn't met, and a verdict on a gate that was changed since."""
    gate = gate_log.in_force(connection, alias)
    if (gate.digest if gate else None) != verdict.evidence.get("digest"):
        raise Conflict(f"the gate of {alias} was changed meanwhile", fix="move it again if you still want to")
    if not verdict.passed:
        raise Conflict(
            f"{alias} has a gate, and {version} doesn't meet it: {'; '.join(verdict.reasons)}", fix=verdict.fix
        )


def _require_may(connection: Connection, who: str, alias: str) -> None:
    """Who has no account here writes the workspace's files, and is trusted as everywhere."""
    account = accounts.of(connection, who)
    if account is not None and (account.disabled_at is not None or "gate" not in account.permissions):
        raise Forbidden(
            f"'{who}' may not change the gate of {alias}: that takes the permission gate", fix="ask an admin to do it"
        )


def _require_known_figures(connection: Connection, rules: GateRules) -> None:
    unknown, known = gate_reports.unknown_figures(connection, rules)
    misspelt = [figure for figure in unknown if "." not in figure]
    if misspelt:
        near = gate_figures.nearest(known, misspelt[0])
        raise BadInput(
            f"no {rules.report} report has a figure '{misspelt[0]}'"
            + (f" (nearest: {', '.join(near)})" if near else ""),
            fix=f"there are {gate_figures.grouped(known)}; all that a report has: rlhf report show R --json",
        )
