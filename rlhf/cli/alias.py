"""`rlhf alias`: movable names over versions; every move has its reason and can be taken back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhf.cli.boundary import Run, verb

if TYPE_CHECKING:
    from rlhf.records import AliasMove
    from rlhf.store import Workspace

app = typer.Typer(help="Aliases: set, history, rollback, list, gate.", no_args_is_help=True)

Alias = Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="For instance hh@champion.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for whoever reads the history.")]
Expect = Annotated[
    int | None, typer.Option("--expect", metavar="N", help="Move only if entry N is the last (0 = none).")
]


@verb(app, "set")
def set_(
    run: Run,
    alias: Alias,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="name@7, name@alias, or sha256:…")],
    why: Why,
    expect: Expect = None,
) -> None:
    """Point an alias at a version."""
    from rlhf.cli.gate import trials
    from rlhf.registry import aliases

    workspace = run.workspace()
    began = time.perf_counter()
    moved = aliases.move(workspace, alias, version, why=why, expect=expect, trials=trials)
    _answer(run, workspace, moved, time.perf_counter() - began)


@verb(app, "rollback")
def rollback(
    run: Run,
    alias: Alias,
    why: Why,
    to: Annotated[str | None, typer.Option("--to", metavar="V", help="A version it pointed at before.")] = None,
    expect: Expect = None,
) -> None:
    """Return to what the alias pointed at before; repeated, walk further back."""
    from rlhf.registry import aliases

    workspace = run.workspace()
    began = time.perf_counter()
    moved = aliases.roll_back(workspace, alias, to=to, why=why, expect=expect)
    _answer(run, workspace, moved, time.perf_counter() - began)
    _warn_if_damaged(run, workspace, moved)


@verb(app, "history")
def history(run: Run, alias: Alias) -> None:
    """Every move of an alias, first to last: from, to, who, why, when."""
    from rlhf.registry import aliases

    workspace = run.workspace()
    moves = [_move(workspace, move) for move in aliases.history(workspace, alias)]
    run.result(
        {"alias": alias, "moves": moves},
        "\n".join(
            f"{m['seq']:>4}  {m['at'][:19]}  {m['action']:<8} {m['from'] or '-'} -> {m['to']}  {m['who']}: {m['why']}"
            for m in moves
        ),
    )


@verb(app, "list")
def list_(run: Run) -> None:
    """Every alias and what it points at."""
    from rlhf.registry import aliases

    found = aliases.list_aliases(run.workspace())
    run.result(
        {
            "aliases": [
                {
                    "alias": a.alias,
                    "version": str(a.version),
                    "digest": a.version.digest,
                    "seq": a.seq,
                    "who": a.who,
                    "why": a.why,
                    "at": a.at,
                }
                for a in found
            ]
        },
        "\n".join(f"{a.alias:<30} {a.version}  {a.at[:19]}  {a.who}: {a.why}" for a in found) or "no alias is set",
    )


@verb(app, "gate")
def gate(
    run: Run,
    alias: Alias,
    rules: Annotated[
        Path | None, typer.Option("--rules", metavar="FILE", help="YAML file of rules: puts this gate on the alias.")
    ] = None,
    risk_class: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Which class of the file, where it has several.")
    ] = None,
    snapshot: Annotated[
        str | None,
        typer.Option(
            "--snapshot", metavar="S", help="Only reports on this data set: suite:NAME@1, or a snapshot NAME@1."
        ),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the gate off the alias.")] = False,
    check: Annotated[
        str | None, typer.Option("--check", metavar="VERSION", help="Would the alias move to this version?")
    ] = None,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, with --rules and --remove.")] = "",
) -> None:
    """Show the gate in force on an alias, set it, take it off, or check a version against it (exit 1: not met)."""
    from rlhf.cli import gate as gate_words
    from rlhf.errors import BadUsage
    from rlhf.registry import gates, read_rules

    if sum((rules is not None, remove, check is not None)) > 1:
        raise BadUsage("--rules, --remove and --check are three different things", fix="give one of them at a time")
    if risk_class is not None and rules is None:
        raise BadUsage("--class is a class of a file of rules", fix="name the file with --rules")
    if snapshot is not None and rules is None:
        raise BadUsage("--snapshot is what the reports of a gate must be on", fix="name the file of rules with --rules")
    workspace = run.workspace()
    if rules is not None:
        gate_words.warn_if_nameless(run, workspace, alias)
        chosen = read_rules(rules, risk_class)
        if snapshot is not None:  # in the place of the file's own
            chosen = chosen.model_copy(update={"snapshot": snapshot})
        gate_words.warn_if_absent(run, workspace, chosen)
        gate_words.warn_if_unknown(run, workspace, chosen)
        gate_words.tell_gate(run, alias, gates.set_gate(workspace, alias, chosen, why))
    elif remove:
        gates.remove_gate(workspace, alias, why)
        gate_words.tell_gate(run, alias, None)
    elif check is not None:
        gate_words.tell_verdict(run, alias, check, gate_words.verdict_on(workspace, alias, check))
    else:
        gate_words.tell_gate(run, alias, gates.gate_of(workspace, alias))


def _answer(run: Run, workspace: Workspace, move: AliasMove, seconds: float) -> None:
    from rlhf.serving import log

    with workspace.read() as connection:
        ended = log.ended_by(connection, move.alias, move.seq)
    answer = {**_move(workspace, move), "seconds": round(seconds, 6), "ended_rollout": ended and ended.id}
    lines = [f"{move.alias}: {answer['from'] or '-'} -> {answer['to']} in {seconds:.3f} s"]
    if ended is not None:
        lines.append(
            f"its {ended.settings.kind} {ended.id[:10]} ended with that; see: rlhf rollout status {move.alias}"
        )
    run.result(answer, "\n".join(lines))


def _warn_if_damaged(run: Run, workspace: Workspace, move: AliasMove) -> None:
    """After the move: a way back must not wait for files to be read, yet nobody should take a broken one for whole."""
    from rlhf import registry
    from rlhf.errors import RlhfError

    try:
        registry.open_version(workspace, f"sha256:{move.to_digest}")
    except RlhfError as error:
        run.say(
            f"warning: {move.alias} now points at a version that can't be used: {error.message}\n"
            f"  fix: restore it from a backup, or go to a whole one: rlhf alias rollback {move.alias} --to VERSION"
        )


def _move(workspace: Workspace, move: AliasMove) -> dict[str, Any]:
    from rlhf import registry

    names = {
        digest: str(registry.resolve(workspace, f"sha256:{digest}"))
        for digest in {move.from_digest, move.to_digest}
        if digest
    }
    return {
        "alias": move.alias,
        "from": names.get(move.from_digest or ""),
        "to": names[move.to_digest],
        "from_digest": move.from_digest,
        "to_digest": move.to_digest,
        "seq": move.seq,
        "action": move.action,
        "who": move.who,
        "why": move.why,
        "at": move.at,
        "evidence": dict(move.evidence),
    }
