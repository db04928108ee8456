"""The one boundary between words and calls: options that every command has, results, errors and exit codes.

A command is a function decorated with `@verb(app, "name")`. Its first argument is a `Run`; `--workspace`, `--json` and
`--debug` are added here. Results go to standard output, everything else to standard error; exit 0 done, 1 refused or failed,
2 wrong usage, and no traceback unless `--debug`.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rlhf.errors import BadUsage, RlhfError

if TYPE_CHECKING:
    from rlhf.store import Workspace

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # two letters or more: one is a drive


@dataclass
class Run:
    """One call of one command."""

    workspace_dir: Path
    as_json: bool
    debug: bool

    def workspace(self, *, make: bool = False) -> Workspace:
        """Open the workspace. make: a command that brings something in makes a missing one, and says so."""
        from rlhf.errors import NotFound
        from rlhf.store import Workspace

        try:
            return Workspace.open(self.workspace_dir)
        except NotFound:
            if not make:
                raise
            made = Workspace.create(self.workspace_dir)
            self.say(f"made a workspace at {self.workspace_dir}")
            return made

    def say(self, text: str) -> None:
        """Progress and remarks: standard error."""
        print(text, file=sys.stderr, flush=True)

    def result(self, value: Any, text: str) -> None:
        """The command's answer: one JSON object with `--json`, else `text` for people."""
        put(json_text(value) if self.as_json else text)


class OutputClosed(RlhfError):
    """Standard output takes no more (a full disk, say)."""


def put(text: str) -> bool:
    """One line of results on standard output; False once nobody reads it (`| head -1`), which is no failure.

    What the output's encoding lacks, such as a file name's stray bytes, is written as a `\\u` escape (in JSON too).
    """
    code = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(_inert(text).encode(code, "backslashreplace").decode(code), flush=True)
    except BrokenPipeError:
        _drop_output()
        return False
    except OSError as error:
        _drop_output()
        raise OutputClosed(
            f"standard output can't be written: {error.strerror}", fix="check the free space and where it goes"
        ) from None
    return True


_CONTROLS = {n: f"\\u{n:04x}" for n in (*range(32), *range(127, 160)) if n not in (9, 10)}


def _inert(text: str) -> str:
    """Without what a terminal would obey: a reply may hold sequences that move its cursor, or write over what was said before."""
    return text.replace("\r\n", "\n").translate(_CONTROLS)


# Ends of a line to Python's `splitlines` and to Unicode, though not to JSON: escaped, a reader of lines keeps whole objects.
_LINE_ENDS = {"\u2028": "\\u2028", "\u2029": "\\u2029", "\u0085": "\\u0085"}


def json_text(value: Any) -> str:
    """One line of JSON, plain ASCII where standard output is not UTF-8."""
    code = getattr(sys.stdout, "encoding", None) or "utf-8"
    ascii_only = code.lower().replace("-", "") != "utf8"
    text = json.dumps(value, ensure_ascii=ascii_only, default=str, allow_nan=False)
    for mark, escaped in _LINE_ENDS.items():
        text = text.replace(mark, escaped)
    return text


def _drop_output() -> None:
    """What is still in the buffer goes nowhere, or the interpreter would fail on it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def verb(app: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register `function(run, ...)` as a command. Parameters after `run` are Typer's as usual; docstring = help."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        own = list(signature.parameters.values())[1:]

        def call(**values: Any) -> None:
            run = Run(values.pop("workspace_dir"), values.pop("as_json"), values.pop("debug"))
            _require_paths(values.values())
            function(run, **values)

        call.__name__, call.__doc__ = function.__name__, function.__doc__
        call.__signature__ = signature.replace(parameters=[*(_keyword(p) for p in own), *_COMMON])  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in [*own, *_COMMON]}
        app.command(name)(call)
        return function

    return register


def _keyword(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _folder(word: str | Path) -> Path:
    """`--workspace ''`, say from an unset variable in a script, must not be the folder one happens to stand in."""
    if not str(word).strip():
        raise BadUsage("--workspace is empty", fix="name the workspace's folder, or leave --workspace out")
    return Path(word)


def _require_paths(values: Iterable[Any]) -> None:
    """Where a file is wanted an address is refused: nothing is ever fetched because a user named it."""
    for value in values:
        if isinstance(value, Path) and _ADDRESS.match(str(value)):
            shown = str(value).replace(":/", "://", 1)  # a path has no two slashes in a row
            raise BadUsage(
                f"{shown} is an address, wanted a path; nothing is fetched", fix="download it, and name the file"
            )


def _common(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_COMMON = [
    _common(
        "workspace_dir",
        Path,
        typer.Option(
            Path("workspace"),
            "--workspace",
            envvar="RLHF_WORKSPACE",
            help="The workspace folder.",
            metavar="DIR",
            parser=_folder,
        ),
    ),
    _common("as_json", bool, typer.Option(False, "--json", help="One JSON object on standard output.")),
    _common("debug", bool, typer.Option(False, "--debug", help="Show the traceback of an error.")),
]


def answer_for(error: BaseException, words: list[str]) -> int:
    """Print an error as the contract wants it and return the exit status."""
    if "--debug" in words:
        import traceback

        traceback.print_exception(error)
    refusal = as_refusal(error)
    if "--json" in words and not isinstance(refusal, OutputClosed):
        put(json_text(refusal.as_json()))
    else:
        print(_inert(f"error: {refusal.message}\n  fix: {refusal.fix}"), file=sys.stderr, flush=True)
    return refusal.exit_status


def as_refusal(error: BaseException) -> RlhfError:
    """Any error as ours; what we did not foresee says so and where to look."""
    from typer.exceptions import Abort, TyperException

    if isinstance(error, RlhfError):
        return error
    if isinstance(error, Abort) and isinstance(error.__cause__, EOFError):  # Typer takes any end of file for Ctrl-D
        error = error.__cause__
    if isinstance(error, TyperException):
        return BadUsage(error.format_message(), fix=_usage_hint(error))
    if isinstance(error, Abort | KeyboardInterrupt):
        from rlhf.errors import Interrupted

        return Interrupted("interrupted", fix="run the same command again")
    if type(error).__module__.startswith("sqlalchemy."):  # the store is loaded, then
        from rlhf.store.database import refusal_of

        if (refusal := refusal_of(error)) is not None:
            return refusal
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):  # of a whole folder's files
        return RlhfError(str(error.args[0][0][-1]), fix="check the path, the permissions and the free space")
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return RlhfError(f"{error.strerror}{where}", fix="check the path, the permissions and the free space")
    return RlhfError(
        f"unexpected {type(error).__name__}: {error}", fix="run again with --debug for the traceback and report it"
    )


def _usage_hint(error: Any) -> str:
    path = error.ctx.command_path if getattr(error, "ctx", None) else "rlhf"
    return f"see: {path} --help"


def quiet_libraries() -> None:
    """Libraries that we stand on talk to standard error only when asked."""
    warnings.filterwarnings(
        "ignore", category=FutureWarning, module="transformers"
    )  # of its own arguments' coming names
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
