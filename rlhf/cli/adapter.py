"""`rlhf adapter`: versions, what they are, where they come from, whether they are whole, PEFT folders out and in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhf.cli.boundary import Run, verb
from rlhf.cli.card import card

if TYPE_CHECKING:
    from rlhf.registry import Difference, Relative
    from rlhf.store import Workspace

app = typer.Typer(help="Versions: list, show, compare, verify, export, import.", no_args_is_help=True)

_SHOWN_TENSORS = 5
Version = Annotated[str, typer.Argument(metavar="V", help="name@7, name@alias, or sha256: and 12 or more hex digits.")]


@verb(app, "list")
def list_(
    run: Run,
    role: Annotated[str | None, typer.Option("--role", help="Only 'reward' or only 'policy'.")] = None,
) -> None:
    """Every version, with the aliases on it."""
    from rlhf import registry
    from rlhf.errors import BadUsage

    if role is not None and role not in ("reward", "policy"):
        raise BadUsage(f"--role is '{role}'", fix="say --role reward or --role policy")
    rows = registry.list_versions(run.workspace(), role=role)  # type: ignore[arg-type]
    run.result(
        {"versions": [row.as_json() for row in rows]}, "\n".join(_line(row) for row in rows) or "no versions yet"
    )


@verb(app, "show")
def show(run: Run, version: Version) -> None:
    """One version: what made it, its figures, aliases and sign-offs, and whether its files are as they were published."""
    from rlhf import registry

    workspace = run.workspace()
    row = registry.show(workspace, version)
    problems = list(registry.verify(workspace, row.ref).problems)
    signed = [dict(s) for s in row.signoffs]
    answer = {**row.as_json(), "signoffs": signed, "problems": problems, "manifest": dict(row.manifest)}
    shown = {key: answer[key] for key in ("digest", "role", "kind", "base", "created_at", "retired_at")}
    lines = [str(row.ref), *(f"  {key:<12} {value}" for key, value in shown.items() if value is not None)]
    lines += [
        f"  {key:<12} {row.manifest[key]}" for key in ("snapshot_digest", "settings", "seeds") if row.manifest[key]
    ]
    lines += [f"  metric {key:<20} {value}" for key, value in row.manifest["metrics"].items()]
    lines += [f"  alias        {alias}" for alias in row.aliases]
    lines += [f"  signed       by {s['who']} as {s['role']} on report {s['report'][:12]}" for s in row.signoffs]
    lines += ["  trained on SIMULATED preferences"] * bool(row.manifest["simulated"])
    lines += [f"  DAMAGED      {problem}" for problem in problems]
    run.result(answer, "\n".join(lines))


@verb(app, "lineage")
def lineage(
    run: Run,
    version: Annotated[str | None, typer.Argument(metavar="V", help="The version asked about.")] = None,
    snapshot: Annotated[str | None, typer.Option("--snapshot", metavar="S", help="What was trained on it?")] = None,
) -> None:
    """Where a version comes from (versions, snapshots, sources) and what came of it, or what came of a snapshot."""
    from rlhf import registry
    from rlhf.errors import BadUsage

    if (version is None) == (snapshot is None):
        raise BadUsage("wanted one version, or --snapshot S", fix="for instance: rlhf adapter lineage hh@1")
    if version is None:
        found = registry.descendants(run.workspace(), snapshot=snapshot)
        run.result(
            {"snapshot": snapshot, "descendants": [one.as_json() for one in found]},
            "\n".join(_descendant(one) for one in found) or "nothing was trained on it",
        )
        return
    line = registry.lineage(run.workspace(), version)
    lines = [
        f"{line.version} on base {line.base_name}" + (", trained on SIMULATED preferences" if line.simulated else "")
    ]
    lines += [f"  {one.relation:<11} of {one.of}: {one.version}" for one in line.ancestors]
    for cut in line.snapshots:
        name = cut.names[-1] if cut.names else f"sha256:{cut.digest[:12]}, not in this workspace"
        lines.append(
            f"  trained-on  of {', '.join(cut.of)}: snapshot {name}, {cut.pairs} pairs, {cut.judgements} judgements"
        )
        for source, n in (cut.by_source or {}).items():
            told = f"{n['pairs']} pairs, {n['judgements']} judgements, {n['judgements_of_unknown']} of them unknown people's"
            lines.append(f"    source    {source}: {told}, {n['labelers']} known labelers")
        if not cut.by_source:  # cut before sources were counted one by one
            lines += [f"    source    {source}: {n} pairs" for source, n in (cut.sources or {}).items()]
        lines += [
            f"    {what:<9} {dict(counts)}"
            for what, counts in (("labelers", cut.labelers), ("kinds", cut.kinds), ("consents", cut.consents))
            if counts
        ]
    lines += [f"  came of it: {one.version} ({one.relation} of it is {one.of})" for one in line.descendants]
    run.result(line.as_json(), "\n".join(lines))


@verb(app, "diff")
def diff(
    run: Run,
    a: Version,
    b: Version,
    every: Annotated[bool, typer.Option("--all", help="Every tensor, not only those that are farthest apart.")] = False,
) -> None:
    """What differs between two versions: what made them, their figures, their weights."""
    from rlhf import registry

    found = registry.diff(run.workspace(), a, b)
    lines = [f"{found.a} -> {found.b}"]
    for part in (found.made_of, found.settings, found.config, found.metrics):
        lines += [f"  {key}: {one} -> {other}" for key, (one, other) in part.items()]
    lines += _weights(found, None if every else _SHOWN_TENSORS)
    run.result(found.as_json(), "\n".join(lines) if len(lines) > 1 else f"{found.a} and {found.b} don't differ")


verb(app, "card")(card)


@verb(app, "verify")
def verify(
    run: Run, version: Annotated[str | None, typer.Argument(metavar="[V]", help="Only this version.")] = None
) -> None:
    """Check every published file, every version's digest and the audit chain; exits 1 where something is wrong."""
    from rlhf import registry

    workspace = run.workspace()
    found = registry.verify(workspace, version)
    if version is None:
        from rlhf.engine import bases

        found = replace(found, problems=(*found.problems, *bases.problems(workspace)))
    for leftover in found.leftovers:
        run.say(f"left by a crash, never published, harmless: {leftover}")
    said = f"{found.files} files and {found.versions} versions are as they were published"
    run.result(found.as_json(), "\n".join(found.problems) or said)
    if not found.ok:
        run.say("error: something that was published has changed\n  fix: restore what is named from a backup")
        raise typer.Exit(1)


