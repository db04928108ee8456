"""`rlhf suite …`: import, cut, counterfactual, list, show, check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf.cli.boundary import Run, verb

if TYPE_CHECKING:
    from rlhf.suites import SuiteEntry

app = typer.Typer(
    no_args_is_help=True, help="Freeze prompts and pairs that versions are measured on.", rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="name (its latest), name@2 or sha256:…", show_default=False)]
New = Annotated[str, typer.Argument(metavar="NAME", help="Given again, the next one is NAME@2.", show_default=False)]
NotHeldOut = Annotated[
    bool,
    typer.Option("--not-held-out", help="Versions may have been trained on it: reports say so instead of refusing."),
]
_SHOWN = 10


@verb(app, "import")
def import_(
    run: Run,
    name: New,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="JSON lines, a JSON list, CSV or Parquet.", show_default=False)
    ],
    format: Annotated[
        str | None,
        typer.Option("--format", metavar="F", help="jsonl, rewardbench or rmbench. Default: by the first row."),
    ] = None,
    not_held_out: NotHeldOut = False,
) -> None:
    """Freeze the rows of files: pairs with a verdict, or prompts alone; `stratum`, `subset`, `domain` are strata, `tags` groups."""
    from rlhf import suites

    found = suites.import_files(run.workspace(), name, files, format=format, held_out=not not_held_out)
    entry = found.suite.entry
    lines = [
        f"{entry.ref}: {entry.n_pairs:,} pairs, {entry.n_prompts:,} prompts alone, {_held(entry)}, "
        f"sha256:{entry.digest[:12]}",
        f"{found.rows:,} rows as {found.format}: {found.accepted:,} accepted, {found.duplicates:,} duplicates, "
        f"{found.rejected:,} rejected",
        *_again(found.again),
        *(f"  {error.file} line {error.line}: {error.reason}" for error in found.errors),
    ]
    run.result(found.as_json(), "\n".join(lines))


def _again(n: int) -> list[str]:
    """Why fewer pairs than accepted rows are there."""
    if not n:
        return []
    return [
        f"{n:,} of the accepted {'repeats' if n == 1 else 'repeat'} a pair of an earlier row for another stratum, tag or verdict: "
        "a pair is counted once, and in each of its strata"
    ]


@verb(app, "cut")
def cut(
    run: Run,
    name: New,
    snapshot: Annotated[str, typer.Option(help="Snapshot: name (its latest cut) or name@2.", metavar="S")],
    split: Annotated[str, typer.Option(help="test (held out) or train (never held out).")] = "test",
    not_held_out: NotHeldOut = False,
) -> None:
    """Freeze the judged pairs of a snapshot's side; strata are the sources."""
    from rlhf import suites

    made = suites.cut(run.workspace(), name, snapshot=snapshot, split=split, held_out=not not_held_out)
    entry = made.entry
    value = {**entry.as_json(), "strata": dict(made.strata), "left_out": made.manifest["left_out"]}
    run.result(value, f"{entry.ref}: {entry.n_pairs:,} pairs, {_held(entry)}, sha256:{entry.digest[:12]}")


@verb(app, "counterfactual")
def counterfactual(
    run: Run,
    name: New,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="TEMPLATES…", help="YAML: attribute, groups, templates.", show_default=False),
    ],
    not_held_out: NotHeldOut = False,
) -> None:
    """Freeze templates once for each group, the same text but for the swap: `evaluate --suite` tells the gap in reward."""
    from rlhf import suites

    made = suites.generate(run.workspace(), name, files, held_out=not not_held_out)
    entry = made.suite.entry
    lines = [
        f"{entry.ref}: {made.rows:,} rows of {made.templates:,} templates, {_held(entry)}, sha256:{entry.digest[:12]}",
        *(f"  {attribute}: {', '.join(groups)}" for attribute, groups in made.groups.items()),
    ]
    run.result(made.as_json(), "\n".join(lines))


@verb(app, "list")
def list_(run: Run) -> None:
    """Every suite, with its size and digest."""
    from rlhf import suites

    entries = suites.list_suites(run.workspace())
    width = max((len(entry.ref) for entry in entries), default=0)
    lines = [
        f"{e.ref:<{width}}  {e.n_pairs:>9,} pairs  {e.n_prompts:>8,} prompts  sha256:{e.digest[:12]}  "
        f"{e.created_at[:19]}  {_held(e)}"
        for e in entries
    ]
    run.result({"suites": [entry.as_json() for entry in entries]}, "\n".join(lines) or "no suites yet")


@verb(app, "show")
def show(run: Run, name: Name) -> None:
    """Check a suite against its digest and print its counts."""
    from rlhf import suites

    opened = suites.open_suite(run.workspace(), name)
    manifest = opened.manifest
    lines = [
        f"{opened.ref}: {manifest['pairs']:,} pairs, {manifest['prompts']:,} prompts alone, "
        f"{manifest['openings']:,} opening turns, {_held(opened.entry)}",
        f"sha256:{opened.digest}",
        *(f"  {name:<24} {n:>7,}" for name, n in manifest["strata"].items()),
        *(
            f"  {attribute + ': ' + value:<24} {n:>7,}"
            for attribute, values in manifest.get("tags", {}).items()
            for value, n in values.items()
        ),
    ]
    if opened.n_erased:
        lines.append(f"{opened.n_erased:,} rows were erased: it can't be measured on any more")
    run.result({**manifest, "ref": opened.ref, "path": str(opened.path)}, "\n".join(lines))


@verb(app, "check")
def check(run: Run, name: Name) -> None:
    """Check every row, and count those that the train side of each snapshot knows."""
    from rlhf import suites

    workspace = run.workspace()
    opened = suites.open_suite(workspace, name)
    rows = list(opened.groups())
    n_checked = sum(1 for _ in opened.rows())
    found = {side.ref: suites.seen_in(rows, [side]) for side in suites.train_sides(workspace).values()}
    overlaps = {
        ref: {
            "rows": len(seen),
            "same_pair": sum(one.same_pair for one in seen),
            "examples": [one.pair_id for one in seen[:_SHOWN]],
        }
        for ref, seen in found.items()
    }
    lines = [f"{opened.ref}: {n_checked:,} rows, every one verified, {_held(opened.entry)}"]
    lines += [
        f"  {ref}: {o['rows']:,} rows share their opening turn with its train side, {o['same_pair']:,} are the same pair"
        for ref, o in overlaps.items()
    ]
    run.result(
        {
            "suite": opened.ref,
            "digest": opened.digest,
            "held_out": opened.entry.held_out,
            "rows": n_checked,
            "overlaps": overlaps,
        },
        "\n".join(lines),
    )


def _held(entry: SuiteEntry) -> str:
    from rlhf.suites.names import is_train_side

    if is_train_side(entry.origin):
        return f"not held out: the train side of {entry.origin['snapshot']}"
    return "held out" if entry.held_out else "not held out"
