"""`rlhf web` and `rlhf label`: open the labeler's page, see who has labeled how much."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlhf.cli import label, rank
from rlhf.cli.boundary import Run, verb

label_app = typer.Typer(help="Labeling: open the page, see who has labeled how much.", no_args_is_help=True)
label.register(label_app)  # once, here: the tree may be built many times
rank.register(label_app)

Host = Annotated[str, typer.Option("--host", help="The address to listen on; 0.0.0.0 = every network of this machine.")]
Port = Annotated[int, typer.Option("--port", help="The port to listen on; 0 = any free one.")]
Overlap = Annotated[int, typer.Option("--overlap", min=1, max=1000, help="How many people judge each pair.")]
TextFile = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="UTF-8 text; left out = show what is in force.")
]
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
    """Serve the pages until Ctrl-C. While nobody is known here, each start prints one invitation for an admin."""
    from rlhf import people
    from rlhf.feedback import person_names
    from rlhf.web import is_loopback, serve

    person_names.check()
    workspace = run.workspace(make=True)
    is_first = is_loopback(host) and not people.list_accounts(workspace)

    def announce(address: str) -> None:
        link = f"{address}/invite#code={people.first_admin(workspace)}" if is_first else None
        lines = [f"labeling at {address}/login"]
        if link:
            lines.append(f"nobody is known here yet: become the admin, once, within a day: {link}")
        else:
            lines.append("log in with a token, or invite somebody: rlhf people invite --role labeler")
        told = {"address": address, "login": f"{address}/login", "link": link}
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
    found = labeling.opinions(workspace, overlap=overlap)
    told = (
        f"of the pairs with {overlap} or more answers people agree on {found.agreed}, {found.asking} ask one more, "
        f"{found.at_review} wait for a reviewer, {found.reviewed} are reviewed, {found.left_split} stay as they are"
    )
    run.result(
        {"labelers": [c.as_json() for c in counts], "open_pairs": n_open, "opinions": found.as_json()},
        f"{table}\n{n_open} pair(s) left\n{told}",
    )


@verb(label_app, "quality")
def quality(
    run: Run,
    source: Annotated[
        str, typer.Option("--source", help="Whose labelers; web = those of the page.", metavar="S")
    ] = "web",
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=100_000, help="How many labelers, the busiest first.")
    ] = 30,
) -> None:
    """How far labelers agree, and each one's side, speed, agreement and reliability, with 95 % intervals."""
    from rlhf import labeling

    found = labeling.quality(run.workspace(), source)
    alpha = "not defined" if found.alpha is None else _interval(found.alpha, found.alpha_interval, 3)
    lines = [
        f"{found.n_answers:,} answers of {len(found.labelers):,} labelers; {found.n_shared_pairs:,} pairs have two or more: "
        f"Krippendorff's alpha {alpha}",
        f"{'labeler':<20} {'answers':>7} {'median s':>8} {'left':>18} {'agreement':>18} {'reliability':>11} "
        f"{'known':>18} {'repeats':>18} {'state':<8}",
    ]
    lines += [
        f"{one.labeler:<20} {one.n:>7} {'-' if one.median_seconds is None else one.median_seconds:>8} "
        f"{_interval(one.left_share, one.left_interval):>18} {_interval(one.agreement, one.agreement_interval):>18} "
        f"{'-' if one.reliability is None else f'{one.reliability:.2f}':>11} "
        f"{_interval(one.gold_accuracy, one.gold_interval):>18} {_interval(one.consistency, one.consistency_interval):>18} "
        f"{one.state:<8}  {'; '.join(one.notes)}".rstrip()
        for one in found.labelers[:limit]
    ]
    run.result(found.as_json(), "\n".join(lines))


def _interval(value: float | None, ends: tuple[float, float] | None, digits: int = 2) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + ("" if ends is None else f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]")


@verb(label_app, "guidelines")
def guidelines(run: Run, file: TextFile = None) -> None:
    """Show the guidelines that labelers read, or publish new ones from FILE: everybody is asked to agree again."""
    from rlhf import people

    workspace = run.workspace(make=file is not None)
    text = people.publish_text(workspace, "guideline", _body(file)) if file else people.current_texts(workspace)[0]
    run.result(text.as_json(), f"guidelines {text.number}, sha256:{text.digest[:12]}\n\n{text.body}")


@verb(label_app, "consent")
def consent(
    run: Run,
    file: TextFile = None,
    scope: Annotated[
        list[str], typer.Option("--scope", help="What it allows: train, evaluate, publish (comma-separated).")
    ] = ["train", "evaluate"],  # noqa: B006
    basis: Annotated[
        str, typer.Option("--basis", help="consent, contract, legitimate-interest or public-task.")
    ] = "consent",
) -> None:
    """Show the text that labelers consent to, or publish a new one from FILE: everybody is asked to agree again."""
    from rlhf import people

    workspace = run.workspace(make=file is not None)
    text = people.current_texts(workspace)[1]
    if file:
        words = [word.strip() for said in scope for word in said.split(",") if word.strip()]
        text = people.publish_text(workspace, "consent", _body(file), scopes=words, basis=basis)
    said = (
        f"consent {text.number}, sha256:{text.digest[:12]}, to {', '.join(text.scopes)}, on the basis of {text.basis}"
    )
    run.result(text.as_json(), f"{said}\n\n{text.body}")


def _body(file: Path) -> str:
    from rlhf.errors import BadInput

    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        raise BadInput(f"no file at {file}", fix="check the path") from None
    except OSError as error:
        raise BadInput(f"{file} can't be read: {error.strerror}", fix="give a readable UTF-8 text file") from None
    except UnicodeDecodeError:
        raise BadInput(f"{file} is no UTF-8 text", fix="save it as UTF-8") from None
