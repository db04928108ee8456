"""`rlhf feedback`: import files, look at pairs, export them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, cast

import typer

from rlhf.cli.boundary import Run, verb

if TYPE_CHECKING:
    from rlhf.records import Kind, Receipt

app = typer.Typer(
    no_args_is_help=True, help="Preferences in and out: import, list, show, export.", rich_markup_mode=None
)
_ERRORS_SHOWN = 5
_CUT_SHORT = "cut short: import the file again"


@verb(app, "import")
def import_(
    run: Run,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Files, plain or .gz, or hub:owner/name[@revision][:split].")
    ],
    format: Annotated[
        str | None, typer.Option(help="Format of the files; found by itself unless given. See: rlhf feedback formats")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Name of the source; the first file's name unless given.")] = None,
    consent: Annotated[
        list[str] | None,
        typer.Option(
            help="What the judgements may be used for: train, evaluate, publish (comma-separated) "
            "or none; train,evaluate unless given."
        ),
    ] = None,
    kind: Annotated[str, typer.Option(help="Who judged: human, simulated, model or served.")] = "human",
    strict: Annotated[bool, typer.Option("--strict", help="Refuse everything when one row is bad.")] = False,
) -> None:
    """Import feedback files and account for every row."""
    from rlhf import feedback

    _say_broken_formats(run, format)

    def progress(rows: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{rows:,} rows", end="", file=sys.stderr, flush=True)

    receipt = feedback.import_files(
        run.workspace(make=True),
        files,
        format=format,
        source=source,
        consent=consent or ("train", "evaluate"),
        kind=cast("Kind", kind),
        strict=strict,
        on_progress=progress,
    )
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    run.result(receipt.as_json(), _receipt_text(receipt))


@verb(app, "list")
def list_(
    run: Run,
    source: Annotated[str | None, typer.Option(help="Only pairs of this source.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 50,
) -> None:
    """List pairs, the newest first."""
    from rlhf import feedback

    workspace = run.workspace()
    lines = feedback.list_pairs(workspace, source=source, limit=limit)
    totals = feedback.sources(workspace)
    text = [
        f"{line.id[:12]}  {_votes(line.votes):<18} {line.opening}{_marked(line.kinds)}  [{', '.join(line.sources)}]"
        for line in lines
    ]
    text.append(
        "\nsources: " + (", ".join(f"{name} ({count:,} pairs)" for name, count in totals.items()) or "none yet")
    )
    run.result({"pairs": [line.as_json() for line in lines], "sources": totals}, "\n".join(text).lstrip())


@verb(app, "show")
def show(
    run: Run, id: Annotated[str, typer.Argument(metavar="ID", help="A pair's id, or enough of its beginning.")]
) -> None:
    """Show one pair with all its judgements."""
    from rlhf import feedback

    page = feedback.show_pair(run.workspace(), id)
    text = [f"pair {page.id}"]
    if page.pair is None:
        text.append("(erased)")
    else:
        text += [f"\n{turn.role}: {turn.content}" for turn in page.pair.prompt]
        text += [f"\n--- a ---\n{page.pair.reply_a}", f"\n--- b ---\n{page.pair.reply_b}\n"]
    text += [
        f"source {name}" + "".join(f", {key}: {value}" for key, value in about.items())
        for name, about in page.sources.items()
    ]
    for judgement_id, j, current in page.judgements:
        who = f"{j.labeler or 'unknown labeler'} ({j.source})" + ("" if j.kind == "human" else f", {j.kind}")
        text.append(
            f"{judgement_id}  {j.choice:<8} {who}"
            + (f", strength {j.strength}" if j.strength else "")
            + (f": {j.note}" if j.note else "")
            + ("" if current else "  [no longer in force]")
        )
    run.result(page.as_json(), "\n".join(text))


@verb(app, "export")
def export(
    run: Run,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to: .jsonl, .csv (also .gz) or .parquet.")],
    source: Annotated[str | None, typer.Option(help="Only what this source says.")] = None,
) -> None:
    """Write TRL rows, and ties, skips and unjudged pairs to a file beside."""
    from rlhf import feedback

    counts = feedback.export(run.workspace(), file, source=source)
    run.result(
        counts,
        f"{counts['decided']:,} rows in {counts['file']}\n{counts['tie']:,} ties, {counts['both_bad']:,} both bad, "
        f"{counts['skip']:,} "
        f"skips and {counts['unjudged']:,} pairs without a judgement in {counts['undecided_file']}",
    )


@verb(app, "receipts")
def receipts(
    run: Run,
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One import, with all its bad rows.")] = None,
) -> None:
    """List imports and what became of their rows."""
    from rlhf import feedback

    found = feedback.receipts(run.workspace(), id=id, errors=10_000_000 if id else 0)
    if id:
        text = _receipt_text(found[0], shown=len(found[0].errors))
    else:
        text = (
            "\n".join(
                f"{r.id}  {_state(r):<8} {r.source}: {r.rows:,} rows, {r.accepted:,} accepted, "
                f"{r.duplicates:,} duplicates, "
                f"{r.rejected:,} rejected"
                for r in found
            )
            or "no imports yet"
        )
    run.result({"imports": [receipt.as_json() for receipt in found]}, text)


@verb(app, "formats")
def formats(run: Run) -> None:
    """List the formats that can be imported."""
    from rlhf.feedback.formats import available

    _say_broken_formats(run, None)
    run.result(
        {"formats": {name: f.summary for name, f in available().items()}},
        "\n".join(f"{name:<9} {f.summary}" for name, f in available().items()),
    )


def _receipt_text(receipt: Receipt, shown: int = _ERRORS_SHOWN) -> str:
    """What became of the rows, for people."""
    lines = [
        f"{receipt.source}: {receipt.rows:,} rows of {receipt.format}",
        f"  accepted    {receipt.accepted:>9,}",
        f"  duplicates  {receipt.duplicates:>9,}",
        f"  rejected    {receipt.rejected:>9,}",
    ]
    new = [
        f"{count:,} {name}"
        for name, count in (
            ("pairs", receipt.pairs),
            ("judgements", receipt.judgements),
            ("comments", receipt.comments),
        )
        if count
    ]
    lines.append("new: " + (", ".join(new) or "nothing"))
    if receipt.masked:
        lines.append(
            "personal data replaced: " + ", ".join(f"{count:,} {name}" for name, count in receipt.masked.items())
        )
    if receipt.pairs_merged:
        lines.append(f"{receipt.pairs_merged:,} rows that describe a pair describe one that was there already")
    if receipt.state == "open":
        lines.append(_state(receipt))
    lines += [f"  {receipt.place_of(e)}: {e.reason}" for e in receipt.errors[:shown]]
    bad = receipt.rejected + receipt.pair_errors
    if bad > len(receipt.errors[:shown]) and receipt.state != "refused":
        lines.append(
            f"  … and {bad - len(receipt.errors[:shown]):,} more; all of them: rlhf feedback receipts {receipt.id}"
        )
    return "\n".join(lines)


def _state(receipt: Receipt) -> str:
    if receipt.state != "open":
        return receipt.state
    return f"cut short, imported later as {receipt.imported_as}" if receipt.imported_as else _CUT_SHORT


def _say_broken_formats(run: Run, asked: str | None) -> None:
    """Name the formats that are passed over; the one that was asked for is refused with the same reason."""
    from rlhf.feedback.formats import broken

    for name, reason in broken().items():
        if name != asked:
            run.say(f"the format '{name}' is passed over: {reason}")


def _votes(votes: dict[str, int]) -> str:
    return " ".join(f"{choice}:{count}" for choice, count in sorted(votes.items())) or "no votes"


def _marked(kinds: tuple[str, ...]) -> str:
    return "".join(f" <{kind}>" for kind in kinds if kind != "human")
