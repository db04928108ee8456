"""`rlhf backup`, `rlhf restore` and `rlhf gc`: keeping a workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlhf.cli.boundary import Run, verb
from rlhf.cli.counting import counting

_SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the top-level commands."""
    verb(app, "backup")(backup)
    verb(app, "restore")(restore)
    verb(app, "gc")(gc)


def backup(
    run: Run,
    target: Annotated[
        Path, typer.Argument(help="A folder to make, or a file that ends in .tar.", metavar="FILE_OR_DIR")
    ],
) -> None:
    """Copy the workspace while it is in use; the copy is as secret as the workspace."""
    from rlhf.store.backup import back_up

    made = back_up(run.workspace(), target, on_progress=counting("copied", "published files"))
    lines = [f"{made.path}  {made.files} files, {_mib(made.n_bytes)}, sha256:{made.digest[:12]}"]
    lines += [f"  left out: {what}" for what in made.left_out]
    run.result(made.as_json(), "\n".join(lines))
    run.say("what is erased from the workspace later is still in this backup, and comes back with it; so does its key")


def restore(
    run: Run,
    source: Annotated[Path, typer.Argument(help="What rlhf backup wrote.", metavar="BACKUP")],
) -> None:
    """Make the workspace of a backup at --workspace, a folder that isn't there yet or is empty; every byte is checked."""
    from rlhf.store.restoring import restore as bring_back

    made = bring_back(source, run.workspace_dir, on_progress=counting("checked", "files"))
    said = f"{made.root}  {made.files} files, {_mib(made.n_bytes)}, as of {made.made_at[:19]}"
    run.result(made.as_json(), "\n".join([said, *(f"  was left out: {what}" for what in made.left_out)]))
    run.say("what was erased after the backup is here again: erase it again")


def gc(
    run: Run,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    states_gib: Annotated[
        float, typer.Option(help="Kept states of frozen trunks above this many GiB go, read longest ago first.", min=0)
    ] = 8.0,
    budget: Annotated[
        str | None,
        typer.Option(help="First give the workspace a disk budget (20GiB), or take it off (off).", metavar="SIZE"),
    ] = None,
    to_budget: Annotated[
        bool,
        typer.Option("--to-budget", help="Until the budget is met, caches go too, then files of retired versions."),
    ] = False,
) -> None:
    """Remove what crashes left and what can be made again; never a version in use, a snapshot or a report."""
    from rlhf.store import room
    from rlhf.store.sweeping import sweep
    from rlhf.store.thinning import thin

    workspace = run.workspace()
    if budget is not None:
        room.set_budget(workspace, room.parsed(budget))
    swept = (thin if to_budget else sweep)(workspace, dry_run=dry_run, states_gib=states_gib)
    standing = room.room_of(workspace)
    lines = []
    for name, kind in swept.kinds.items():
        lines.append(f"{name:<12} {len(kind.paths):>6}  {_mib(kind.n_bytes)}")
        lines += [f"  {path}" for path in kind.paths[:_SHOWN]]
        lines += [f"  and {len(kind.paths) - _SHOWN} more"] * (len(kind.paths) > _SHOWN)
    lines.append(f"{'would go' if dry_run else 'gone':<12} {'':>6}  {_mib(swept.n_bytes)}")
    lines += [f"no version uses the base {name} ({_mib(n)}); it stays" for name, n in swept.unused_bases.items()]
    over = 0 if standing.budget is None else standing.used - standing.budget - dry_run * swept.n_bytes
    lines.append(str(standing))
    lines += [f"that is still {room.in_words(over)} over the budget: raise it, or retire versions"] * (over > 0)
    run.result({**swept.as_json(), "room": standing.as_json()}, "\n".join(lines))


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.1f} MiB"
