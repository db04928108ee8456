"""`rlhf label rank`: what a vote on each open pair is worth by a reward, for the queue to draw by."""

from __future__ import annotations

from typing import Annotated

import typer

from rlhf.cli.boundary import Run, verb


def register(label_app: typer.Typer) -> None:
    """Hang this verb into `rlhf label`."""
    verb(label_app, "rank")(rank)


def rank(
    run: Run,
    reward: Annotated[
        str | None, typer.Option("--reward", metavar="VERSION", help="A head, which takes in votes, or an ensemble.")
    ] = None,
    overlap: Annotated[
        int, typer.Option("--overlap", min=1, max=1000, help="People wanted a pair, as rlhf web is told.")
    ] = 1,
    watch: Annotated[bool, typer.Option("--watch", help="Go on as votes come in, until Ctrl-C.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Take the worths away: draws are even again.")] = False,
) -> None:
    """Write what a vote on each pair is worth by a reward; the queue draws by it from then on."""
    from rlhf import registry
    from rlhf.errors import BadUsage
    from rlhf.labeling.choosing import forget_worths

    if (reward is None) != forget or (watch and forget):
        raise BadUsage("rank wants either a reward or --forget", fix="rlhf label rank --reward VERSION [--watch]")
    workspace = run.workspace()
    if reward is None:
        n = forget_worths(workspace)
        run.result({"forgotten": n}, f"{n} worth(s) taken away: draws are even again")
        return
    registry.resolve(workspace, reward, role="reward")
    run.say("loading torch")
    from rlhf.reward.ranking import Ranking, follow

    ranking = Ranking(workspace, reward, overlap=overlap)
    n = ranking.write()
    told = f"{n} pair(s) ranked by {ranking.ref}, {ranking.n_votes} vote(s) taken in since it was trained"
    run.result({"pairs": n, "votes": ranking.n_votes, "version": str(ranking.ref)}, told)
    if watch:
        run.say("following votes; stop with Ctrl-C")
        follow(ranking, lambda n: run.say(f"{n} pair(s), {ranking.n_votes} vote(s)"))
