"""`rlhf label rules|gold|paused|appeals|pause|resume|uphold|cohorts`: how labelers are asked, checked and told apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf.cli.boundary import Run, verb

if TYPE_CHECKING:
    from rlhf.labeling import Entry

gold_app = typer.Typer(help="Gold pairs: pairs whose answer is known.", no_args_is_help=True)

Why = Annotated[str, typer.Option("--why", help="Why; the labeler and the history read it.")]
Labeler = Annotated[str, typer.Argument(help="The labeler's pseudonym.")]
Overlap = Annotated[
    int, typer.Option("--overlap", min=1, max=1000, help="People a pair, for the sentence that labelers read.")
]


def register(label_app: typer.Typer) -> None:
    """Hang these verbs into `rlhf label`."""
    for name, function in (
        ("rules", rules),
        ("pause", pause),
        ("paused", paused),
        ("appeals", appeals),
        ("resume", resume),
        ("uphold", uphold),
        ("cohorts", cohorts),
    ):
        verb(label_app, name)(function)
    label_app.add_typer(gold_app, name="gold")


def rules(
    run: Run,
    words: Annotated[list[str] | None, typer.Argument(metavar="[key=value ...]", help="Rules to change.")] = None,
    why: Annotated[str, typer.Option("--why", help="Why they change; wanted with key=value.")] = "",
    overlap: Overlap = 1,
) -> None:
    """Show the rules of labeling, or change some: further opinions, reviews, checks and pauses."""
    from rlhf import labeling
    from rlhf.config import to_yaml

    workspace = run.workspace(make=bool(words))
    entry = labeling.set_rules(workspace, words, why) if words else labeling.rules_of(workspace)
    told = labeling.in_words(entry.rules, overlap)
    set_by = f"set by {entry.who} at {entry.at[:19]}: {entry.why}" if entry.seq else "as they come"
    run.result({**entry.as_json(), "in_words": told}, f"{to_yaml(entry.rules)}{set_by}\nlabelers read: {told}")


@verb(gold_app, "add")
def gold_add(
    run: Run,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help='Lines of {"prompt", "a", "b", "gold": "a", "b" or "tie"}.')
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", help="Pairs of this source that say a gold answer.", metavar="S")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, max=100_000, help="With --source: so many of them, by chance.")
    ] = None,
) -> None:
    """Make pairs gold: their answer is known, they check labelers, and what is answered to them trains nothing."""
    from rlhf import labeling
    from rlhf.errors import BadUsage

    if (file is None) == (source is None):
        raise BadUsage("gold pairs come from a FILE or from --source S, one of the two", fix="give one")
    workspace = run.workspace(make=file is not None)
    if file is not None:
        receipt, added = labeling.gold.add_file(workspace, file)
        for bad in receipt.errors:
            run.say(f"{receipt.place_of(bad)}: {bad.reason}")
    else:
        added = labeling.gold.add_source(workspace, str(source), limit=limit)
    n_gold = len(labeling.gold.list_gold(workspace))
    run.result({"added": added, "gold": n_gold}, f"{added} new gold pair(s), {n_gold} in all")


@verb(gold_app, "list")
def gold_list(run: Run) -> None:
    """Every gold pair: its answer, how often it was answered, and how often so."""
    from rlhf import labeling

    found = labeling.gold.list_gold(run.workspace())
    lines = [f"{'pair':<14} {'gold':<5} {'answers':>7} {'as known':>8}"]
    lines += [f"{one.pair_id[:12]:<14} {one.choice:<5} {one.n:>7} {one.n_right:>8}" for one in found]
    text = "\n".join(lines) if found else "no pair is gold; bring some: rlhf label gold add FILE"
    run.result({"gold": [one.as_json() for one in found]}, text)


@verb(gold_app, "remove")
def gold_remove(run: Run, pair: Annotated[str, typer.Argument(help="The pair's id, or its beginning.")]) -> None:
    """From here on the pair is like any other, and in the queue."""
    from rlhf import labeling

    removed = labeling.gold.remove(run.workspace(), pair)
    run.result({"removed": removed}, f"{removed[:12]} is no gold pair any more")


def pause(run: Run, labeler: Labeler, why: Why) -> None:
    """Pause a labeler by hand; they read why, and can appeal."""
    from rlhf import labeling

    entry = labeling.pause(run.workspace(), labeler, why)
    run.result(entry.as_json(), f"{labeler} is paused")


def paused(run: Run) -> None:
    """Who is paused, since when, and why; appeals with their text."""
    from rlhf import labeling

    _list(run, labeling.paused(run.workspace()), "nobody is paused")


def appeals(run: Run) -> None:
    """Appeals that wait for a decision, the oldest first."""
    from rlhf import labeling

    waiting = [log for log in labeling.paused(run.workspace()) if log[-1].action == "appeal"]
    _list(run, waiting, "no appeal waits")


def resume(run: Run, labeler: Labeler, why: Why) -> None:
    """End a pause. What was checked before doesn't count against the labeler again."""
    from rlhf import labeling

    entry = labeling.decide(run.workspace(), labeler, "resume", why)
    run.result(entry.as_json(), f"{labeler} labels again")


