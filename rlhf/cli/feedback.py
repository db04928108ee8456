"""`rlhf feedback`: import files, look at pairs, export them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from rlhf.cli.boundary import Run, verb

if TYPE_CHECKING:
    from rlhf.erasure import Erasure
    from rlhf.records import Kind, Receipt

app = typer.Typer(
    no_args_is_help=True,
    help="Preferences in and out: import, list, show, export, erase, expire.",
    rich_markup_mode=None,
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
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, the newest first.")] = 50,
) -> None:
    """List pairs, the newest first."""
    from rlhf import feedback

    workspace = run.workspace()
    lines = feedback.list_pairs(workspace, source=source, limit=limit)
    totals = feedback.sources(workspace)
    text = [
        f"{line.id[:12]}  {_votes(line.votes):<18} {line.opening}{_marked(line.kinds)}  [{', '.join(line.sources)}]"
        + _masked(line.masked)
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
    text += [f"personal data replaced: {_kinds(page.masked)}"] if page.masked else []
    run.result(page.as_json(), "\n".join(text))


@verb(app, "export")
def export(
    run: Run,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to: .jsonl, .csv (also .gz) or .parquet.")],
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
                f"{r.rejected:,} rejected{', ' * bool(r.unjudged)}{_waiting(r)}{_masked(r.masked)}"
                for r in found
            )
            or "no imports yet"
        )
    run.result({"imports": [receipt.as_json() for receipt in found]}, text)


@verb(app, "erase")
def erase(
    run: Run,
    labeler: Annotated[str | None, typer.Option(help="A labeler, by pseudonym: everything they said.")] = None,
    subject: Annotated[str | None, typer.Option(help="A person whose words prompts hold: every such pair.")] = None,
    pair: Annotated[str | None, typer.Option(help="One pair, by 12 or more digits of its id.")] = None,
    source: Annotated[str | None, typer.Option(help="The labeler's source, where the name stands in several.")] = None,
    why: Annotated[str, typer.Option(help="For the audit log; don't name the person.")] = "",
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Queue new cuts, and trainings of the rewards that had learnt from it.")
    ] = False,
) -> None:
    """Erase a labeler, a subject or a pair from the whole workspace, for good, and list what had learnt from them."""
    from rlhf import erasure
    from rlhf.errors import BadUsage

    asked = [(what, value) for what, value in (("labeler", labeler), ("subject", subject), ("pair", pair)) if value]
    if len(asked) != 1:
        raise BadUsage("one of --labeler, --subject and --pair was wanted", fix="name one: what is erased is gone")
    if source is not None and not labeler:
        raise BadUsage("--source goes with --labeler", fix="leave it out: a subject and a pair are the workspace's")
    workspace = run.workspace()
    done = erasure.erase(workspace, cast("Any", asked[0][0]), asked[0][1], source=source, why=why, say=run.say)
    queued = erasure.queue_retraining(workspace, done.touched) if retrain else ()
    run.result({**done.as_json(), "jobs": [job.id for job in queued]}, _erasure_text(done, [job.id for job in queued]))


def _erasure_text(done: Erasure, jobs: list[str]) -> str:
    counts = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in done.counts.items() if n)
    key = f" (tombstone {done.tombstone[:12]})" if done.tombstone else ""
    lines = [f"erased: {counts or 'nothing that was left'}{key}"]
    lines += [f"{ref}: {n:,} rows; it can't be read any more, cut it again" for ref, n in done.rows.items()]
    if done.files:
        lines.append(f"{len(done.files)} files held the words: {', '.join(done.files[:5])}")
    if done.touched.versions:
        lines.append(f"had learnt from it: {', '.join(done.touched.versions)}")
    lines += [f"  {alias} points at {version}" for alias, version in done.touched.aliases.items()]
    if done.copies:
        lines.append(
            "exports and backups made until now; copies outside the workspace are beyond reach: "
            + ", ".join(done.copies[:10])
        )
    if not done.is_out_of_free_pages:
        lines.append("a reader kept the database's log from being emptied: run the same command again once it is done")
    if jobs:
        lines.append(f"queued: {', '.join(jobs)}; they run with: rlhf run work")
    return "\n".join(lines)


@verb(app, "retain")
def retain(
    run: Run,
    source: Annotated[str | None, typer.Argument(help="Whose feedback; without it, the limits in force.")] = None,
    days: Annotated[str | None, typer.Argument(help="For how many days it is kept; off = for ever again.")] = None,
    why: Annotated[str, typer.Option(help="For whoever reads the history.")] = "",
) -> None:
    """Limit how long a source's feedback is kept. `rlhf feedback expire` erases what is over."""
    from rlhf import erasure
    from rlhf.errors import BadUsage

    workspace = run.workspace()
    if source is not None:
        if days is None or not (days == "off" or days.isdecimal()):
            raise BadUsage(f"{days or 'nothing'!r:.60} is no number of days", fix="give a whole number of days, or off")
        erasure.set_limit(workspace, source, None if days == "off" else int(days[:9]), why=why)
    found = erasure.limits(workspace)
    lines = [f"{limit.source}: {limit.days:,} days; {limit.who}: {limit.why} ({limit.at[:10]})" for limit in found]
    run.result({"limits": [limit.as_json() for limit in found]}, "\n".join(lines) or "every source is kept for ever")


@verb(app, "expire")
def expire(
    run: Run,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is over; erase nothing.")] = False,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Queue new cuts, and trainings of the rewards that had learnt from it.")
    ] = False,
) -> None:
    """Erase what is over its source's limit, from the whole workspace and for good, and list what had learnt from it."""
    from rlhf import erasure

    workspace = run.workspace()
    if dry_run:
        over = erasure.expired(workspace)
        counts = {"pairs": len(over.pair_ids), "judgements": over.n_judgements, "comments": len(over.comments)}
        said = ", ".join(f"{n:,} {name}" for name, n in counts.items())
        run.result({"dry_run": True, **counts}, f"over their limits: {said}; nothing was erased")
        return
    done = erasure.expire(workspace, say=run.say)
    if done is None:
        run.result({"pairs": 0, "judgements": 0, "comments": 0, "jobs": []}, "nothing is over its limit")
        return
    queued = erasure.queue_retraining(workspace, done.touched) if retrain else ()
    run.result({**done.as_json(), "jobs": [job.id for job in queued]}, _erasure_text(done, [job.id for job in queued]))


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
    if receipt.unjudged:
        lines.append(_waiting(receipt))
    if receipt.masked:
        lines.append(f"personal data replaced: {_kinds(receipt.masked)}")
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


def _waiting(receipt: Receipt) -> str:
    one = receipt.unjudged == 1
    said = f"{receipt.unjudged:,} pair{'' if one else 's'} without votes wait{'s' if one else ''} to be labeled"
    return said if receipt.unjudged else ""


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


def _kinds(masked: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(masked.items()))


def _masked(masked: Mapping[str, int]) -> str:
    return f"  (replaced: {_kinds(masked)})" if masked else ""


def _marked(kinds: tuple[str, ...]) -> str:
    return "".join(f" <{kind}>" for kind in kinds if kind != "human")
