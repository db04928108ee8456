"""Command line: words to calls.

Takes: argv. Gives: results on standard output, remarks on standard error, an exit status (0 done, 1 refused, 2 wrong usage).
Writes: nothing of its own. Never: holds logic that a notebook couldn't call, imports a heavy room before a command needs it.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rlhf.cli.boundary import answer_for, quiet_libraries

_INTERRUPTED = 130  # what Typer makes of Ctrl-C, in silence


def build() -> typer.Typer:
    """The whole command tree."""
    from rlhf.cli import (
        adapter,
        alias,
        base,
        board,
        compare,
        decisions,
        drift,
        evaluate,
        experiment,
        feedback,
        gate,
        keeping,
        loop,
        offpolicy,
        people,
        policy,
        reward,
        rollout,
        serve,
        served,
        snapshot,
        suite,
        system,
        web,
    )
    from rlhf.cli import run as runs

    app = typer.Typer(
        name="rlhf",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_top)
    system.register(app)
    for name, module in (
        ("base", base),
        ("feedback", feedback),
        ("snapshot", snapshot),
        ("suite", suite),
        ("reward", reward),
        ("policy", policy),
        ("adapter", adapter),
        ("alias", alias),
        ("gate", gate),
        ("decisions", decisions),
        ("rollout", rollout),
        ("loop", loop),
        ("run", runs),
        ("people", people),
        ("board", board),
        ("served", served),
    ):
        app.add_typer(module.app, name=name)
    evaluate.register(app)
    compare.register(app)
    experiment.register(app)
    drift.register(app)
    offpolicy.register(app)
    serve.register(app)
    web.register(app)
    keeping.register(app)
    return app


def _top(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    """Human feedback in, better model out: preferences train reward adapters behind versions that can be taken back."""
    if version:
        from rlhf import __version__

        print(f"rlhf {__version__}")
        raise typer.Exit


def main() -> None:
    """The `rlhf` command."""
    quiet_libraries()
    words = sys.argv[1:]
    try:
        status = typer.main.get_command(build())(args=words, prog_name="rlhf", standalone_mode=False)
    except BrokenPipeError:
        sys.exit(0)
    except (SystemExit, typer.Exit) as stop:
        status = stop.exit_code if isinstance(stop, typer.Exit) else stop.code
    except BaseException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a bare `rlhf feedback`: its help, as wrong usage
            print(error, file=sys.stderr)
            sys.exit(2)
        sys.exit(answer_for(error, words))
    if status == _INTERRUPTED:
        sys.exit(answer_for(KeyboardInterrupt(), words))
    sys.exit(status if isinstance(status, int) else 0)