def uphold(run: Run, labeler: Labeler, why: Why) -> None:
    """Leave a labeler paused, and tell them why."""
    from rlhf import labeling

    entry = labeling.decide(run.workspace(), labeler, "uphold", why)
    run.result(entry.as_json(), f"{labeler} stays paused")


def cohorts(
    run: Run,
    source: Annotated[str, typer.Option("--source", help="Whose people.", metavar="S")] = "web",
    target: Annotated[
        Path | None, typer.Option("--target", metavar="FILE.yaml", help="Shares wanted, as lines of `cohort: share`.")
    ] = None,
) -> None:
    """What the cohorts of a source choose, how far they agree, and how many they are; small ones are hidden."""
    from rlhf import labeling
    from rlhf.labeling.cohorts import MIN_PEOPLE, read_target

    wanted = read_target(target) if target else None
    found = labeling.cohorts(run.workspace(), source, target=wanted)
    lines = [
        f"{found.n_answers:,} answers of {found.n_people:,} people in the source '{found.source}'; a person may be in several",
        f"{'cohort':<16} {'people':>7} {'answers':>8} {'choice':>7} {'tie':>6} {'bad':>6} {'within':>19} {'across':>19} "
        f"{'of people':>19}" + (f" {'target':>7}" if wanted else ""),
    ]
    for one in found.cohorts:
        shares = one.choices
        aim = "" if not wanted else f" {'-' if one.target is None else f'{one.target:.2f}':>7}{' off' * one.is_off}"
        lines.append(
            f"{one.name:<16.16} {one.n_people:>7,} {one.n_answers:>8,} {shares['choice']:>7.2f} {shares['tie']:>6.2f} "
            f"{shares['both_bad']:>6.2f} {_interval(one.within, one.within_interval):>19} "
            f"{_interval(one.across, one.across_interval):>19} {_interval(one.share, one.share_interval):>19}{aim}"
        )
    if found.hidden:
        lines.append(
            f"hidden: {', '.join(found.hidden)} (fewer than {MIN_PEOPLE} people, or what would give such a cohort away)"
        )
    if found.absent:
        lines.append(f"in the target, and nobody here: {', '.join(found.absent)}")
    run.result(found.as_json(), "\n".join(lines))


def _list(run: Run, logs: list[list[Entry]], nobody: str) -> None:
    lines = [f"{log[0].labeler:<20} {e.action:<7} {e.at[:19]}  {e.who}: {e.why}" for log in logs for e in log]
    paused = [{"labeler": log[0].labeler, "entries": [e.as_json() for e in log]} for log in logs]
    run.result({"paused": paused}, "\n".join(lines) or nobody)


def _interval(value: float | None, ends: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" + ("" if ends is None else f" [{ends[0]:.2f}, {ends[1]:.2f}]")
