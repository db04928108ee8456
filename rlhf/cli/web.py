"""`rlhf web` and `rlhf label`: open the labeler's page, see who has labeled how much."""

from __future__ import annotations

from typing import Annotated

import typer

from rlhf.cli.boundary import Run, verb

label_app = typer.Typer(help="Labeling: open the page, see who has labeled how much.", no_args_is_help=True)

Host = Annotated[str, typer.Option("--host", help="The address to listen on; 0.0.0.0 = every network of this machine.")]
Port = Annotated[int, typer.Option("--port", help="The port to listen on; 0 = any free one.")]
Overlap = Annotated[int, typer.Option("--overlap", min=1, help="How many people judge each pair.")]
AllowHost = Annotated[
    list[str],
    typer.Option(
        "--allow-host",
        metavar="NAME",
        help=("A name by which browsers may call this server (behind a proxy, say). May be repeated."),
    ),
]


def register(app: typer.Typer) -> None:
    """Hang `web` and `label` into the command tree."""
    verb(app, "web")(web)
    app.add_typer(label_app, name="label")


@verb(label_app, "start")
def web(
    run: Run,
    host: Host = "127.0.0.1",
    port: Port = 8765,
    overlap: Overlap = 1,
    allow_host: AllowHost = [],  # noqa: B006
) -> None:
    """Serve the labeler's page until Ctrl-C. The first start makes a token for 'labeler-1' and prints its link."""
    from rlhf import people
    from rlhf.web import is_loopback, serve

    workspace = run.workspace(make=True)

    def announce(address: str) -> None:
        is_first = is_loopback(host) and not people.list_tokens(workspace)
        first = people.issue_token(workspace, "labeler-1") if is_first else None
        link = f"{address}/login#token={first}" if first else None
        lines = [f"labeling at {address}/login"]
        if link:
            lines.append(f"log in as labeler-1, for 30 days (shown this once): {link}")
        else:
            lines.append("log in with a token; a new one: rlhf people token NAME")
        told = {"address": address, "login": f"{address}/login", "labeler": "labeler-1" if link else None, "link": link}
        run.result(told, "\n".join(lines))
        run.say("stop with Ctrl-C; answers that the page calls saved are on disk")

    serve(workspace, host, port, overlap=overlap, hosts=allow_host, on_listen=announce)


@verb(label_app, "status")
def status(run: Run, overlap: Overlap = 1) -> None:
    """Answers in force by labeler, and the pairs that still want one."""
    from rlhf import labeling

    workspace = run.workspace()
    counts = labeling.by_labeler(workspace)
    n_open = labeling.progress(workspace, "", overlap=overlap).n_left
    head = f"{'labeler':<20} {'today':>6} {'done':>6} {'ties':>6} {'both bad':>8} {'skipped':>7} {'median s':>8}"
    lines = [
        f"{c.labeler:<20} {c.n_done_today:>6} {c.n_done:>6} {c.n_ties:>6} {c.n_both_bad:>8} {c.n_skipped:>7} "
        f"{'-' if c.median_seconds is None else c.median_seconds:>8}"
        for c in counts
    ]
    table = "\n".join([head, *lines]) if counts else "nobody has labeled yet; open the page with: rlhf web"
    run.result({"labelers": [c.as_json() for c in counts], "open_pairs": n_open}, f"{table}\n{n_open} pair(s) left")
