"""`rlhf people`: who may come in, and as what."""

from __future__ import annotations

from typing import Annotated

import typer

from rlhf.cli.boundary import Run, verb

app = typer.Typer(help="People: invite, add, tokens, list, revoke.", no_args_is_help=True)

_ROLES = "labeler, reviewer, researcher, evaluator, operator, client or admin. May be repeated."
Name = Annotated[str, typer.Argument(help="The person's pseudonym; it stands in the data.")]


@verb(app, "add")
def add(run: Run, name: Name, role: Annotated[list[str], typer.Option("--role", help=_ROLES)]) -> None:
    """Give a person roles, in place of those that they have."""
    from rlhf import people

    account = people.add(run.workspace(make=True), name, role)
    run.result(account.as_json(), f"{name} is {' and '.join(account.roles)}: may {', '.join(account.permissions)}")


@verb(app, "invite")
def invite(
    run: Run,
    role: Annotated[list[str], typer.Option("--role", help=_ROLES)] = ["labeler"],  # noqa: B006
    name: Annotated[str | None, typer.Option("--name", help="Their pseudonym; one is drawn unless given.")] = None,
    days: Annotated[float, typer.Option("--days", help="Days until it runs out.")] = 7,
    count: Annotated[int, typer.Option("--count", min=1, max=1000, help="How many, each for one person.")] = 1,
    address: Annotated[
        str, typer.Option("--address", help="Where they reach `rlhf web`.", metavar="URL")
    ] = "http://127.0.0.1:8765",
) -> None:
    """Make links that let one person in each, once. They are shown this once and kept only as digests."""
    from rlhf import people
    from rlhf.errors import BadUsage

    if name is not None and count > 1:
        raise BadUsage(f"{count} people can't all be {name}", fix="leave --name out, or invite one by one")
    _require_web(address)
    workspace = run.workspace(make=True)
    codes = [people.invite(workspace, role, name=name, days=days) for _ in range(count)]
    links = [f"{address.rstrip('/')}/invite#code={code}" for code in codes]
    run.result({"roles": sorted(set(role)), "days": days, "links": links}, "\n".join(links))
    run.say(f"each link lets one {' and '.join(sorted(set(role)))} in, once, within {days:g} days")


@verb(app, "token")
def token(
    run: Run,
    name: Name,
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope",
            help="What it opens: label, review, evaluate, publish, sign, gate, promote, roll_back, erase, people, serve, "
            "feedback. May be repeated.",
        ),
    ] = ["label"],  # noqa: B006
    days: Annotated[int, typer.Option("--days", help="Days until it expires.")] = 30,
) -> None:
    """Make a token, for programs and for logging in. It is shown this once and kept only as a digest."""
    from rlhf import people

    workspace = run.workspace(make=True)
    is_new = name not in [account.name for account in people.list_accounts(workspace)]
    made = people.issue_token(workspace, name, scope, days)
    run.result({"actor": name, "scopes": sorted(set(scope)), "days": days, "token": made, "made": is_new}, made)
    who = f"{name}, a new person," if is_new else name
    run.say(f"{who} logs in with this token for {days} days; it can't be shown again")


@verb(app, "list")
def list_(run: Run) -> None:
    """Everybody with their roles, every token and every invitation with its state."""
    from rlhf import people

    workspace = run.workspace()
    accounts, tokens = people.list_accounts(workspace), people.list_tokens(workspace)
    invitations = people.list_invitations(workspace)
    lines = [f"{a.name:<20} {','.join(a.roles):<20} {'shut out' if a.disabled_at else 'open'}" for a in accounts]
    lines += ["tokens"] * bool(tokens)
    lines += [
        f"{t.id}  {t.state:<8} {t.actor:<20} {','.join(t.scopes):<16} until {(t.expires_at or 'ever')[:10]}"
        for t in tokens
    ]
    lines += ["invitations"] * bool(invitations)
    lines += [
        f"{i.id}  {i.state:<8} {i.used_by or i.name or '-':<20} {','.join(i.roles):<16} until {i.expires_at[:10]}"
        for i in invitations
    ]
    run.result(
        {
            "accounts": [a.as_json() for a in accounts],
            "tokens": [t.as_json() for t in tokens],
            "invitations": [i.as_json() for i in invitations],
        },
        "\n".join(lines) or "nobody is known here yet; invite somebody: rlhf people invite --role labeler",
    )


@verb(app, "revoke")
def revoke(
    run: Run,
    which: Annotated[str, typer.Argument(help="A person's name, or one token's or invitation's id from the list.")],
    for_good: Annotated[
        bool, typer.Option("--for-good", help="Shut the person out, until `rlhf people add` gives them roles again.")
    ] = False,
) -> None:
    """Shut a person's tokens, log-ins and invitations, or one of them, from the next request on."""
    from rlhf import people

    workspace = run.workspace()
    if for_good:
        people.disable(workspace, which)
        run.result({"disabled": which}, f"{which} is shut out")
        return
    gone = people.revoke(workspace, which)
    ids = [*(t.id for t in gone.tokens), *(i.id for i in gone.invitations)]
    run.result(
        gone.as_json(),
        f"revoked {len(ids)} token(s) and invitation(s), ended {gone.n_sessions} log-in(s): {', '.join(ids)}",
    )


@verb(app, "withdraw")
def withdraw(run: Run, name: Name) -> None:
    """Take a person's consent back for them, from now on; they can also do it themselves, on their page."""
    from rlhf import people

    done = people.withdraw(run.workspace(), name)
    run.result(done.as_json(), f"{name}'s consent is taken back")


def _require_web(address: str) -> None:
    """A link is opened in a browser: anything but a page's address could run there, or lead nowhere."""
    from urllib.parse import urlsplit

    from rlhf.errors import BadUsage

    try:
        parts = urlsplit(address)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
    except ValueError:
        is_web = False
    if not is_web or not address.isprintable() or " " in address:
        raise BadUsage(
            f"--address {address!r:.100} is no address of a web server",
            fix="give where people reach `rlhf web`, for instance --address https://label.example",
        )
