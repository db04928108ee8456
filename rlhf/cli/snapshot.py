"""`rlhf snapshot …`: cut, list, show, check, diff, export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf.cli.boundary import Run, verb

if TYPE_CHECKING:
    from rlhf.records import SnapshotRow
    from rlhf.snapshots import Finding, SnapshotCheck
    from rlhf.store import Workspace

app = typer.Typer(no_args_is_help=True, help="Freeze judged pairs as datasets with a digest.", rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="name (latest cut), name@2 or sha256:…", show_default=False)]


@verb(app, "cut")
def cut(
    run: Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Cut again, it becomes NAME@2.", show_default=False)],
    source: Annotated[
        list[str] | None, typer.Option("--source", metavar="S", help="Only this source; may be repeated. Default: all.")
    ] = None,
    holdout: Annotated[float, typer.Option(help="Share of opening turns that is held out, from 0 to below 1.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of the split's hash.")] = 0,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="K", help="Only human, simulated, model or served judgements; may be repeated."),
    ] = None,
) -> None:
    """Freeze the judged pairs, split by a hash of their opening turn."""
    from rlhf import snapshots

    made = snapshots.cut(run.workspace(), name, sources=source or (), holdout=holdout, seed=seed, kinds=kind or ())
    value = {
        "name": made.name,
        "ref": made.ref,
        "number": made.number,
        "digest": made.digest,
        "pairs": made.n_pairs,
        "splits": dict(made.splits),
        "left_out": made.manifest["left_out"],
        "path": str(made.path),
    }
    text = (
        f"{made.ref}: {made.n_pairs:,} pairs, {made.splits['train']:,} train, {made.splits['test']:,} test, "
        f"sha256:{made.digest[:12]}"
    )
    left_out = [f"{n:,} {reason.replace('_', ' ')}" for reason, n in made.manifest["left_out"].items() if n]
    run.result(value, text + (f"\nleft out: {', '.join(left_out)}" if left_out else ""))


@verb(app, "list")
def list_(run: Run) -> None:
    """Every cut, with its size and digest."""
    from rlhf import snapshots

    entries = snapshots.list_snapshots(run.workspace())
    width = max((len(entry.ref) for entry in entries), default=0)
    lines = [
        f"{e.ref:<{width}}  {e.n_pairs:>9,} pairs  {e.splits['train']:>9,} train  {e.splits['test']:>8,} test  "
        f"sha256:{e.digest[:12]}  {e.created_at[:19]}"
        for e in entries
    ]
    run.result({"snapshots": [entry.as_json() for entry in entries]}, "\n".join(lines) or "no snapshots yet")


@verb(app, "show")
def show(run: Run, name: Name) -> None:
    """Check a snapshot against its digest and print its datasheet."""
    from rlhf import snapshots

    opened = snapshots.open_snapshot(run.workspace(), name)
    value = {**opened.manifest, "ref": opened.ref, "path": str(opened.path), "card": opened.card}
    run.result(value, opened.card.rstrip())


@verb(app, "check")
def check(
    run: Run,
    name: Name,
    base: Annotated[str | None, typer.Option("--base", metavar="B", help="Count tokens as this base does.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="With --base: pairs above it are too long.")] = 1024,
) -> None:
    """Count train/test leaks, contradictions, near-duplicates and too-long pairs."""
    from rlhf import snapshots

    workspace = run.workspace()
    count_tokens = _token_counter(workspace, base) if base else None
    found = snapshots.check(workspace, name, count_tokens=count_tokens, max_tokens=max_tokens)
    run.result(found.as_json(), _check_text(found))


@verb(app, "diff")
def diff(
    run: Run,
    a: Annotated[str, typer.Argument(metavar="A", help="The earlier snapshot.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="The later snapshot.", show_default=False)],
) -> None:
    """What differs from A to B: rows, sides, judgements, sources."""
    from rlhf import snapshots

    found = snapshots.diff(run.workspace(), a, b)
    lines = [
        f"{found.before} -> {found.after}: {'the same rows' if found.same_digest else 'different'}",
        f"{found.unchanged:>9,} unchanged",
    ]
    lines += [
        f"{n:>9,} {change.replace('_', ' ')}{_such_as(found.examples[change])}" for change, n in found.counts.items()
    ]
    run.result(found.as_json(), "\n".join(lines))


@verb(app, "export")
def export(
    run: Run,
    name: Name,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help=".jsonl, .csv or .parquet; .gz may follow.", show_default=False)
    ],
) -> None:
    """Write TRL preference rows: prompt, chosen, rejected, split, labeler, source."""
    from rlhf import snapshots

    written = snapshots.export(run.workspace(), name, file)
    beside = f"; {written.undecided:,} undecided in {written.undecided_file}" if written.undecided else ""
    run.result(written.as_json(), f"{written.rows:,} rows in {written.file}{beside}")


def _token_counter(workspace: Workspace, base: str) -> Callable[[SnapshotRow], int]:
    from rlhf.engine import token_counter

    return token_counter(workspace, base)


def _check_text(found: SnapshotCheck) -> str:
    lines = [f"{found.snapshot}: {found.pairs:,} pairs, every row verified"]
    for title, findings in (("leaks", found.leaks), ("contradictions", found.contradictions), ("copies", found.copies)):
        lines += [f"{title}:", *(_finding_text(finding) for finding in findings.values())]
    lines.append("lengths:")
    lines += [
        f"  {name.replace('_', ' ')}: mean {s['mean']:,.0f}, median {s['median']:,.0f}, 95 % {s['p95']:,.0f}, "
        f"max {s['max']:,.0f}"
        for name, s in found.lengths.items()
    ]
    too_long = _finding_text(found.too_long) if found.too_long else f"  not counted: {found.too_long_reason}"
    lines += ["too long:", too_long]
    if found.searched < found.pairs:
        lines.append(f"near-duplicates were looked for among {found.searched:,} of the pairs")
    return "\n".join(lines)


def _finding_text(finding: Finding) -> str:
    return f"  {finding.count:>7,} {finding.what}{_such_as(finding.examples)}"


def _such_as(ids: tuple[str, ...]) -> str:
    return f" (such as {ids[0][:12]})" if ids else ""