@verb(app, "export")
def export(
    run: Run, version: Version, folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty.")]
) -> None:
    """Write a version as a plain PEFT folder that stock PEFT loads."""
    from rlhf import registry

    workspace = run.workspace()
    ref = registry.resolve(workspace, version)
    base, tokenizer = _base_of(workspace, registry.show(workspace, ref).manifest)
    made = registry.export_folder(workspace, ref, folder, base_path=base, extra_files=tokenizer)
    run.result({"version": str(ref), "digest": ref.digest, "folder": str(made), "base": base}, f"wrote {ref} to {made}")


@verb(app, "import")
def import_(
    run: Run,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A reward's folder (SEQ_CLS, with its score head) that PEFT's save_pretrained wrote."
        ),
    ],
    name: Annotated[str | None, typer.Option("--name", help="The version's name; default: the folder's.")] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="The base it was trained on, as `rlhf base list` calls it.")
    ] = None,
) -> None:
    """Publish a reward from a stock PEFT folder, after the checks that our own pass; what is here already gives its version."""
    from rlhf import registry, reward

    workspace = run.workspace()
    ref = reward.adopt(workspace, folder, name=name, base=base)
    manifest = registry.show(workspace, ref).manifest
    run.result(
        {"version": str(ref), "digest": ref.digest, "run": manifest["run_id"], "metrics": manifest["metrics"]},
        f"{folder} is {ref} (sha256:{ref.digest[:12]})",
    )


@verb(app, "retire")
def retire(
    run: Run,
    version: Version,
    why: Annotated[
        str, typer.Option("--why", metavar="TEXT", help="The reason, for whoever reads the decisions.")
    ] = "",
) -> None:
    """Mark a version as never to be promoted again; it stays for audit."""
    from rlhf import registry

    row = registry.retire(run.workspace(), version, why=why)
    run.result(row.as_json(), f"{row.ref} is retired since {row.retired_at}")


@verb(app, "sign")
def sign(
    run: Run,
    version: Version,
    report: Annotated[str, typer.Option("--report", metavar="R", help="The digest of the report that was read.")],
    role: Annotated[str, typer.Option("--as", metavar="ROLE", help="In what role, for instance evaluator.")],
) -> None:
    """Sign a version on the strength of a report."""
    from rlhf import registry

    signed = registry.sign(run.workspace(), version, report, role)
    run.result(
        signed.as_json(), f"{signed.who} signed {version} as {signed.role} on report {signed.report_digest[:12]}"
    )


def _line(row: Any) -> str:
    marks = [
        *row.aliases,
        *(["retired"] if row.retired_at else []),
        *(["simulated"] if row.manifest["simulated"] else []),
    ]
    line = f"{row.ref!s:<20} {row.ref.role:<7} sha256:{row.ref.digest[:12]}  {row.created_at[:19]}  {', '.join(marks)}"
    return line.rstrip()


def _weights(found: Difference, n_shown: int | None) -> list[str]:
    """The tensors that differ, the farthest apart first (those that one side lacks before them). None = all."""

    def apart(name: str) -> tuple[float, str]:
        value = found.tensors[name]["difference"]
        return (float("-inf") if value is None else -value, name)

    names = sorted(found.tensors, key=apart)[:n_shown]
    lines = [
        f"  {name}: weights {_norm(n['a'])} -> {_norm(n['b'])}, apart {_norm(n['difference'])}"
        for name, n in ((name, found.tensors[name]) for name in names)
    ]
    if len(names) < len(found.tensors):
        lines.append(
            f"  and {len(found.tensors) - len(names)} more tensors that differ less; --all or --json lists them"
        )
    return lines


def _descendant(one: Relative) -> str:
    """A snapshot may be called as a version is (hh@1 is both), so the word stands before its name."""
    kind = "snapshot " if one.relation == "trained-on" else ""
    return f"{one.version}  {one.relation} {kind}{one.of}"


def _norm(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _base_of(workspace: Workspace, manifest: Any) -> tuple[str, dict[str, bytes]]:
    """The base's folder and its tokenizer's files where the workspace has it, else the name that the version knows it by."""
    from rlhf.engine import bases
    from rlhf.engine.exporting import stock_tokenizer
    from rlhf.errors import NotFound

    try:
        base = bases.by_digest(workspace, manifest["base"]["digest"])
    except NotFound:
        return str(manifest["base"]["name"]), {}
    return str(base.folder), stock_tokenizer(base)
