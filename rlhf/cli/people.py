"""`rlhf people`: who may come in, by token."""

from __future__ import annotations

from typing import Annotated

import typer

from rlhf.cli.boundary import Run, verb

app = typer.Typer(help="Tokens for labelers and others: make, list, revoke.", no_args_is_help=True)


@verb(app, "token")
def token(
    run: Run,
    name: Annotated[str, typer.Argument(help="The person's pseudonym; it stands in the data.")],
    scope: Annotated[
        list[str], typer.Option("--scope", help="What it opens: label, evaluate, operate. May be repeated.")
    ] = ["label"],  # noqa: B006
    days: Annotated[int, typer.Option("--days", help="Days until it expires.")] = 30,
) -> None:
    """Make a token. It is shown this once and kept only as a digest."""
    from rlhf import people

    made = people.issue_token(run.workspace(make=True), name, scope, days)
    run.result({"actor": name, "scopes": sorted(set(scope)), "days": days, "token": made}, made)
    run.say(f"{name} logs in with this token for {days} days; it can't be shown again")


@verb(app, "list")
def list_(run: Run) -> None:
    """Every token's owner, scopes and state."""
    from rlhf import people

    tokens = people.list_tokens(run.workspace())
    lines = [
        f"{t.id}  {t.state:<8} {t.actor:<20} {','.join(t.scopes):<16} until {(t.expires_at or 'ever')[:10]}"
        for t in tokens
    ]
    run.result(
        {"tokens": [t.as_json() for t in tokens]},
        "\n".join(lines) or "no tokens yet; make one with: rlhf people token NAME",
    )


@verb(app, "revoke")
def revoke(
    run: Run,
    which: Annotated[str, typer.Argument(help="A person's name, or one token's id from the list.")],
) -> None:
    """Shut a person's tokens, or one token, from the next request on."""
    from rlhf import people

    gone = people.revoke(run.workspace(), which)
    run.result({"revoked": [t.id for t in gone]}, f"revoked {len(gone)} token(s): {', '.join(t.id for t in gone)}")
