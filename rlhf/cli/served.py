"""`rlhf served`: what users said of served replies, from quarantine into the feedback that trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhf.cli.boundary import Run, verb

if TYPE_CHECKING:
    from rlhf.serving.confirming import Vote

app = typer.Typer(
    help="Served replies: sample what users said, confirm or refuse it, label pairs.", no_args_is_help=True
)

Ids = Annotated[list[str], typer.Argument(metavar="ID…", help="Ids of sampled votes, from the list.")]


@verb(app, "list")
def list_(
    run: Run,
    state: Annotated[str, typer.Option("--state", help="quarantined, sampled, confirmed or refused.")] = "sampled",
) -> None:
    """Votes on replies whose words were kept."""
    from rlhf.serving import confirming

    workspace = run.workspace()
    votes = confirming.list_votes(workspace, state)
    waiting = len(confirming.list_votes(workspace, "quarantined")) if state == "sampled" and not votes else 0
    _show(run, votes, none=f"none sampled; {waiting} wait: rlhf served sample" if waiting else "no votes")


@verb(app, "sample")
def sample(
    run: Run,
    n: Annotated[int, typer.Option("--n", min=1, help="How many at most.")] = 20,
    per_unit: Annotated[int, typer.Option("--per-user", min=1, help="Votes of one user among all ever drawn.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw.")] = 0,
) -> None:
    """Draw votes out of the quarantine, to be looked at."""
    from rlhf.serving import confirming

    _show(run, confirming.sample(run.workspace(), n, per_unit=per_unit, seed=seed))


@verb(app, "confirm")
def confirm(run: Run, ids: Ids) -> None:
    """Let sampled votes in: from here on snapshots may hold them, under the source `served`."""
    from rlhf.serving import confirming

    done = confirming.confirm(run.workspace(), ids)
    lines = [f"{done.accepted} in, {done.duplicates} were there, {len(done.rejected)} rejected; {done.pairs} new pairs"]
    lines += [f"  {one}: {reason}" for one, reason in done.rejected.items()]
    run.result(done.as_json(), "\n".join(lines))


@verb(app, "refuse")
def refuse(
    run: Run, ids: Ids, why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the log.")]
) -> None:
    """Leave sampled votes out for good."""
    from rlhf.serving import confirming

    n = confirming.refuse(run.workspace(), ids, why=why)
    run.result({"refused": n}, f"{n} votes train nothing")


@verb(app, "label")
def label(
    run: Run, limit: Annotated[int, typer.Option("--limit", min=1, help="How many pairs at most.")] = 100
) -> None:
    """Put pairs of served replies to one prompt into the labelers' queue."""
    from rlhf.serving import unjudged

    n = unjudged.to_label(run.workspace(), limit)
    run.result({"pairs": n}, f"{n} new pairs wait for labelers")


@verb(app, "forget")
def forget(
    run: Run,
    user: Annotated[str, typer.Argument(help="The user, as requests named them (`user`, else `session`).")],
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the log.")] = "",
) -> None:
    """Erase a served user: their words in served replies, in pairs and judgements that came of them, everywhere."""
    from rlhf.erasure import erase
    from rlhf.errors import NotFound
    from rlhf.feedback.served_words import SERVED, name_of
    from rlhf.serving import pseudonym

    workspace = run.workspace()
    name = name_of(pseudonym(workspace, user))
    done: dict[str, Any] = {}
    for what, source in (("labeler", SERVED), ("subject", None)):
        try:
            done[what] = erase(workspace, what, name, source=source, why=why, say=run.say).as_json()  # type: ignore[arg-type]
        except NotFound:
            continue  # they judged nothing, or no pair holds their words
    if not done:
        raise NotFound("nobody was served under this name", fix="name the user as the requests named them")
    n = sum(one["served"] for one in done.values())
    run.result(
        {"known_as": name, **done}, f"{name} is erased: {n} served replies lost their words; see --json for the rest"
    )


def _show(run: Run, votes: Sequence[Vote], *, none: str = "no votes") -> None:
    told: list[dict[str, Any]] = [vote.as_json() for vote in votes]
    lines = []
    for vote in votes:
        said = "better than another" if vote.kind == "choice" else "up" if vote.liked else "down"
        lines += [
            f"{vote.id}  {said}  consent to {', '.join(vote.consent)}",
            f"  asked: {vote.prompt[-1].content[:200]}",
        ]
        lines += [f"  reply: {vote.reply[:200]}"]
        lines += [f"  other: {vote.other[:200]}"] if vote.other is not None else []
        lines += [f"  note:  {vote.note}"] if vote.note else []
    run.result({"votes": told}, "\n".join(lines) or none)
